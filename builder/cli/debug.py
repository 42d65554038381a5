"""`builder debug`: standing in a step that failed; also what `build --on-error` and `--break` do when one has."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from builder.cli.flags import Command
from builder.cli.main import Settings
from builder.cli.progress import PlainView
from builder.errors import EXIT_FAILED, StepFailed, UsageError, render

if TYPE_CHECKING:
    from builder.api.failing import Kept
    from builder.api.options import BuildOptions
    from builder.solver.interactive import ChangedFile
    from builder.store.store import Store


_COMMAND = "builder.debug.command"


class DebugCommand(Command):
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
@click.option("--rerun", is_flag=True, help="Run the step's command again, and no shell.")
@click.option("--diff", is_flag=True, help="List what the step's command had changed.")
@click.option("--list", "listing", is_flag=True, help="List the steps that are kept.")
@click.pass_context
def command(ctx: click.Context, build: str, rerun: bool, diff: bool, listing: bool) -> int:
    """Open a shell in a step that failed, as 'build --on-error=keep' has kept it.

    With the files as the step's command left them, its environment, user, directory and mounts, secrets too. There
    /dev/builder/rerun (or: eval "$BUILDER_COMMAND") runs its command again. What is done is thrown away at the end, so
    that each time begins with the failure; with --diff files are listed as A added, C changed or D deleted.

    BUILD is a build's name (its first digits do) or an image's; by default it is the last that was kept. The last five
    are kept, until the same build goes well, or 'builder prune'. The exit status is that of the shell or command.
    """
    arguments: tuple[str, ...] = ctx.meta[_COMMAND]
    settings: Settings = ctx.obj
    if (rerun + diff + listing + bool(arguments)) > 1:
        raise UsageError("--rerun, --diff, --list and a command exclude each other", remedy="give one of them")
    from builder.api.failing import changed, kept_step
    from builder.cli.stores import open_store

    store = open_store(settings, as_root=True)
    if listing:
        from builder.store.failed import FailedStates

        for name in FailedStates(store).builds():
            with kept_step(store, name) as kept:
                print(f"{kept.build}  {_printable(kept.step.state.node.label)}: {_printable(kept.step.cause)}")
        return 0
    with kept_step(store, build) as kept:
        if diff:
            for file in changed(store, kept):
                print(_line(file))
            return 0
        return _enter(store, kept, arguments or None, rerun=rerun)


def after_failure(settings: Settings, options: BuildOptions, error: StepFailed, *, shell: bool) -> int:
    """Tell of a failed step that was kept, and open a shell in it, for which it was kept only."""
    from builder.api.failing import kept_step
    from builder.cli.stores import open_store
    from builder.store.failed import FailedStates

    print(render(error), file=sys.stderr)
    if not error.kept:
        print("the step is not kept: only those of RUN are, whose command was started", file=sys.stderr)
        return EXIT_FAILED
    if not shell:
        print(f"the step is kept: 'builder debug {error.kept}' opens a shell in it", file=sys.stderr)
        return EXIT_FAILED
    store = open_store(settings)
    try:
        with kept_step(store, error.kept) as kept:
            _enter(store, kept, None, options)
    finally:
        FailedStates(store).forget_build(error.kept)
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
    *,
    rerun: bool = False,
) -> int:
    """A shell, a command, or with `rerun` the step's own with what it had: neither input nor a terminal."""
    from builder.api.failing import enter
    from builder.sandbox.session import Session
    from builder.solver.interactive import RERUN

    terminal = not rerun and os.isatty(0) and os.isatty(1)
    if rerun:
        arguments = kept.step.state.node.argv
    if arguments is None and terminal:
        node = kept.step.state.node
        print(
            f"{_printable(node.label)}\n"
            f"  as {_printable(node.user) or 'root'} in {_printable(node.workdir)}; what you change is thrown away;"
            f" {RERUN} runs the command {'again' if kept.step.state.ran else 'of the step'}",
            file=sys.stderr,
        )
    return enter(
        store,
        kept,
        Session(stdin=None if rerun else 0, terminal=terminal),
        arguments,
        environ=dict(os.environ),
        secrets=options.secrets if options is not None else None,
        report=PlainView(sys.stderr),
    )


def _line(file: ChangedFile) -> str:
    from builder.filesystem.tree import Kind

    return f"{file.change} /{_printable(file.path)}{'/' if file.kind is Kind.DIRECTORY else ''}"


def _printable(text: str) -> str:
    from builder.filesystem.names import printable

    return printable(text)
