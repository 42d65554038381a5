"""`builder debug`: standing in a step that failed; also what `build --on-error` and `--break` do when one has."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import click

from builder.cli.flags import BuildCommand
from builder.cli.progress import PlainView
from builder.cli.settings import Settings
from builder.errors import EXIT_FAILED, BuilderError, StoreError, UsageError, render
from builder.filesystem import kinds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.api.options import BuildOptions
    from builder.api.standing import Kept
    from builder.solver.interactive import ChangedFile
    from builder.store.store import Store


_COMMAND = "builder.debug.command"


class DebugCommand(BuildCommand):
    """What follows `--` is a command, also where no build is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        ctx.meta[_COMMAND] = tuple(args[end + 1 :])
        return super().parse_args(ctx, args[:end])


@click.command(
    "debug",
    cls=DebugCommand,
    epilog="Example: builder debug --diff; builder debug 3f2a -- cat config.log",
    options_metavar="[OPTIONS]",
)
@click.argument("build", metavar="[BUILD] [-- COMMAND…]", default="")
@click.option("--rerun", is_flag=True, help="Do the step again, and open no shell.")
@click.option("--diff", is_flag=True, help="List what the step's command had changed.")
@click.option("--ls", "directory", metavar="PATH", help="List files of the step, also where there is no shell.")
@click.option("--cat", "file", metavar="PATH", help="Write a file of the step to standard output.")
@click.option("--list", "listing", is_flag=True, help="List the steps that are kept.")
@click.pass_context
def command(
    ctx: click.Context, build: str, rerun: bool, diff: bool, directory: str | None, file: str | None, listing: bool
) -> int:
    """Open a shell in a step that failed, as 'build --on-error=keep' has kept it.

    With the files as the step's command left them, its environment, user, directory and mounts, secrets too. There
    /dev/builder/rerun (or: eval "$BUILDER_COMMAND") runs its command again. What is done is thrown away at the end, so
    that each time begins with the failure; with --diff files are listed as A added, C changed or D deleted.

    Of a COPY, ADD or WORKDIR the files are those before it. --rerun does it again with the context as it is now, and
    lists what it would add or change; then build again, which takes what was done before it from the cache.

    BUILD is an image's name for the newest build of it, the first digits of a build's ID, latest, or -1 for the newest
    build, -2 for the one before; by default it is the last of which a step was kept. The last five are kept, until the
    same build goes well, or 'builder prune'. The exit status is that of the shell or command.
    """
    arguments: tuple[str, ...] = ctx.meta[_COMMAND]
    settings: Settings = ctx.obj
    if (rerun + diff + listing + bool(arguments) + (directory is not None) + (file is not None)) > 1:
        raise UsageError(
            "--rerun, --diff, --ls, --cat, --list and a command exclude each other", remedy="give one of them"
        )
    if listing and build:
        raise UsageError(
            f"--list lists all steps that are kept, and {build!r} names one", remedy="give --list or BUILD"
        )
    from builder.api.standing import changed, kept_step
    from builder.cli.stores import open_store

    store = open_store(settings, as_root=True)
    if listing:
        return _list_kept(store)
    with kept_step(store, build) as kept:
        if diff:
            return _print_changes(changed(store, kept))
        if directory is not None:
            return _list(store, kept, directory)
        if file is not None:
            return _show(store, kept, file)
        if rerun:
            return _repeat(store, kept)
        return _enter(store, kept, arguments or None)


def _list_kept(store: Store) -> int:
    """A line for each kept step, the newest first, also for those that are broken or go meanwhile."""
    from builder.api.standing import kept_step
    from builder.store.failed import FailedStates

    for build in FailedStates(store.root, store.temporary).builds():
        try:
            with kept_step(store, build) as kept:
                what = f"{_printable(kept.step.state.node.label)}: {_printable(kept.step.cause)}"
        except StoreError:
            what = "(cannot be read)"
        print(f"{build}  {what}")
    return 0


def after_failure(settings: Settings, options: BuildOptions, error: BuilderError, *, shell: bool) -> int:
    """Tell of a failed step that was kept, and open a shell in it, for which it was kept only; where that cannot be
    done it stays."""
    from builder.api.standing import kept_step
    from builder.cli.stores import open_store
    from builder.store.failed import FailedStates

    print(render(error), file=sys.stderr)
    if not shell:
        print(f"the step is kept: 'builder debug {error.kept}' opens a shell in it", file=sys.stderr)
        return EXIT_FAILED
    store = open_store(settings)
    stays = False
    try:
        with kept_step(store, error.kept) as kept:
            _enter(store, kept, None, options)
    except BuilderError as problem:
        stays = True
        print(render(problem), file=sys.stderr)
        print(f"the step is kept as {error.kept}", file=sys.stderr)
    finally:
        if not stays:
            FailedStates(store.root, store.temporary).forget_build(error.kept)
    return EXIT_FAILED


def check_terminal() -> None:
    """Raises UsageError unless somebody sits in front of a terminal."""
    if not (os.isatty(0) and os.isatty(1)):
        raise UsageError(
            "a shell needs a terminal, and there is none",
            remedy="--on-error=keep keeps the failed step for 'builder debug'",
        )


def _enter(
    store: Store,
    kept: Kept,
    arguments: tuple[str, ...] | None,
    options: BuildOptions | None = None,
) -> int:
    """A shell or a command in a kept step."""
    from builder.api.standing import enter
    from builder.sandbox.session import Session

    terminal = os.isatty(0) and os.isatty(1)
    if arguments is None and terminal:
        print(_banner(kept), file=sys.stderr)
    return enter(
        store,
        kept,
        Session(stdin=0, terminal=terminal),
        arguments,
        environ=dict(os.environ),
        secrets=options.secrets if options is not None else None,
        report=PlainView(sys.stderr),
    )


def _banner(kept: Kept) -> str:
    """What people should know of where they stand."""
    from builder.plan.steps import RunNode
    from builder.solver.interactive import RERUN, surroundings

    state = kept.step.state
    here = surroundings(state.node)
    lines = [
        f"{state.node.label}: {kept.step.cause}",
        f"as {here.user or 'root'} in {here.workdir}; what you change is thrown away",
    ]
    if isinstance(state.node, RunNode):
        lines.append(f"{RERUN} runs the command {'again' if state.ran else 'of the step'}")
    else:
        lines.append(
            f"the files are those before the step; 'builder debug --rerun {kept.build}', from another terminal, does it"
            " again with the context as it is then"
        )
    return "\n  ".join(map(_printable, lines))


def _repeat(store: Store, kept: Kept) -> int:
    """Do the step again with what it had: neither input nor a terminal."""
    from builder.api.standing import repeat, rerun
    from builder.plan.steps import RunNode

    environ, report = dict(os.environ), PlainView(sys.stderr)
    if isinstance(kept.step.state.node, RunNode):
        return rerun(store, kept, _show_output, environ=environ, report=report)
    return _print_changes(repeat(store, kept, environ=environ, report=report))


def _show_output(stream: int, data: bytes) -> None:
    out = (sys.stdout if stream == 1 else sys.stderr).buffer
    out.write(data)
    out.flush()


def _list(store: Store, kept: Kept, path: str) -> int:
    """As `builder ls -l` lists the files of an image."""
    from builder.api.standing import files
    from builder.cli.listing import find_path, print_long

    with files(store, kept) as tree:
        real = find_path(tree, kept.build, path)
        info = tree.lstat(real)
        assert info is not None
        print_long(tree.scan(real) if info.kind == kinds.DIRECTORY else [(path, info)])
    return 0


def _show(store: Store, kept: Kept, path: str) -> int:
    from builder.api.standing import files
    from builder.cli.listing import KINDS, find_path

    with files(store, kept) as tree:
        real = find_path(tree, kept.build, path)
        info = tree.lstat(real)
        assert info is not None
        if info.kind != kinds.FILE:
            raise StoreError(f"{_printable(path)} is a {KINDS[info.kind]}, not a file", place=kept.build)
        with open(tree.open(real), "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()
    return 0


def _print_changes(changes: Sequence[ChangedFile]) -> int:
    for change in changes:
        print(_line(change))
    return 0


def _line(file: ChangedFile) -> str:
    return f"{file.change} /{_printable(file.path)}{'/' if file.kind == kinds.DIRECTORY else ''}"


def _printable(text: str) -> str:
    from builder.filesystem.names import printable

    return printable(text)
