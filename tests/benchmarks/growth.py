"""How the cost of `builder` grows with one dimension of its input, and whether that is as it should be.

Growth is good if it is linear or better: the exponent between two sizes, log(cost₂/cost₁) / log(size₂/size₁), is at
most 1.15, where cost is what is above that of the smallest size. It is said only where that is more than noise. Memory
may grow by an index of names alone.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from tests.benchmarks.builders import Ours
from tests.benchmarks.machine import leave_memory, remove_tree
from tests.benchmarks.measure import calibrate, measure
from tests.benchmarks.report import table
from tests.benchmarks.series import Series

WORST = 1.15
"""The exponent up to which growth counts as linear: the rest is noise, sorting and caches that overflow."""
NOISE = 0.1
"""Seconds above the start that are too few to say anything about growth."""
SETTLE = 2.1
"""Seconds after which a file's times are believed (see builder/solver/fingerprints.py)."""
LONG = 5.0
"""Commands that together take so many seconds are run once."""


class Point(msgspec.Struct, frozen=True):
    """One command at one size: `seconds`, `cpu` seconds, `peak` memory of all processes in bytes; `calibration` are the
    seconds of the fixed work before it."""

    size: int
    seconds: float
    cpu: float
    peak: int
    calibration: float = 0.0


class Curve(msgspec.Struct, frozen=True):
    """One command of one series, over all sizes. `memory` is what a unit may cost, in bytes."""

    series: str
    title: str
    unit: str
    command: str
    memory: float
    points: list[Point]

    def exponents(self, cost: Callable[[Point], float]) -> list[float | None]:
        """For each point the exponent from the one before; None where one of both is not above the noise."""
        found: list[float | None] = []
        start = self.points[0]
        for before, point in zip(self.points, self.points[1:], strict=False):
            low, high = cost(before) - cost(start), cost(point) - cost(start)
            if before is start or low < NOISE or high < NOISE:
                found.append(None)
            else:
                found.append(math.log(high / low) / math.log((point.size - start.size) / (before.size - start.size)))
        return [None, *found]

    def bytes_per_unit(self) -> list[float | None]:
        """For each point how much memory a unit has cost since the one before."""
        pairs = zip(self.points, self.points[1:], strict=False)
        return [None, *((point.peak - before.peak) / (point.size - before.size) for before, point in pairs)]

    def faults(self) -> list[str]:
        """What grows as it should not, in words."""
        found = []
        for what, cost in (("time", _seconds), ("processor time", _cpu)):
            worst = max((exponent for exponent in self.exponents(cost) if exponent is not None), default=0.0)
            if worst > WORST:
                found.append(f"{what} grows with an exponent of {worst:.2f}")
        first, last = self.points[0], self.points[-1]
        allowed = self.memory * (last.size - first.size)
        if last.peak - first.peak > allowed + _UNCERTAIN:
            each = (last.peak - first.peak) / (last.size - first.size)
            found.append(f"memory grows by {each:,.3g} bytes for each {self.unit}")
        return found


_UNCERTAIN = 24 << 20
"""Bytes that a peak may vary by: what buffers and a second process take, whatever the size."""


def _seconds(point: Point) -> float:
    return point.seconds


def _cpu(point: Point) -> float:
    return point.cpu


def measure_all(work: Path, chosen: Sequence[Series], scale: float, runs: int) -> list[Curve]:
    """The curves of all series, with their largest sizes cut at `scale`. Stops early when interrupted."""
    found: list[Curve] = []
    try:
        for series in chosen:
            found += (curves := _empty_curves(series))
            _measure_series(work, series, curves, scale, runs)
    except KeyboardInterrupt:
        print("interrupted: what follows is what was finished", file=sys.stderr)
    return [curve for curve in found if curve.points]


def _empty_curves(series: Series) -> list[Curve]:
    """One curve for each command."""
    return [Curve(series.key, series.title, series.unit, name, series.memory, []) for name in series.commands]


def _measure_series(work: Path, series: Series, curves: Sequence[Curve], scale: float, runs: int) -> None:
    """Add the points of one series to its curves."""
    measure_size(work, series, series.sizes[0], 1)  # a rehearsal: files of the builder itself come into memory
    for size in series.sizes:
        if size > series.sizes[0] and size > scale * series.sizes[-1]:
            break
        found = measure_size(work, series, size, runs)
        for curve in curves:
            point = found[curve.command]
            curve.points.append(point)
            print(
                f"{series.key} {size:,} {curve.command}: {point.seconds:.2f} s, processor {point.cpu:.2f} s, "
                f"{point.peak >> 20} MiB",
                file=sys.stderr,
                flush=True,
            )


def measure_size(work: Path, series: Series, size: int, runs: int) -> dict[str, Point]:
    """Each command at one size: the fastest of some rounds, each in a store of its own, and the most memory of one more
    round, since to look at the memory of many short processes slows them. A long round is the only one, and watched."""
    watched = _round(work, series, size, 1, watch=True)
    if sum(point.seconds for point in watched.values()) > LONG:
        return watched
    rounds = [_round(work, series, size, runs) for _ in range(runs)]
    fastest = {name: min((found[name] for found in rounds), key=_seconds) for name in watched}
    return {name: msgspec.structs.replace(fastest[name], peak=point.peak) for name, point in watched.items()}


def _round(work: Path, series: Series, size: int, runs: int, *, watch: bool = False) -> dict[str, Point]:
    """Each command in one store; of what can be run again the fastest of some runs."""
    builder, context = Ours(work), work / "context"
    builder.wipe()
    context.mkdir()
    series.make(context, builder.root, size)
    time.sleep(SETTLE)
    found: dict[str, Point] = {}
    for name, words in series.commands.items():
        command = [*builder.command, *(word.format(context=context) for word in words)]
        for _ in range(1 if name == "cold" else runs):
            quiet = calibrate()
            if series.from_disk:
                leave_memory(context)
            usage = measure([[command]], builder.environ, watch=watch)
            point = Point(size, usage.seconds, usage.cpu, usage.peak, quiet)
            found[name] = min(point, found.get(name, point), key=_seconds)
    remove_tree(context)
    builder.wipe()
    return found


def describe(curves: Sequence[Curve], date: str, machine: str) -> str:
    """The report for people: a table of all points, and what grows as it should not."""
    lines = [f"Measured on {date} on {machine}.", ""]
    if calm := [point.calibration for curve in curves for point in curve.points]:
        lines += [f"How quiet it was: a fixed piece of work took {min(calm):.3f} to {max(calm):.3f} s.", ""]
    for key in dict.fromkeys(curve.series for curve in curves):
        of_key = [curve for curve in curves if curve.series == key]
        lines += [f"**{key}**: {of_key[0].title}", "", *_table(of_key), ""]
    faults = [f"- {curve.series}, {curve.command}: {fault}" for curve in curves for fault in curve.faults()]
    lines += ["Worse than linear, or more memory than an index of names:", "", *(faults or ["- nothing"])]
    return "\n".join(lines) + "\n"


def _table(curves: Sequence[Curve]) -> list[str]:
    unit = curves[0].unit
    head = ["", f"{unit}s", "seconds", "exponent", "processor s", "exponent", f"µs a {unit}", "MiB", f"bytes a {unit}"]
    return table(head, (row for curve in curves for row in _rows(curve)))


def _rows(curve: Curve) -> list[list[str]]:
    start = curve.points[0]
    columns = zip(curve.points, curve.exponents(_seconds), curve.exponents(_cpu), curve.bytes_per_unit(), strict=True)
    return [
        [
            curve.command,
            f"{point.size:,}",
            f"{point.seconds:.2f}",
            _number(exponent, ".2f"),
            f"{point.cpu:.2f}",
            _number(of_cpu, ".2f"),
            _number(_microseconds(point, start), ",.3g"),
            f"{point.peak / 2**20:.0f}",
            _number(memory, ",.3g"),
        ]
        for point, exponent, of_cpu, memory in columns
    ]


def _microseconds(point: Point, start: Point) -> float | None:
    """What a unit costs above the start, if that is more than noise."""
    seconds = point.seconds - start.seconds
    return None if seconds < NOISE / 2 else seconds / (point.size - start.size) * 1e6


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
