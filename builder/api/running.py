"""An image's program in the sandbox that steps run in, to look into what was built. What it writes is thrown away."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

import msgspec

from builder.errors import DiskFull, StepFailed, StoreError, Unsupported, UsageError
from builder.filesystem.layered import LayeredTree
from builder.filesystem.tree import FileTree
from builder.oci.platform import host_platform
from builder.oci.spec import INDEXES, ContainerConfig, ImageConfig, Platform, paired_layers, refuse_nul
from builder.plan.paths import DEFAULT_PATH, normalise
from builder.sandbox.client import Sandbox
from builder.sandbox.command import Command, Mount, Result, SandboxError
from builder.sandbox.session import Session
from builder.solver.commands import hosts_file, overlay_directories, parents_first, resolv_conf
from builder.solver.interactive import find_shell
from builder.solver.users import find_user, read_accounts
from builder.store.describe import Describer, PlatformImage
from builder.store.images import NoSuchVariant, StoredImage
from builder.store.store import Store

CANNOT_RUN, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
"""Exit statuses as `docker run` has them: no command was started; it cannot be executed; it is not there."""

_MISSING = ("executable file not found", "no such file or directory", "no such directory", "is missing in the image")


class Volume(msgspec.Struct, frozen=True):
    """A file or directory of the host at an absolute path of the command's root."""

    source: str
    target: str
    read_only: bool = False


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is run. `command` are the arguments after the image's name; `entrypoint` replaces the image's (None: it
    does not; '' is none at all). `environment` comes on top of the image's, where None takes a variable away; `user`,
    `workdir`, `hostname` '' mean the image's, or a made up name. `shell` runs the image's shell, with `command` as its
    arguments."""

    image: str
    command: tuple[str, ...] = ()
    entrypoint: str | None = None
    environment: Mapping[str, str | None] = {}
    user: str = ""
    workdir: str = ""
    volumes: tuple[Volume, ...] = ()
    network: str = "default"
    hostname: str = ""
    platform: Platform | None = None
    shell: bool = False


def run_image(store: Store, options: RunOptions, session: Session) -> int:
    """Run a command in an image and return its exit status: 128 and the number if a signal ended it.

    Raises StepFailed if it cannot be started, whose `exit_status` tells why as Docker's does; NoSuchImage and
    NoSuchVariant for an image that is not here, before anything is started; StoreError; UsageError; Unsupported where
    nothing can be run. OSError if nobody reads the output any more.
    """
    with store.lease(), store.scratch() as scratch:
        stored = store.images.find(options.image)
        image = Describer(store).choose(stored, options.platform)
        assert image.manifest is not None
        assert image.config is not None
        layers = paired_layers(image.manifest, image.config, options.image)
        refuse_nul(image.config.config, options.image)
        for diff_id, layer in layers:
            store.layers.know(diff_id, layer)
        diff_ids = [diff_id for diff_id, _ in layers]
        lowers = _directories(store, diff_ids, stored, image)
        command = _command(lowers, scratch, image.config, options, session.terminal)
        try:
            with Sandbox() as sandbox:
                result = sandbox.attach(command, session)
        except SandboxError as error:
            raise Unsupported(str(error), remedy="running needs root, overlayfs and namespaces here") from error
    return exit_status(result, image.config.platform())


def _directories(store: Store, diff_ids: list[str], stored: StoredImage, image: PlatformImage) -> list[str]:
    """The image's layers, unpacked. Of an index there may be no more of a variant than what it says of itself: for
    another platform than this machine's, a plan fetches no more."""
    assert image.manifest is not None
    try:
        return store.unpacked.directories(diff_ids)
    except DiskFull:
        raise
    except StoreError as error:
        is_index = stored.descriptor.media_type in INDEXES
        if not is_index or all(store.layout.has(layer.digest) for layer in image.manifest.layers):
            raise
        name = stored.reference.familiar if stored.reference else stored.descriptor.digest
        raise NoSuchVariant(
            f"layers of the image's variant for {image.platform} are not here",
            place=name,
            remedy=f"pull them: builder pull --platform {image.platform} {name}",
        ) from error


def exit_status(result: Result, platform: Platform) -> int:
    """A command's exit status as a shell has it. Raises StepFailed for one that was not started."""
    if result.error:
        error = StepFailed(result.error, remedy=_remedy(result, platform))
        error.exit_status = CANNOT_RUN if result.setup_failed else NOT_EXECUTABLE
        if not result.setup_failed and any(text in result.error for text in _MISSING):
            error.exit_status = NOT_FOUND
        raise error
    if result.exit_status is not None:
        return result.exit_status
    return 128 + (result.signal or signal.SIGKILL)


def _remedy(result: Result, platform: Platform) -> str | None:
    if "format" in result.error and platform.architecture != host_platform().architecture:
        return f"the image is for {platform}: install qemu-user-static and binfmt-support (Debian)"
    return None


def _command(lowers: list[str], scratch: str, image: ImageConfig, options: RunOptions, terminal: bool) -> Command:
    config = image.config
    with LayeredTree(lowers) as tree:
        user = find_user(read_accounts(tree), options.user or config.user)
        arguments = _shell(config, options, tree) if options.shell else _arguments(config, options)
    upper, work = overlay_directories(scratch, lowers)
    hostname = options.hostname or os.urandom(6).hex()
    variables = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname} | ({"TERM": "xterm"} if terminal else {})
    variables |= dict(line.partition("=")[::2] for line in config.env or ())
    for name, value in options.environment.items():
        if value is not None:
            variables[name] = value
        else:
            variables.pop(name, None)
    variables.setdefault("HOME", user.home or "/")
    return Command(
        arguments,
        environment=tuple(f"{name}={value}" for name, value in variables.items()),
        lowers=tuple(lowers),
        upper=upper,
        work=work,
        mounts=parents_first(_mount(volume) for volume in options.volumes),
        directory=normalise("/", options.workdir or config.working_dir),
        uid=user.uid,
        gid=user.gid,
        groups=user.groups,
        network=options.network,
        hostname=hostname,
        hosts=hosts_file((), hostname),
        resolv_conf=resolv_conf(options.network),
    )


def _mount(volume: Volume) -> Mount:
    """A volume's mount; a directory that is not there is made, as Docker does."""
    try:
        if not os.path.exists(volume.source):
            os.makedirs(volume.source)
    except OSError as error:
        raise UsageError(f"the directory to mount cannot be made: {error.strerror}", place=volume.source) from error
    return Mount(volume.target, source=os.path.realpath(volume.source), read_only=volume.read_only)


def _arguments(config: ContainerConfig, options: RunOptions) -> tuple[str, ...]:
    """Entrypoint and command by Docker's rules: a new entrypoint drops the image's command, too."""
    if options.entrypoint is None:
        entrypoint, command = config.entrypoint or [], options.command or tuple(config.cmd or ())
    else:
        entrypoint, command = [options.entrypoint] if options.entrypoint else [], options.command
    arguments = (*entrypoint, *command)
    if not arguments:
        raise UsageError(
            "the image says no command to run", place=options.image, remedy="give one after the image's name"
        )
    return arguments


def _shell(config: ContainerConfig, options: RunOptions, tree: FileTree) -> tuple[str, ...]:
    shell = config.shell[0] if config.shell else find_shell(tree)
    if shell is None:
        raise StoreError(
            "the image has no shell",
            place=options.image,
            remedy="'builder ls' and 'builder cat' look at its files; 'builder run' runs its programs",
        )
    return (shell, *options.command)
