"""`builder explain`: why the steps of a build ran."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import click

from builder.api.explain import ExplainedStep, Explanation, document, explain
from builder.cli.flags import BuildCommand
from builder.cli.format import human_duration, table
from builder.cli.settings import Settings
from builder.cli.stores import open_store
from builder.errors import UsageError
from builder.filesystem.names import printable
from builder.solver.explain_files import FileChange, FileState, in_words
from builder.solver.explain_recipes import Difference
from builder.store.builds import BASES, CACHED, ELSEWHERE, STOPPED, Build, BuiltStep

_WIDEST = 100


@click.command("explain", cls=BuildCommand, epilog='Example: builder explain app:1 "build 4/6"')
@click.argument("build", metavar="[BUILD]", default="")
@click.argument("step", metavar="[STEP]", default="")
@click.option("--format", "form", default="", metavar="json", help="Print JSON.")
@click.pass_obj
def command(settings: Settings, build: str, step: str, form: str) -> None:
    """Say why the steps of a build ran, or all about one step.

    BUILD is an image's name for the newest build of it, the first digits of a build's ID, latest, or -1 for the newest
    build, -2 for the one before; by default it is the newest. STEP is a step's place as the build shows it
    (`build 4/6`, `4`), its line (`:7`), or a part of its text.
    """
    if form not in ("", "json", "text"):
        raise UsageError(f"unknown format {form!r}", remedy="write --format json, or nothing for text")
    explanation = explain(open_store(settings), build, step)
    detailed = explanation.of_step
    if form == "json":
        import json

        print(json.dumps(document(explanation, recipes=detailed), indent=2, ensure_ascii=False))
        return
    for line in _detail(explanation) if detailed else _overview(explanation):
        print(printable(line))


# --- a build


def _overview(explanation: Explanation) -> Iterator[str]:
    build = explanation.build
    yield _headline(build)
    if build.error:
        yield f"  {build.error}"
    rows = ["STEP\tOUTCOME\tTIME\tINSTRUCTION"]
    for explained in explanation.steps:
        step = explained.step
        if step.kind in BASES:
            continue
        seconds = f"{step.seconds:.1f}s" if step.outcome not in ("cached", "not needed", "not started") else ""
        rows.append(f"{step.position}\t{step.outcome}\t{seconds}\t{_cut(step.instruction)}")
        if step.reason is not None:
            rows.append(f"\t\t\t  because {printable(step.reason.text)}")
    yield from table(rows).splitlines()


def _headline(build: Build) -> str:
    counts: dict[str, int] = {}
    for step in build.steps:
        if step.kind not in BASES:
            counts[step.outcome] = counts.get(step.outcome, 0) + 1
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "no steps"
    names = " ".join(build.names) or "(no name)"
    return f"build {build.build} of {names}, {_ago(build)}: {build.outcome} in {build.seconds:.1f}s, {told}"


def _ago(build: Build) -> str:
    return human_duration(max(0.0, time.time() - build.started)).lower() + " ago"


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


# --- a step


def _detail(explanation: Explanation) -> Iterator[str]:
    explained = explanation.steps[0]
    step = explained.step
    place = f" (line {step.line})" if step.line else ""
    yield f"{step.name}{place}"
    yield f"build {explanation.build.build}, {_ago(explanation.build)}: {_outcome(step)}"
    if explained.previous is None or explained.then is None:
        if step.reason is not None and step.previous_build:
            elsewhere = step.previous_build.startswith(ELSEWHERE)
            yield (
                "compared with the build on another machine that wrote the cache"
                if elsewhere
                else f"the build {step.previous_build} that it was compared with is no longer recorded"
            )
        return
    then, previous = explained.then, explained.previous
    outcome = f"was {then.outcome}" if then.outcome in (CACHED, STOPPED) else then.outcome
    yield f"compared with {then.position} of build {previous.build}, {_ago(previous)}, which {outcome} there"
    for difference in explained.differences:
        yield ""
        yield from _difference(difference, explanation.build)
    if explained.old is not None and explained.new is not None:
        yield ""
        yield from _recipes(explained)


def _outcome(step: BuiltStep) -> str:
    ran = f"{step.outcome} in {step.seconds:.1f}s" if step.outcome in ("ran", "failed") else step.outcome
    return ran + (f" because {step.reason.text}" if step.reason is not None else "")


def _difference(difference: Difference, build: Build) -> Iterator[str]:
    yield difference.text
    if difference.files:
        for file in difference.files:
            yield f"  {in_words(file)}"
            yield from (f"    {line}" for line in _file(file))
    elif difference.old or difference.new:
        yield f"  then: {_clean(difference.old)}"
        yield f"  now:  {_clean(difference.new)}"
    cause = build.step(difference.step) if difference.step else None
    while cause is not None:
        yield f"  {cause.name}: {_outcome(cause)}"
        following = cause.reason.step if cause.reason is not None else ""
        cause = build.step(following) if following and following != cause.step else None


def _file(file: FileChange) -> Iterator[str]:
    for word, state in (("then:", file.old), ("now: ", file.new)):
        if state is not None:
            yield f"{word} {_state(state)}"


def _state(state: FileState) -> str:
    parts = [state.kind]
    parts += [f"mode {state.mode}"] if state.mode is not None else []
    parts += [f"owner {state.owner}"] if state.owner is not None else []
    parts += [f"sha256:{state.digest}"] if state.digest else []
    parts += [f"→ {state.link}"] if state.link else []
    return ", ".join(parts)


def _clean(text: str) -> str:
    return printable(text.replace("\n", "\\n")) or '""'


def _recipes(explained: ExplainedStep) -> Iterator[str]:
    """The two recipes side by side, one field a line; what differs is marked."""
    old, new = (dict(_fields(recipe)) for recipe in (explained.old, explained.new))
    rows = ["  WHAT ITS KEY IS MADE OF\tTHEN\tNOW"]
    for name in dict.fromkeys((*new, *old)):
        one, two = old.get(name, "-"), new.get(name, "-")
        same = one == two
        rows.append(f"{'  ' if same else '≠ '}{_column(name)}\t{_column(one)}\t{'the same' if same else _column(two)}")
    yield from table(rows).splitlines()


def _column(text: str) -> str:
    shown = _clean(text)
    return shown if len(shown) <= 48 else shown[:47] + "…"


def _fields(recipe: Any) -> Iterator[tuple[str, str]]:
    assert isinstance(recipe, dict)
    for name, value in recipe.items():
        if name == "env":
            yield from ((f"env {variable}", _text(text)) for variable, text in value)
        elif name == "facts" and isinstance(value, list):
            yield from ((f"parent's /{fact[0]}", _text(fact[1:])) for fact in value)
        elif name == "parent":
            yield from ((f"layer {number}", digest) for number, digest in enumerate(value, 1))
        elif name == "sources":
            yield from _source_fields(value)
        elif name == "mounts":
            yield from ((f"mount {mount.get('target') or number}", _text(mount)) for number, mount in enumerate(value))
        elif value not in (None, "", [], False) or name in ("epoch",):
            yield name, _text(value)


def _source_fields(sources: Sequence[Any]) -> Iterator[tuple[str, str]]:
    for number, source in enumerate(sources, 1):
        if isinstance(source, list):
            for match in source:
                for item in match["items"]:
                    yield (
                        f"file {'/'.join(part for part in (str(match['name']), str(item[0])) if part)}",
                        _text(item[1:]),
                    )
        else:
            yield f"source {number}", _text(source)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and set(value) == {"sha256"}:
        return f"(hidden, sha256 {value['sha256'][:12]})"
    if isinstance(value, list):
        return " ".join(_text(inner) for inner in value)
    if isinstance(value, dict):
        return " ".join(f"{key}={_text(inner)}" for key, inner in value.items() if inner not in (None, "", [], False))
    return "-" if value is None else str(value)
