"""`builder builds`: past builds, their logs and what can be written about them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import click

from builder.api.critical import critical_path, in_words
from builder.api.explain import find_step
from builder.cli.flags import BuildCommand, Command
from builder.cli.format import ago, moment, print_rows, table
from builder.cli.settings import Settings
from builder.cli.stores import Failures, archive_output, open_store
from builder.errors import BuilderError, UsageError
from builder.filesystem.names import printable
from builder.progress import warning
from builder.store.builds import BASES, CACHED, NOT_NEEDED, NOT_STARTED, Build, BuiltStep
from builder.store.store import Store

_HEADERS = {
    "ID": "BUILD ID",
    "Created": "CREATED",
    "CreatedAt": "CREATED AT",
    "Name": "NAME",
    "Target": "TARGET",
    "Status": "STATUS",
    "Cached": "CACHED",
    "Ran": "RAN",
    "Duration": "DURATION",
    "ImageID": "IMAGE ID",
    "Digest": "DIGEST",
    "Context": "CONTEXT",
    "Error": "ERROR",
}
_COLUMNS = "{{.ID}}\t{{.Created}}\t{{.Name}}\t{{.Target}}\t{{.Status}}\t{{.Cached}}\t{{.Ran}}\t{{.Duration}}"
_WIDEST = 100
_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class _Builds(click.Group):
    """Lists the builds where no command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = ["ls", *args]
        return super().parse_args(ctx, args)


@click.group("builds", cls=_Builds, context_settings=_SETTINGS, epilog="Example: builder builds show -1")
def command() -> None:
    """Look at past builds; without a command, list them.

    BUILD is the name of an image for the newest build of it, the first digits of a build's ID, latest, or -1 for the
    newest build, -2 for the one before and so on; by default it is the newest. The last 100 builds are kept.
    """


_build = click.argument("name", metavar="[BUILD]", default="")
_output = click.option("-o", "--output", default="", metavar="FILE", help="Where to write (default: standard output).")


@command.command("ls", cls=Command, epilog="Example: builder builds ls -n 5 --format '{{.ID}} {{.Status}}'")
@click.option("-n", "--last", type=click.IntRange(min=0), default=0, metavar="N", help="Only the N newest.")
@click.option("-q", "--quiet", is_flag=True, help="Only the IDs.")
@click.option("--format", "form", default="", metavar="FORMAT", help="table [TEMPLATE], json, or a Go template.")
@click.pass_obj
def ls(settings: Settings, last: int, quiet: bool, form: str) -> None:
    """List the builds, the newest first."""
    builds = []
    for build in open_store(settings).builds.all():
        builds.append(build)
        if len(builds) == last:
            break
    if quiet and not form:
        for build in builds:
            print(build.build)
        return
    print_rows([_row(build) for build in builds], form, _HEADERS, _COLUMNS)


def _row(build: Build) -> dict[str, str]:
    when = datetime.fromtimestamp(build.started, UTC)
    cached, ran = _counts(build)
    return {
        "ID": build.build,
        "Created": ago(when),
        "CreatedAt": moment(when),
        "Name": printable(" ".join(build.names)) or "<none>",
        "Target": printable(build.target),
        "Status": build.outcome,
        "Cached": str(cached),
        "Ran": str(ran),
        "Duration": f"{build.seconds:.1f}s",
        "ImageID": build.image_id,
        "Digest": build.digest,
        "Context": printable(build.context),
        "Error": printable(build.error),
    }


def _counts(build: Build) -> tuple[int, int]:
    """How many steps were cached, and how many began to run."""
    steps = [step for step in build.steps if step.kind not in BASES]
    cached = sum(step.outcome == CACHED for step in steps)
    return cached, sum(step.outcome not in (CACHED, NOT_NEEDED, NOT_STARTED) for step in steps)


@command.command("show", cls=BuildCommand, epilog="Example: builder builds show -1")
@_build
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Text, or JSON.")
@click.pass_obj
def show(settings: Settings, name: str, form: str) -> None:
    """Show a build: what it made, its steps and their times."""
    build = open_store(settings).builds.find(name)
    if form == "json":
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(build)).decode())
        return
    for line in _lines(build):
        print(line)


def _lines(build: Build) -> Iterator[str]:
    row = _row(build)
    facts = {
        "build": f"{build.build}, {row['Created'].lower()} ({row['CreatedAt']})",
        "status": f"{build.outcome} in {row['Duration']}",
        "error": row["Error"],
        "names": printable(" ".join(build.names)),
        "context": row["Context"],
        "Dockerfile": printable(build.dockerfile),
        "target": row["Target"],
        "platforms": ", ".join(build.platforms),
        "image ID": build.image_id,
        "digest": build.digest,
    }
    yield from table(f"{name}:\t{text}" for name, text in facts.items() if text).splitlines()
    path = critical_path(build.steps)
    rows = ["STEP\tOUTCOME\tQUEUED\tTIME\tCOST\tINSTRUCTION"]
    costs = {one.step.step: one.cost for one in path.steps}
    for step in build.steps:
        if step.kind not in BASES:
            rows.append(_step_row(step, costs.get(step.step)))
            if step.reason is not None:
                rows.append(f"\t\t\t\t\t  because {printable(step.reason.text)}")
    yield ""
    yield from table(rows).splitlines()
    told = in_words(path)
    if told:
        yield told
    yield from (warning(one) for one in build.warnings)


def _step_row(step: BuiltStep, cost: float | None) -> str:
    instruction = printable(step.instruction)
    shown = instruction if len(instruction) <= _WIDEST else f"{instruction[: _WIDEST - 1]}…"
    queued = f"{step.queued:.1f}s" if step.queued >= 0.05 else ""
    seconds = f"{step.seconds:.1f}s" if step.started and step.outcome != CACHED else ""
    costs = f"{cost:.1f}s" if cost is not None else ""
    return f"{step.position}\t{step.outcome}\t{queued}\t{seconds}\t{costs}\t{shown}"


@command.command(
    "logs",
    cls=BuildCommand,
    short_help="Write what the steps of a build wrote",
    epilog='Example: builder builds logs app:1 "build 4/6"',
)
@_build
@click.argument("step", metavar="[STEP]", default="")
@click.pass_obj
def logs(settings: Settings, name: str, step: str) -> None:
    """Write what the steps of a build wrote, all of it, or what one step wrote.

    STEP is its place as the build shows it (build 4/6, or 4), its line (:7), or a part of its text; after -- it may
    begin with a dash.
    """
    store = open_store(settings)
    build = store.builds.find(name)
    out = sys.stdout.buffer
    if step:
        _copy_log(store, build, find_step(build, step))
        return
    for one in build.steps:
        if one.log:
            out.write(f"--- {printable(one.name)}\n".encode())
            if _copy_log(store, build, one) != b"\n":
                out.write(b"\n")


def _copy_log(store: Store, build: Build, step: BuiltStep) -> bytes:
    """Write a log as it is, and return its last byte."""
    last = b"\n"
    file = store.builds.open_log(build, step.step)
    if file is not None:
        with file:
            while data := file.read(1 << 16):
                sys.stdout.buffer.write(data)
                last = data[-1:]
    return last


@command.command(
    "report",
    cls=BuildCommand,
    short_help="Write a page about a build, as HTML",
    epilog="Example: builder builds report -1 -o build.html",
)
@_build
@_output
@click.pass_obj
def report(settings: Settings, name: str, output: str) -> None:
    """Write a page about a build, as HTML that needs nothing else: stages, times, reasons, logs, layers, warnings."""
    from builder.api.report import render_report

    store = open_store(settings)
    build = store.builds.find(name)
    with archive_output(output) as file:
        render_report(store, build, file)


@command.command(
    "trace",
    cls=BuildCommand,
    short_help="Write the times of a build for Perfetto",
    epilog="Example: builder builds trace -1 -o build.json",
)
@_build
@_output
@click.pass_obj
def trace(settings: Settings, name: str, output: str) -> None:
    """Write the times of a build in Chrome's trace format, for Perfetto or chrome://tracing."""
    from builder.api.trace import trace_of
    from builder.export.destination import destination

    build = open_store(settings).builds.find(name)
    with destination(output or "-") as file:
        file.write(trace_of(build))


@command.command("rm", cls=BuildCommand, epilog="Example: builder builds rm 1f3a")
@click.argument("names", metavar="BUILD…", nargs=-1)
@click.option("-a", "--all", "everything", is_flag=True, help="Remove all builds.")
@click.pass_obj
def rm(settings: Settings, names: tuple[str, ...], everything: bool) -> None:
    """Remove the records and logs of builds. Images and cache stay; what later builds compare with is gone."""
    if everything == bool(names):
        raise UsageError("name builds by their IDs, or give --all", remedy="'builder builds' lists them")
    store = open_store(settings)
    failures = Failures()
    found: dict[str, Build] = {build.build: build for build in store.builds.all()} if everything else {}
    for name in names:
        try:
            build = store.builds.find(name)
            found[build.build] = build
        except BuilderError as error:
            failures.add(error)
    for build in found.values():
        store.builds.remove(build)
        print(f"Deleted: {build.build}")
    failures.end()
