"""An excerpt of a Dockerfile with the lines in question marked, as BuildKit shows with its errors."""

from __future__ import annotations

from builder.dockerfile.instructions import Range

_AROUND = 2
_MOST = 12
_WIDTH = 160


def excerpt(text: str | bytes, lines: Range) -> tuple[str, ...]:
    """The given lines, marked with `>>>`, and two before and after them, numbered from 1.

    The middle of a long range is left out; long lines are cut and control characters replaced, so that it is safe to
    print. Empty when the text has no such lines.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    written = text.removeprefix("\ufeff").removesuffix("\n").split("\n")
    if not text or not 1 <= lines.start <= len(written):
        return ()
    first, last = max(1, lines.start - _AROUND), min(len(written), lines.end + _AROUND)
    cut = range(first + _MOST // 2, last - _MOST // 2 + 1) if last - first >= _MOST else range(0)
    shown: list[str] = []
    for number in range(first, last + 1):
        if number in cut:
            if number == cut.start:
                shown.append("     | >>> …")
            continue
        mark = ">>>" if lines.start <= number <= lines.end else "   "
        shown.append(f"{number:4d} | {mark} {_printable(written[number - 1])}".rstrip())
    return tuple(shown)


def _printable(line: str) -> str:
    line = line.rstrip("\r").expandtabs(4)
    if len(line) > _WIDTH:
        line = line[:_WIDTH] + "…"
    return "".join(c if c.isprintable() else "\ufffd" for c in line)
