"""Markdown tables of what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from tests.benchmarks.builders import Ours
from tests.benchmarks.compare import Cell, Row

_MIB = 1 << 20


class Report(msgspec.Struct, frozen=True):
    """A whole run: the `date` (ISO), the `machine`'s kind, the builders' versions by name and why others are `absent`,
    the `scale` of the workloads, rows, and the workloads that were left out with the reason."""

    date: str
    machine: str
    versions: dict[str, str]
    absent: dict[str, str]
    scale: float
    rows: list[Row]
    skipped: dict[str, str]


def comparison(report: Report) -> str:
    """The report for people: times, then spread and memory, then what could not be measured."""
    names = list(report.versions)
    peers = [name for name in names if name != Ours.name]
    lines = [f"Measured on {report.date} on {report.machine}; workloads at {report.scale:g} of their size.", ""]
    lines += [f"- {name}: {version}" for name, version in report.versions.items()]
    lines += [f"- {name}: not measured, {reason}" for name, reason in report.absent.items()]
    if calm := [seconds for row in report.rows for seconds in row.calibration]:
        lines.append(f"- how quiet it was: a fixed piece of work took {min(calm):.3f} to {max(calm):.3f} s")
    lines += ["", "Median seconds, and our time as a share of the fastest peer's:", ""]
    lines += table(
        ["workload", *names, "share", "aim"],
        ([f"{row.key} {row.title}", *_medians(row, names), *_share(row, peers)] for row in report.rows),
    )
    lines += ["", "Fastest and slowest round in seconds, and the most memory of all processes in MiB:", ""]
    lines += table(
        ["workload", *names], ([row.key, *(_spread(row.cells.get(name)) for name in names)] for row in report.rows)
    )
    cells = ((row.key, name, cell.note) for row in report.rows for name, cell in row.cells.items())
    notes = [f"- {key}, {name}: {note}" for key, name, note in cells if note]
    notes += [f"- {key}: {reason}" for key, reason in report.skipped.items()]
    return "\n".join([*lines, *(["", "Not measured:", "", *notes] if notes else [])]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table whose columns after the first stand to the right."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _medians(row: Row, names: Sequence[str]) -> list[str]:
    cells = (row.cells.get(name) for name in names)
    return [f"{cell.median:.2f}" if cell is not None and not cell.note else "–" for cell in cells]


def _share(row: Row, peers: Sequence[str]) -> list[str]:
    """Our time by the fastest peer's, and what is aimed at."""
    ours, best = row.cells.get(Ours.name), _fastest(row.cells, peers)
    if ours is None or ours.note or best is None:
        return ["–", f"{row.target:.2f}"]
    share = ours.median / best
    return [f"{share:.2f}" if share <= row.target else f"**{share:.2f}**", f"{row.target:.2f}"]


def _fastest(cells: Mapping[str, Cell], peers: Sequence[str]) -> float | None:
    return min((cells[name].median for name in peers if name in cells and not cells[name].note), default=None)


def _spread(cell: Cell | None) -> str:
    if cell is None or cell.note:
        return "–"
    return f"{min(cell.seconds):.2f}–{max(cell.seconds):.2f}; {cell.peak / _MIB:.0f}"
