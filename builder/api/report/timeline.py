"""When the steps of a build waited and ran, and what happened beside them, as rows of bars."""

from __future__ import annotations

from collections.abc import Collection
from math import ceil, floor, log10

import msgspec

from builder.progress import human_size
from builder.store.builds import BASES, Build


class TimelineRow(msgspec.Struct, frozen=True):
    """A bar. `start` and `width` are percentages of the build's time, as are `queue_start` and `queue_width` of the
    time it waited before; `style` is a CSS class, `anchor` that of the step, '' for what is none."""

    text: str
    detail: str
    style: str
    anchor: str
    critical: bool
    start: float
    width: float
    queue_start: float
    queue_width: float
    seconds: float


def timeline(build: Build, critical: Collection[str]) -> tuple[tuple[TimelineRow, ...], tuple[str, ...]]:
    """The rows in the order of their beginnings, and the marks of the scale, which divide its whole width evenly."""
    total = max([build.seconds, *(step.started + step.seconds - build.started for step in build.steps)])
    marks, length = _scale(total)
    rows = []
    for step in build.steps:
        if step.started:
            detail = f"{step.instruction}: {step.outcome} in {step.seconds:.2f}s"
            if step.queued >= 0.01:
                detail += f", waited {step.queued:.2f}s for a free job"
            rows.append(
                (
                    step.started,
                    f"[{step.position}] {step.instruction}",
                    detail,
                    step.outcome.replace(" ", "-"),
                    f"step-{step.step}" if step.kind not in BASES else "",
                    step.step in critical,
                    step.seconds,
                    step.queued,
                )
            )
    for span in build.spans:
        size = f", {human_size(span.size)}" if span.size >= 0 else ""
        detail = f"{span.name}: {span.seconds:.2f}s{size}" + (f", {span.outcome}" if span.outcome else "")
        rows.append(
            (span.started, span.name, detail, "transfer" if span.transfer else "work", "", False, span.seconds, 0.0)
        )
    found = []
    for started, text, detail, style, anchor, is_critical, seconds, queued in sorted(rows, key=lambda row: row[0]):
        start = _percent(started - build.started, length)
        queue_start = _percent(started - queued - build.started, length)
        found.append(
            TimelineRow(
                text,
                detail,
                style,
                anchor,
                is_critical,
                start,
                max(0.15, _percent(seconds, length)),
                queue_start,
                round(start - queue_start, 3),
                seconds,
            )
        )
    return tuple(found), marks


def _percent(seconds: float, length: float) -> float:
    return round(min(100.0, max(0.0, 100 * seconds / length)), 3)


def _scale(total: float) -> tuple[tuple[str, ...], float]:
    """Marks at round times, and the time of the last one: 1, 2 or 5 times a power of ten apart, at most five."""
    total = max(total, 0.001)
    step = 10.0 ** floor(log10(total / 5))
    step = next(step * factor for factor in (1, 2, 5, 10) if total / (step * factor) <= 5)
    count = ceil(total / step - 1e-9)
    digits = max(0, -floor(log10(step)))
    return tuple(f"{number * step:.{digits}f}s" for number in range(count + 1)), count * step
