"""What the page says of a build, as plain values for its template."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import msgspec
from markupsafe import Markup

from builder.api.critical import NOTICEABLE, CriticalPath, critical_path
from builder.api.drawing.stages import Note, svg
from builder.api.report.layers import LayersPart, layers_part
from builder.api.report.timeline import TimelineRow, timeline
from builder.dockerfile.located import physical_lines
from builder.progress import Warned
from builder.store.builds import BASES, CACHED, FAILED, NOT_NEEDED, NOT_STARTED, RAN, STOPPED, Build, BuiltStep
from builder.store.store import Store

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_LINE = re.compile(r":(\d+)$")


class StepPart(msgspec.Struct, frozen=True):
    """A step: its record, the CSS class of its outcome, an anchor, its log, and what it is made from and costs."""

    step: BuiltStep
    style: str
    anchor: str
    log: str
    needs: tuple[StepLink, ...]
    critical: bool
    cost: float | None


class StepLink(msgspec.Struct, frozen=True):
    """A link to a step."""

    text: str
    anchor: str


class WarningPart(msgspec.Struct, frozen=True):
    """A warning, and the line of the Dockerfile that it is about (0: none)."""

    warning: Warned
    line: int


class LinePart(msgspec.Struct, frozen=True):
    """A line of the Dockerfile, the warnings about it, and the steps that it became."""

    number: int
    text: str
    warnings: tuple[Warned, ...]
    steps: tuple[StepLink, ...]
    style: str


class Page(msgspec.Struct, frozen=True):
    """All parts of a page; `stages` and what `layers` has of SVG are safe markup."""

    build: Build
    title: str
    started: str
    counts: str
    critical: CriticalPath
    stages: Markup
    rows: tuple[TimelineRow, ...]
    scale: tuple[str, ...]
    steps: tuple[StepPart, ...]
    layers: LayersPart
    warnings: tuple[WarningPart, ...]
    lines: tuple[LinePart, ...]


def page_of(store: Store, build: Build) -> Page:
    """What is known of a recorded build."""
    critical = critical_path(build.steps)
    steps = tuple(_steps(store, build, critical))
    warnings = tuple(WarningPart(warning, _line_of(warning)) for warning in build.warnings)
    rows, scale = timeline(build, critical.numbers)
    return Page(
        build=build,
        title=" ".join(build.names) or f"build {build.build}",
        started=datetime.fromtimestamp(build.started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        counts=counts_in_words(build),
        critical=critical,
        stages=Markup(svg(build.stages, _notes(steps), alone=False)) if build.stages.nodes else Markup(),
        rows=rows,
        scale=scale,
        steps=steps,
        layers=layers_part(store, build),
        warnings=warnings,
        lines=tuple(_lines(build.text, warnings, steps)),
    )


def counts_in_words(build: Build) -> str:
    """How many steps had which outcome: `2 ran, 3 cached`."""
    counts = dict.fromkeys((FAILED, RAN, CACHED, STOPPED, NOT_STARTED, NOT_NEEDED), 0)
    for step in build.steps:
        if step.kind not in BASES:
            counts[step.outcome] += 1
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "no steps"


def _steps(store: Store, build: Build, critical: CriticalPath) -> Iterator[StepPart]:
    costs = {one.step.step: one.cost for one in critical.steps}
    links = {step.step: _link(step) for step in build.steps if step.step and step.kind not in BASES}
    for position, step in enumerate(build.steps):
        if step.kind in BASES:
            continue
        yield StepPart(
            step=step,
            style=style_of(step.outcome),
            anchor=f"step-{step.step}" if step.step else f"left-out-{position}",
            log=_log(store, build, step),
            needs=tuple(links[need] for need in dict.fromkeys(step.needs) if need in links),
            critical=step.step in costs,
            cost=costs.get(step.step),
        )


def _link(step: BuiltStep) -> StepLink:
    return StepLink(step.position, f"step-{step.step}")


def style_of(outcome: str) -> str:
    """The CSS class of an outcome."""
    return outcome.replace(" ", "-")


def _log(store: Store, build: Build, step: BuiltStep) -> str:
    file = store.builds.open_log(build, step.step) if step.log else None
    if file is None:
        return ""
    with file:
        return plain(file.read().decode("utf-8", "backslashreplace"))


def plain(text: str) -> str:
    """A log as text: without what steers a terminal; what a carriage return would overwrite stays, as a line."""
    text = _ESCAPE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(one if one.isprintable() or one in "\n\t" else "�" for one in text)


def _notes(steps: Sequence[StepPart]) -> dict[str, Note]:
    """What the graph says of each stage: how its steps came out, and how long they took together."""
    by_stage: dict[str, list[StepPart]] = {}
    for part in steps:
        by_stage.setdefault(part.step.stage, []).append(part)
    return {stage: _note(parts) for stage, parts in by_stage.items()}


def _note(parts: Sequence[StepPart]) -> Note:
    counts: dict[str, int] = {}
    for part in parts:
        counts[part.step.outcome] = counts.get(part.step.outcome, 0) + 1
    seconds = sum(part.step.seconds for part in parts if part.step.outcome != CACHED)
    text = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    worst = next((one for one in (FAILED, STOPPED, RAN, CACHED, NOT_STARTED) if one in counts), NOT_NEEDED)
    style = (
        "on-path"
        if worst == RAN and any(part.critical and part.step.seconds >= NOTICEABLE for part in parts)
        else style_of(worst)
    )
    return Note(f"{text} · {seconds:.1f}s" if seconds >= 0.05 else text, style, f"#{parts[0].anchor}")


def _line_of(warning: Warned) -> int:
    match = _LINE.search(warning.place or "")
    return int(match[1]) if match is not None else 0


def _lines(text: str, warnings: Sequence[WarningPart], steps: Sequence[StepPart]) -> Iterator[LinePart]:
    warned: dict[int, list[Warned]] = {}
    for one in warnings:
        warned.setdefault(one.line, []).append(one.warning)
    made: dict[int, list[StepPart]] = {}
    for part in steps:
        made.setdefault(part.step.line, []).append(part)
    lines = physical_lines(text)
    for number, line in enumerate(lines if lines[-1] else lines[:-1], 1):
        here = made.get(number, ())
        yield LinePart(
            number=number,
            text=plain(line.rstrip("\r")),
            warnings=tuple(warned.get(number, ())),
            steps=tuple(StepLink(part.step.outcome, part.anchor) for part in here),
            style=here[0].style if here else "",
        )
