"""`builder plan`, which is `builder build --dry-run`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import click
import msgspec

from builder.api.dry_run import Forecast, dry_run
from builder.cli import values
from builder.cli.build import BuildCommand
from builder.cli.build import command as build_command
from builder.cli.format import size, table
from builder.cli.progress import open_view
from builder.cli.settings import Settings
from builder.errors import Unsupported
from builder.filesystem.names import printable
from builder.solver.forecast import CACHED, NOT_NEEDED, RUNS, UNKNOWN, StepForecast

EXIT_WOULD_RUN = 3
_WIDEST = 100
_LEFT_OUT = {"dry_run", "call", "check"}


def show_plan(settings: Settings, given: dict[str, Any], *, form: str = "text", exit_code: bool = False) -> int:
    """Print what a build with the command line's options would do; returns the exit status."""
    options = values.build_options(settings.root, given, dict(os.environ))
    options = msgspec.structs.replace(options, break_at=given["break_at"])
    values.refuse_accounts(given, ("report", "trace", "iidfile", "metadata_file"))
    if os.geteuid() != 0:
        from builder.cli.rootless import become_root

        with suppress(Unsupported):
            become_root()
    view = open_view("quiet" if given["quiet"] or given["progress"] != "rawjson" else "rawjson")
    try:
        forecast = dry_run(options, view)
    finally:
        view.close()
    if form == "json":
        import json

        print(json.dumps(document(forecast), indent=2, ensure_ascii=False))
    else:
        for line in _lines(forecast):
            print(line)
    sys.stdout.flush()
    return EXIT_WOULD_RUN if exit_code and forecast.would_run else 0


def document(forecast: Forecast) -> dict[str, Any]:
    """A forecast as plain data, for JSON."""
    return {
        "would_run": forecast.would_run,
        "counts": _counts(forecast),
        "pull": {"size": forecast.pull_size, "blobs": msgspec.to_builtins(forecast.pull)},
        "steps": msgspec.to_builtins(forecast.steps),
    }


def _counts(forecast: Forecast) -> dict[str, int]:
    counts = dict.fromkeys((CACHED, RUNS, UNKNOWN, NOT_NEEDED), 0)
    for step in forecast.steps:
        counts[step.outcome] += 1
    return counts


def _lines(forecast: Forecast) -> Iterator[str]:
    rows = ["STEP\tOUTCOME\tINSTRUCTION"]
    for step in forecast.steps:
        shown = printable(step.instruction)
        rows.append(
            f"{step.position}\t{step.outcome}\t{shown if len(shown) <= _WIDEST else shown[: _WIDEST - 1] + '…'}"
        )
        why = _why(step)
        if why:
            rows.append(f"\t\t  {printable(why)}")
    yield from table(rows).splitlines()
    words = {CACHED: "cached", RUNS: "would run", UNKNOWN: "unknown", NOT_NEEDED: "not needed"}
    yield ", ".join(f"{count} {words[outcome]}" for outcome, count in _counts(forecast).items() if count) or "no steps"
    if forecast.pull:
        images = ", ".join(dict.fromkeys(blob.image for blob in forecast.pull))
        yield f"to pull, at most: {size(forecast.pull_size)} in {len(forecast.pull)} layers of {images}"


def _why(step: StepForecast) -> str:
    if step.reason is not None:
        return f"because {step.reason.text}"
    if step.depends_on:
        return f"depends on step {step.depends_on}"
    return "its parent's files, which it looks at, are not here" if step.unseen else ""


@click.command(
    "plan",
    cls=BuildCommand,
    params=[parameter for parameter in build_command.params if parameter.name not in _LEFT_OUT],
    epilog="Example: builder plan --exit-code -t app:1 .",
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Text, or JSON.")
@click.option("--exit-code", is_flag=True, help="Exit with status 3 if anything would run, or could.")
@click.pass_obj
def command(settings: Settings, /, **given: Any) -> int:
    """Say what a build would do, and run nothing.

    Takes the options of `builder build`. Each step is cached, runs (with the reason), unknown (a step before it has to
    run first, and may make what it made before) or not needed by the image. Registries are asked what base images are;
    none of their layers is pulled. Secrets are searched for as the build does it, except in the layers of cached steps:
    those are not read.
    """
    return show_plan(settings, given, form=given.pop("form"), exit_code=given.pop("exit_code"))
