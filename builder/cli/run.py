"""`builder run` and what `builder shell` shares with it: an image's program in the sandbox."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

import click

from builder.cli.defaults import platform_option
from builder.cli.flags import Command
from builder.cli.settings import Settings
from builder.errors import BuilderError, UsageError

if TYPE_CHECKING:
    from builder.api.running import RunOptions, Volume
    from builder.sandbox.session import Session
    from builder.store.store import Store

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])

CANNOT_RUN = 125
_ENGINE = "this is for looking into what was built, not a container engine: 'builder save IMAGE | docker load'"
# Of Docker's options those that people will try; what they ask for is not done.
_REFUSED = {
    "-d": "detach", "-p": "publish", "-P": "publish-all", "-m": "memory", "-c": "cpu-shares", "-l": "label",
    **{f"--{name}": name for name in (
        "detach publish publish-all name restart memory cpus cpu-shares label link mount volumes-from gpus device"
        " privileged cap-add cap-drop security-opt init ip dns expose health-cmd log-driver pid ipc pids-limit"
        " read-only runtime stop-signal stop-timeout sysctl tmpfs ulimit uts userns detach-keys cidfile add-host"
        " env-host group-add mac-address network-alias shm-size annotation cgroup-parent attach"
    ).split()},
}  # fmt: skip

_MODES = "ro rw z Z cached delegated consistent private rprivate slave rslave".split()
"""Of a volume, as moby's `linuxValidMountMode` has them; but for the first two they change nothing here: there are no
labels, files are this machine's own, and no mount is made while the command runs."""


class _WrongUsage(click.UsageError):
    exit_code = CANNOT_RUN


class RunCommand(Command):
    """Options end at the image's name. Wrong usage has the exit status 125 as with Docker: others are the command's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            text = error.format_message()
            if isinstance(error, click.NoSuchOption) and error.option_name in _REFUSED:
                text = f"--{_REFUSED[error.option_name]} of Docker's is not supported: {_ENGINE}"
            raise _WrongUsage(text, ctx=error.ctx) from None
        except UsageError as error:
            error.exit_status = CANNOT_RUN
            raise


def run_options(command: _Decorated) -> _Decorated:
    """The options that `run` and `shell` have in common."""
    for option in (
        platform_option(default="", help="The variant for this platform."),
        click.option("-q", "--quiet", is_flag=True, help="Show nothing of a pull but warnings."),
        click.option(
            "--pull",
            "policy",
            type=click.Choice(["always", "missing", "never"]),
            default="missing",
            help="When to pull the image: by default where it is missing.",
        ),
        click.option("-h", "--hostname", default="", metavar="NAME", help="The host name that it sees."),
        click.option(
            "--network",
            "--net",
            type=click.Choice(["default", "none", "host"]),
            default="default",
            help="none for no network; the others share this machine's.",
        ),
        click.option(
            "-v",
            "--volume",
            "volumes",
            multiple=True,
            metavar="HOST:PATH[:ro]",
            help="Show a file or directory (made if missing).",
        ),
        click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Run as another user than the image's."),
        click.option("-w", "--workdir", default="", metavar="DIR", help="Start in another directory."),
        click.option("--env-file", "env_files", multiple=True, metavar="FILE", help="Lines of NAME=VALUE."),
        click.option("-e", "--env", "variables", multiple=True, metavar="NAME[=VALUE]", help="Set a variable."),
        click.option("--rm", is_flag=True, help="Accepted: whatever is written is always thrown away."),
    ):
        command = option(command)
    return command


@click.command(
    "run",
    cls=RunCommand,
    epilog="Example: builder run -it -v $PWD:/src:ro app:1 sh",
    context_settings={"allow_interspersed_args": False, "help_option_names": ["--help"]},  # -h is --hostname
)
@click.argument("image", metavar="IMAGE")
@click.argument("arguments", metavar="[COMMAND [ARG]…]", nargs=-1, type=click.UNPROCESSED)
@run_options
@click.option("--entrypoint", default=None, metavar="PROGRAM", help="Replace the image's entrypoint; '' for none.")
@click.option("-t", "--tty", "terminal", is_flag=True, help="Give it a terminal.")
@click.option("-i", "--interactive", is_flag=True, help="Pass on standard input.")
@click.pass_obj
def command(settings: Settings, /, **given: Any) -> int:
    """Run an image in the sandbox that RUN steps run in.

    With the image's environment, user, directory, entrypoint and command; what it writes is thrown away at the end. It
    is for looking into what was built: nothing runs in the background, and no ports are published. An image that is not
    here is pulled, as 'builder pull' does; what may be an image ID is not.

    Exit status: that of the command, 128 and the signal that ended it; 125 if nothing could be run, 126 if the command
    cannot be executed, 127 if it is not there. The third interrupt that it leaves unanswered kills it.
    """
    interactive, terminal = given["interactive"], given["terminal"]
    try:
        if interactive and terminal and not os.isatty(0):
            raise UsageError("standard input is no terminal", remedy="leave out -t")
        from builder.api.running import RunOptions

        options = RunOptions(entrypoint=given["entrypoint"], **common(given))
        return start(settings, options, given, interactive=interactive, terminal=terminal)
    except UsageError as error:
        error.exit_status = CANNOT_RUN
        raise


def common(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of RunOptions that `run_options` are about. Raises UsageError."""
    from builder.cli.stores import platform_of

    return {
        "image": given["image"],
        "command": given["arguments"],
        "environment": _environment(given["variables"], given["env_files"], os.environ),
        "user": given["user"],
        "workdir": _absolute(given["workdir"], "--workdir"),
        "volumes": tuple(_volume(text) for text in given["volumes"]),
        "network": given["network"],
        "hostname": given["hostname"],
        "platform": platform_of(given["platform"]),
    }


def start(
    settings: Settings, options: RunOptions, given: Mapping[str, Any], *, interactive: bool, terminal: bool
) -> int:
    """Run with this process's standard streams; the image is pulled as the options `given` say."""
    from builder.cli.stores import open_store
    from builder.sandbox.session import Session

    session = Session(stdin=0 if interactive else None, terminal=terminal)
    try:
        with closing(open_store(settings, as_root=True)) as store:
            return _run(store, options, session, given["policy"], quiet=given["quiet"])
    except BuilderError as error:
        if error.exit_status in (1, 2):  # none that tells what became of the command
            error.exit_status = CANNOT_RUN
        raise


def _run(store: Store, options: RunOptions, session: Session, policy: str, *, quiet: bool) -> int:
    """Run an image; `policy` is that of `--pull`."""
    from builder.api.running import run_image
    from builder.store.images import NoSuchImage, NoSuchVariant

    missing: NoSuchImage | NoSuchVariant | None = None
    if policy != "always":
        try:
            return run_image(store, options, session)
        except (NoSuchImage, NoSuchVariant) as error:
            if policy == "never":
                raise
            missing = error
    from builder.cli.pulling import pull_to_run

    return run_image(store, pull_to_run(store, options, quiet=quiet, missing=missing), session)


def _environment(texts: tuple[str, ...], files: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, str | None]:
    """Variables of files, then those given; without a value they come from here. If they are not here, those of files
    are left out and those given are None, which takes the image's away, as in Docker (`ReplaceOrAppendEnvVars`).
    Docker's configuration may give proxies."""
    from builder.cli.docker_proxies import container_proxies

    found: dict[str, str | None] = {}
    lines = [line for path in files for line in _lines(path)]
    for number, text in enumerate((*lines, *texts)):
        name, equals, value = text.partition("=")
        if not name or "\0" in text:
            raise UsageError(f"invalid variable {text!r}", remedy="write NAME=VALUE")
        if equals:
            found[name] = value
        elif name in environ:
            found[name] = environ[name]
        elif number >= len(lines):
            found[name] = None
    return container_proxies([text.partition("=")[0] for text in texts], environ) | found


def _lines(path: str) -> list[str]:
    """An environment file's lines as Docker reads them: blank ones and comments do not count."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            stripped = [line.rstrip("\r\n").lstrip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"the environment file cannot be read: {reason}", place=path) from error
    found = [line for line in stripped if line and not line.startswith("#")]
    for line in found:
        if " " in line.partition("=")[0] or "\t" in line.partition("=")[0]:
            raise UsageError(f"variable {line.partition('=')[0]!r} has a space in its name", place=path)
    return found


def _volume(text: str) -> Volume:
    from builder.api.running import Volume

    source, *rest = text.split(":")
    modes = rest[1].split(",") if rest[1:] else []
    if len(rest) not in (1, 2) or not source or not rest[0].startswith("/") or {"ro", "rw"}.issubset(modes):
        raise UsageError(f"invalid --volume {text!r}", remedy="write HOST:PATH or HOST:PATH:ro with an absolute PATH")
    for mode in modes:
        if mode in ("shared", "rshared"):
            raise UsageError(f"--volume {text!r}: mounts are not shared with this machine", remedy=f"leave out {mode}")
        if mode not in _MODES:
            raise UsageError(f"--volume {text!r}: unknown mode {mode!r}", remedy=f"known are {', '.join(_MODES)}")
    if "/" not in source and source not in (".", ".."):
        raise UsageError(
            f"--volume {text!r}: named volumes are not kept", remedy=f"write ./{source} for a directory of yours"
        )
    return Volume(os.path.abspath(source), rest[0], "ro" in modes)


def _absolute(path: str, option: str) -> str:
    if path and not path.startswith("/"):
        raise UsageError(f"{option} {path!r} is not an absolute path")
    return path
