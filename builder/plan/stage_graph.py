"""From the stages that a plan has read to the graph that people see of them."""

from __future__ import annotations

from collections.abc import Callable, Collection

from builder.dockerfile.instructions import Copy
from builder.dockerfile.stage_graph import (
    CONTEXT,
    COPY,
    FROM,
    IMAGE,
    MOUNT,
    SCRATCH,
    STAGE,
    StageEdge,
    StageGraph,
    StageNode,
)
from builder.oci import reference
from builder.plan.stages import StageEntry, StageTable
from builder.plan.steps import FromContext, ImageKey

Base = ImageKey | StageEntry | FromContext | None
"""What a stage starts from; None is nothing at all."""


def stage_graph(
    table: StageTable, target: StageEntry, needed: Collection[StageEntry], base_of: Callable[[StageEntry], Base]
) -> StageGraph:
    """The graph of the stages in `table`, of which the target needs those in `needed`."""
    return _Drawing(table, needed, base_of).draw(target)


class _Drawing:
    def __init__(
        self, table: StageTable, needed: Collection[StageEntry], base_of: Callable[[StageEntry], Base]
    ) -> None:
        self._stages = [entry for entry in table.entries if not entry.implicit]
        self._needed = needed
        self._base_of = base_of
        self._positions = {entry: position for position, entry in enumerate(self._stages)}
        self._beside: dict[tuple[str, str], int] = {}  # what is no stage: its kind and name, and its position
        self._shown: dict[int, bool] = {}  # and whether a stage that is needed uses it
        self._edges: dict[tuple[int, int, str], StageEdge] = {}

    def draw(self, target: StageEntry) -> StageGraph:
        for entry in self._stages:
            from_line = entry.stage.from_.range.start if entry.stage else 0
            self._use(entry, self._base_of(entry), FROM, from_line)
            for source in dict.fromkeys(entry.needs):
                instruction = entry.named_by[source]
                kind = COPY if isinstance(instruction, Copy) else MOUNT
                self._use(entry, source, kind, instruction.range.start)
        stages = [
            StageNode(entry.label, STAGE, entry.stage.from_.range.start if entry.stage else 0, entry in self._needed)
            for entry in self._stages
        ]
        beside = [
            StageNode(name, kind, needed=self._shown[position]) for (kind, name), position in self._beside.items()
        ]
        return StageGraph((*stages, *beside), tuple(self._edges.values()), self._positions[target])

    def _use(self, user: StageEntry, source: Base, kind: str, line: int) -> None:
        if isinstance(source, StageEntry) and source.implicit:
            source = source.base or self._base_of(source)
        if isinstance(source, StageEntry):
            position = self._positions[source]
        else:
            position = self._place(*_named(source), needed=user in self._needed)
        edge = StageEdge(position, self._positions[user], kind, line)
        self._edges.setdefault((edge.source, edge.user, kind), edge)

    def _place(self, kind: str, name: str, *, needed: bool) -> int:
        position = self._beside.setdefault((kind, name), len(self._stages) + len(self._beside))
        self._shown[position] = self._shown.get(position, False) or needed
        return position


def _named(source: ImageKey | FromContext | None) -> tuple[str, str]:
    if source is None:
        return SCRATCH, "scratch"
    if isinstance(source, FromContext):
        return CONTEXT, source.name
    return IMAGE, source.layout or reference.parse(source.reference).familiar
