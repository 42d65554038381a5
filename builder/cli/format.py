"""How lists are printed: `--format`, tables as Docker's, and times and sizes for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from builder.cli.template import Template, json_text
from builder.cli.template_values import Record
from builder.filesystem.names import printable
from builder.progress import human_size as size

__all__ = ["ago", "human_duration", "moment", "print_rows", "rfc3339", "short_id", "size", "table"]

_NARROWEST, _GAP = 10, 3  # Docker's tab writer: a column's least width, and the space behind its widest cell


def print_rows(rows: Sequence[Mapping[str, str]], form: str, headers: Mapping[str, str], default: str) -> None:
    """Print rows in a `--format`: '' or `table` (the `default` columns), `json`, `table TEMPLATE`, or a template.

    `headers` has all fields that rows have, with their titles. What begins with `table` is one, as in Docker's
    formatter (`Format.IsTable`), and shows no control characters; the other forms are exact. Raises UsageError for a
    wrong template.
    """
    if form == "json":
        for row in rows:
            print(json_text(dict(sorted(row.items()))))
        return
    columns = form == "" or form.startswith("table")
    text = default if form in ("", "table") else form.removeprefix("table").strip() if columns else form
    template = Template(text.replace("\\t", "\t").replace("\\n", "\n"))
    if columns:
        rows = [{name: printable(value) for name, value in row.items()} for row in rows]
    lines = [template.render(Record(row)) for row in rows]
    if columns:
        sys.stdout.write(table([template.titles(Record(headers)), *lines]))
    else:
        for line in lines:
            print(line)


def table(lines: Iterable[str]) -> str:
    """Lines with cells between tabs, as columns; each is as wide as its widest cell and the gap."""
    cells = [line.split("\t") for line in lines]
    widths: list[int] = []
    for line in cells:
        for position, cell in enumerate(line[:-1]):
            if position == len(widths):
                widths.append(_NARROWEST)
            widths[position] = max(widths[position], len(cell) + _GAP)
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False)) + line[-1] + "\n"
        for line in cells
    )


def short_id(digest: str, *, truncate: bool = True) -> str:
    """Twelve digits of a digest, or all of it."""
    return digest.partition(":")[2][:12] if truncate else digest


def ago(when: datetime | None) -> str:
    """`3 hours ago`; `N/A` for an image that does not say when it was made."""
    if when is None or when.year <= 1:
        return "N/A"
    return human_duration((datetime.now(UTC) - when).total_seconds()) + " ago"


def moment(when: datetime | None) -> str:
    """A time as Docker prints it, in the local time zone: `2024-02-01 13:37:00 +0000 UTC`."""
    if when is None or when.year <= 1:
        return "N/A"
    return local(when).strftime("%Y-%m-%d %H:%M:%S %z %Z")


def rfc3339(when: datetime) -> str:
    """A time as `docker history` prints it, in the local time zone, without what is less than a second."""
    text = local(when).isoformat(timespec="seconds")
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def local(when: datetime) -> datetime:
    """A time in the local time zone; as it is, if that would take it out of the years that there are here."""
    try:
        return when.astimezone()
    except (OverflowError, ValueError):
        return when


def human_duration(seconds: float) -> str:
    """Docker's words for a duration: `About an hour`, `5 days`."""
    count = int(seconds)
    if count < 1:
        return "Less than a second"
    if count < 60:
        return _several(count, "second")
    if count < 3600:
        return "About a minute" if count < 120 else f"{count // 60} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, unit, length in ((48, "hours", 1), (336, "days", 24), (1440, "weeks", 168), (17520, "months", 720)):
        if hours < limit:
            return f"{hours // length} {unit}"
    return f"{hours // 8760} years"


def _several(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
