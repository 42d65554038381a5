"""Rectangles with given areas that fill a rectangle, each as near to a square as it goes: a squarified tree map
(Bruls, Huizing and van Wijk, 2000)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Rectangle(NamedTuple):
    x: float
    y: float
    width: float
    height: float


def treemap(sizes: Sequence[float], area: Rectangle) -> Iterator[tuple[int, Rectangle]]:
    """The position of each size that is more than nothing, with its rectangle; the largest first."""
    order = sorted((number for number, size in enumerate(sizes) if size > 0), key=lambda number: -sizes[number])
    total = sum(sizes[number] for number in order)
    if not total or area.width <= 0 or area.height <= 0:
        return
    scale = area.width * area.height / total
    while order:
        side = min(area.width, area.height)
        count, best = 0, float("inf")
        while count < len(order):  # a row grows as long as that makes its worst rectangle better
            worst = _worst([sizes[number] * scale for number in order[: count + 1]], side)
            if worst > best:
                break
            count, best = count + 1, worst
        row, order = order[:count], order[count:]
        thickness = sum(sizes[number] for number in row) * scale / side
        upright = area.width >= area.height  # the row is a column at the left
        along = area.y if upright else area.x
        for number in row:
            length = sizes[number] * scale / thickness
            if upright:
                yield number, Rectangle(area.x, along, thickness, length)
            else:
                yield number, Rectangle(along, area.y, length, thickness)
            along += length
        if upright:
            area = Rectangle(area.x + thickness, area.y, max(0.0, area.width - thickness), area.height)
        else:
            area = Rectangle(area.x, area.y + thickness, area.width, max(0.0, area.height - thickness))
        if order and (area.width <= 0 or area.height <= 0):  # rounding left nothing for the smallest
            return


def _worst(areas: Sequence[float], side: float) -> float:
    """The largest ratio of sides in a row of these areas along a side."""
    total = sum(areas)
    return max(side * side * max(areas) / (total * total), total * total / (side * side * min(areas)))
