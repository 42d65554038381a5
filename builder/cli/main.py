"""The `builder` command: global options, commands loaded on demand, wrong command lines."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from builder import __version__
from builder.cli.settings import Settings
from builder.places import find_root

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

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
    "prune": "Remove images without a name, build cache that no image uses, and cache mounts",
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
    settings.known_root = root or find_root(os.environ) or ""
    settings.debug = debug


def _show_version(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    """click's own version option loads translations, in every call, which take 3 ms."""
    if wanted and not ctx.resilient_parsing:
        click.echo(f"builder {__version__}")
        ctx.exit()


def call(settings: Settings) -> int:
    """Read the command line, and run its command. Returns the exit status, with which a wrong command line is said.

    Raises BuilderError, and KeyboardInterrupt also where click makes another error of it."""
    try:
        status = cli.main(prog_name="builder", standalone_mode=False, obj=settings)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        from builder.cli.usage import describe

        print(describe(error), file=sys.stderr)
        return error.exit_code
    return status if isinstance(status, int) else 0
