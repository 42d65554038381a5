"""The `builder` command: global options, commands loaded on demand, errors to exit statuses."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import click

from builder import __version__
from builder.errors import EXIT_FAILED, EXIT_INTERRUPTED, NO_ROOM, BuilderError, DiskFull, render
from builder.places import default_root

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from builder.api.repeat.question import Question

COMMANDS = {
    "build": "builder.cli.build",
    "plan": "builder.cli.plan",
    "explain": "builder.cli.explain",
    "builds": "builder.cli.builds",
    "graph": "builder.cli.graph",
    "images": "builder.cli.images",
    "run": "builder.cli.run",
    "shell": "builder.cli.shell",
    "debug": "builder.cli.debug",
    "inspect": "builder.cli.inspect",
    "history": "builder.cli.history",
    "layers": "builder.cli.layers",
    "diff": "builder.cli.diff",
    "ls": "builder.cli.ls",
    "cat": "builder.cli.cat",
    "context": "builder.cli.context",
    "tag": "builder.cli.tag",
    "rmi": "builder.cli.rmi",
    "pull": "builder.cli.pull",
    "push": "builder.cli.push",
    "login": "builder.cli.login",
    "logout": "builder.cli.logout",
    "search": "builder.cli.search",
    "tags": "builder.cli.tags",
    "catalog": "builder.cli.catalog",
    "manifest": "builder.cli.manifest",
    "imagetools": "builder.cli.imagetools",
    "save": "builder.cli.save",
    "load": "builder.cli.load",
    "import": "builder.cli.import_",
    "export": "builder.cli.export",
    "pin": "builder.cli.pin",
    "prune": "builder.cli.prune",
    "cache": "builder.cli.cache",
    "du": "builder.cli.du",
    "fsck": "builder.cli.fsck",
    "doctor": "builder.cli.doctor",
    "completion": "builder.cli.completion",
    "image": "builder.cli.image",
}
HELP = {
    "build": "Build an image from a Dockerfile",
    "plan": "Say what a build would do: what is cached, what would run and why",
    "explain": "Say why the steps of a build ran",
    "builds": "List past builds; their logs and reports (ls, show, logs, report, trace, rm)",
    "graph": "Write the graph of a Dockerfile's stages",
    "images": "List images",
    "run": "Run an image, to look into what was built",
    "shell": "Open a shell in an image",
    "debug": "Stand in a step that failed: a shell, its command again, what it changed",
    "inspect": "Show what is known of an image, as JSON",
    "history": "Show how an image was made",
    "layers": "Show what each layer of an image does and costs",
    "diff": "Show how two images, or two steps of one, differ",
    "ls": "List the files of an image",
    "cat": "Write files of an image to standard output",
    "context": "Show what a build can see of its context (ls, why)",
    "tag": "Give an image another name",
    "rmi": "Remove images",
    "pull": "Fetch an image from a registry",
    "push": "Push images to their registries",
    "login": "Log in to a registry",
    "logout": "Log out from a registry",
    "search": "Search a registry, Docker Hub by default",
    "tags": "List the tags of a repository",
    "catalog": "List the repositories of a registry",
    "manifest": "Inspect manifests, make and push manifest lists",
    "imagetools": "Inspect images in registries, and make new ones of them",
    "save": "Write images to an archive",
    "load": "Read images from an archive",
    "import": "Make an image of a file system's archive",
    "export": "Write the files of an image as an archive",
    "pin": "Pin the images that a Dockerfile names to their digests",
    "prune": "Remove images without a name, and build cache that no image uses",
    "cache": "Manage cache mounts of RUN (ls, export, import, rm)",
    "du": "Show what takes space in the store",
    "fsck": "Check the store, and repair what can be repaired",
    "doctor": "Say what this machine allows, and what is missing",
    "completion": "Print what makes a shell complete builder's command lines",
    "image": "The commands on images under Docker's names (image ls, image rm…)",
}
GROUPS = {
    "Building": ("build", "plan", "explain", "builds", "graph", "debug", "context", "pin"),
    "Images": ("images", "tag", "rmi", "run", "shell", "save", "load", "import", "export", "image"),
    "Looking into images": ("inspect", "history", "layers", "diff", "ls", "cat"),
    "Registries": ("pull", "push", "login", "logout", "search", "tags", "catalog", "manifest", "imagetools"),
    "Maintenance": ("prune", "cache", "du", "fsck", "doctor", "completion"),
}
"""The commands as --help shows them."""
COMPLETE = "_BUILDER_COMPLETE"
"""The variable by which a shell asks for completions."""


class Settings:
    """The global options, for the commands."""

    def __init__(self, root: str = "", debug: bool = False, asked: Question | None = None) -> None:
        """`asked` is the command that this may be the first of several to ask for."""
        self.root = root
        self.debug = debug
        self.asked = asked


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called; the list of commands needs none of them."""

    def __init__(
        self,
        *args: Any,
        commands_in: dict[str, str],
        summaries: dict[str, str],
        groups: dict[str, tuple[str, ...]] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(*args, **extra)
        self._commands_in = commands_in
        self._summaries = summaries
        self._groups = groups or {"Commands": tuple(summaries)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._commands_in)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self._commands_in:
            return None
        command: click.Command = import_module(self._commands_in[name]).command
        if ctx.resilient_parsing:  # a shell asks for completions
            from builder.cli.candidates import equip

            equip(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self._commands_in and not ctx.resilient_parsing:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=self._commands_in, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        grouped = {name for names in self._groups.values() for name in names}
        others = tuple(name for name in self._summaries if name not in grouped)
        width = max(map(len, self._summaries))
        for title, names in (*self._groups.items(), ("Other commands", others)):
            rows = [(name.ljust(width), self._summaries[name]) for name in names if name in self._summaries]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return [item for item in click.Command.shell_complete(self, ctx, incomplete) if item.value[:1] == "-"]
        rows = self._summaries.items()
        return [CompletionItem(name, help=text) for name, text in rows if name.startswith(incomplete)]


@click.group(
    cls=LazyGroup,
    commands_in=COMMANDS,
    summaries=HELP,
    groups=GROUPS,
    epilog="Example: builder build -t app:1 .",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=lambda *given: _show_version(*given),
    help="Show the version and exit.",
)  # fmt: skip
@click.option("--root", metavar="DIR", envvar="BUILDER_ROOT", default="", help="Where images, layers and cache live.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, root: str, debug: bool) -> None:
    """Build OCI images from Dockerfiles, without a daemon.

    Exit status: 0 done, 1 failed or refused, 2 wrong usage, 130 interrupted; a command that has others says so.
    'builder COMMAND --help' tells of each command.
    """
    settings = ctx.ensure_object(Settings)
    settings.root = root or default_root(os.environ)
    settings.debug = debug


def _show_version(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    """click's own version option loads translations, in every call, which take 3 ms."""
    if wanted and not ctx.resilient_parsing:
        click.echo(f"builder {__version__}")
        ctx.exit()


def run(asked: Question | None = None, at_end: Callable[[], None] = lambda: None) -> NoReturn:
    """The program: `main` and `at_end`, then an end at once: taking the interpreter apart is a sixth of a cached
    rebuild."""
    try:
        main(asked)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else EXIT_FAILED
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # whoever read it has gone
            stream.flush()
    with suppress(KeyboardInterrupt):
        at_end()
    os._exit(status)


def main(asked: Question | None = None) -> NoReturn:
    """Run the command line and raise SystemExit with its status."""
    signal.signal(signal.SIGTERM, _terminate)
    debug = "--debug" in sys.argv
    settings = Settings(asked=asked)
    try:
        if COMPLETE in os.environ:
            from builder.cli.completion import answer

            sys.exit(answer(os.environ[COMPLETE]))
        status = cli.main(prog_name="builder", standalone_mode=False, obj=settings)
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        status = exit_.exit_code
    except (click.Abort, KeyboardInterrupt):  # click makes the one of the other
        print("\nerror: interrupted", file=sys.stderr)
        status = EXIT_INTERRUPTED
    except click.ClickException as error:
        from builder.cli.usage import describe

        print(describe(error), file=sys.stderr)
        status = error.exit_code
    except BuilderError as error:
        if debug:
            raise
        print(render(error), file=sys.stderr)
        status = error.exit_status
    except BrokenPipeError:
        status = _broken_pipe()
    except OSError as error:
        if debug:
            raise
        print(render(system_error(error, settings.root)), file=sys.stderr)
        status = EXIT_FAILED
    except Exception as error:
        if debug:
            raise
        print(
            f"error: internal error: {type(error).__name__}: {error}\n"
            "help: this is a defect of builder; run again with --debug for where it happened",
            file=sys.stderr,
        )
        status = EXIT_FAILED
    sys.exit(status if isinstance(status, int) else 0)


def system_error(error: OSError, root: str) -> BuilderError:
    """An error of the system's that nobody foresaw. One that names no file is the store's if its disk is full."""
    if error.errno in NO_ROOM and error.filename is None and root:
        from builder.store.room import is_full

        if is_full(root):
            return DiskFull(root)
    found = BuilderError(error.strerror or str(error), place=error.filename or "input/output")
    found.__cause__ = error
    return found


def _terminate(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _broken_pipe() -> int:
    """Whoever read our output has gone; what Python still holds must not raise again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_FAILED
