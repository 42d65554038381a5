"""Where the nodes of a small directed graph without cycles are drawn: in layers, as Sugiyama, Tagawa and Toda do it.

Every edge leads down. The steps are the usual ones: a layer for each node (the longest path decides), bends where an
edge crosses layers, an order in each layer by the mean place of the neighbours above and below (the barycentre), then
coordinates. Lengths are in pixels.

Our own, as what there is either needs a program of the system (Graphviz) or is no longer kept (grandalf); graphs have
a few hundred nodes at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from itertools import pairwise

import msgspec

GAP = 28.0
"""Between neighbours of a layer."""
_BEND_WIDTH = 8.0
_SWEEPS = 8


class Placed(msgspec.Struct, frozen=True):
    """Where the nodes' centres are, by their positions in the given order, which points each edge runs through, and the
    size of it all."""

    centres: tuple[tuple[float, float], ...]
    routes: tuple[tuple[tuple[float, float], ...], ...]
    width: float
    height: float


def place(widths: Sequence[float], edges: Sequence[tuple[int, int]], *, height: float, distance: float) -> Placed:
    """Lay out nodes of the given widths, all `height` high, in layers `distance` apart. Edges are pairs of nodes, from
    above to below. Raises graphlib.CycleError."""
    layout = _Layout(widths, edges)
    layout.order()
    xs = layout.coordinates()
    half = height / 2
    centres = [(xs[node], layout.layer[node] * (height + distance) + half) for node in range(len(widths))]
    routes = []
    for chain in layout.chains:
        points = [(xs[node], layout.layer[node] * (height + distance) + half) for node in chain]
        (first_x, first_y), (last_x, last_y) = points[0], points[-1]
        routes.append(((first_x, first_y + half), *points[1:-1], (last_x, last_y - half)))
    depth = max(layout.layer, default=0) + 1
    right = max((xs[node] + layout.widths[node] / 2 for node in range(len(layout.widths))), default=0.0)
    return Placed(tuple(centres), tuple(routes), right, depth * (height + distance) - distance)


class _Layout:
    """Nodes, to which bends are appended; `chains` are the nodes that each edge runs through."""

    def __init__(self, widths: Sequence[float], edges: Sequence[tuple[int, int]]) -> None:
        self.widths = list(widths)
        self.layer = _layers(len(widths), edges)
        self.chains: list[list[int]] = []
        self._above: dict[int, list[int]] = {}
        self._below: dict[int, list[int]] = {}
        for upper, lower in edges:
            chain = [upper]
            for layer in range(self.layer[upper] + 1, self.layer[lower]):
                chain.append(len(self.widths))
                self.widths.append(_BEND_WIDTH)
                self.layer.append(layer)
            chain.append(lower)
            self.chains.append(chain)
            for one, two in pairwise(chain):
                self._below.setdefault(one, []).append(two)
                self._above.setdefault(two, []).append(one)
        self.rows: list[list[int]] = [[] for _ in range(max(self.layer, default=-1) + 1)]
        for node, layer in enumerate(self.layer):
            self.rows[layer].append(node)

    def order(self) -> None:
        """Order each layer so that few edges cross."""
        for sweep in range(_SWEEPS):
            down = sweep % 2 == 0
            neighbours = self._above if down else self._below
            at = {node: position for row in self.rows for position, node in enumerate(row)}
            for row in self.rows if down else reversed(self.rows):
                row.sort(key=lambda node: _mean([at[other] for other in neighbours.get(node, ())], at[node]))
                at.update({node: position for position, node in enumerate(row)})

    def coordinates(self) -> list[float]:
        """The horizontal centres: each node as near to its neighbours as those beside it allow."""
        xs = [0.0] * len(self.widths)
        for row in self.rows:
            self._spread(row, xs, {})
        for sweep in range(_SWEEPS):
            down = sweep % 2 == 0
            neighbours = self._above if down else self._below
            for row in self.rows if down else reversed(self.rows):
                wanted = {
                    node: _mean([xs[other] for other in neighbours[node]], xs[node])
                    for node in row
                    if neighbours.get(node)
                }
                self._spread(row, xs, wanted)
        left = min((x - width / 2 for x, width in zip(xs, self.widths, strict=True)), default=0.0)
        return [x - left for x in xs]

    def _spread(self, row: Sequence[int], xs: list[float], wanted: Mapping[int, float]) -> None:
        """Move the nodes of a row to where they want to be, or near it, without overlaps: the mean of what pushing
        from the left and from the right gives."""
        goals = [wanted.get(node, xs[node]) for node in row]
        from_left, from_right = [0.0] * len(row), [0.0] * len(row)
        for position, node in enumerate(row):
            from_left[position] = goals[position]
            if position:
                least = from_left[position - 1] + (self.widths[row[position - 1]] + self.widths[node]) / 2 + GAP
                from_left[position] = max(goals[position], least)
        for position in range(len(row) - 1, -1, -1):
            from_right[position] = goals[position]
            if position < len(row) - 1:
                most = (
                    from_right[position + 1] - (self.widths[row[position + 1]] + self.widths[row[position]]) / 2 - GAP
                )
                from_right[position] = min(goals[position], most)
        for position, node in enumerate(row):
            xs[node] = (from_left[position] + from_right[position]) / 2


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The layer of each node: as high as what is above it allows; what nothing is above of stands just above what it
    leads to."""
    above: dict[int, list[int]] = {node: [] for node in range(count)}
    below: dict[int, list[int]] = {node: [] for node in range(count)}
    for upper, lower in edges:
        above[lower].append(upper)
        below[upper].append(lower)
    layers = [0] * count
    for node in TopologicalSorter(above).static_order():
        layers[node] = max((layers[upper] + 1 for upper in above[node]), default=0)
    for node in range(count):
        if not above[node] and below[node]:
            layers[node] = min(layers[lower] for lower in below[node]) - 1
    return layers


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
