"""A command in the sandbox, over its parent's layers; what it wrote becomes the layer."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from builder.errors import LayerError, StepFailed, StoreError, Unsupported, printable
from builder.filesystem import kinds
from builder.filesystem.compress import LayerBlob, LayerSink
from builder.filesystem.diff import Change, LeftOut, changes, drop, write_changes
from builder.filesystem.encoders import encoder
from builder.filesystem.tar import WHITEOUT_PREFIX, TarWriter
from builder.filesystem.times import clamp_times
from builder.filesystem.tree import FileInfo
from builder.oci.platform import host_platform
from builder.plan.steps import CopyNode, RunNode, StepNode
from builder.progress import StepOutput, Warned
from builder.sandbox.command import Command, Result, SandboxError
from builder.solver.cache import Made, now
from builder.solver.commands import overlay_directories, step_command
from builder.solver.environment import Environment
from builder.solver.foresee import Foreseen, foresee
from builder.solver.mounts import Mounting
from builder.solver.roots import Layers
from builder.solver.users import ExecUser, accounts_of, find_user

if TYPE_CHECKING:
    from builder.solver.secret_output import Masking

_TAIL_LINES = 30
_TAIL_BYTES = 4096  # of a line: progress that is drawn with carriage returns is one line


def execute(
    environment: Environment,
    node: RunNode,
    parent: Layers,
    roots: dict[int, Layers],
    contents: dict[str, str],
    step: str,
    following: StepNode | None = None,
) -> Made:
    """Run a command, and keep what it wrote. `following` is the step that comes next, if that is known and nothing else
    runs. Raises StepFailed, Unsupported."""
    store = environment.store
    lowers = store.unpacked.directories(parent)
    user = find_user(accounts_of(environment, parent), node.user)
    with ExitStack() as held:
        scratch, command = _begin(environment, node, user, environment.folds.over(lowers), roots, contents, held)
        upper = command.upper
        ahead: Foreseen | None = None

        def look_ahead() -> None:
            nonlocal ahead
            environment.folds.fold(command.lowers)
            if isinstance(following, RunNode) and environment.keep is None and environment.before is None:
                ahead = foresee(environment, command, node, following)
                environment.keep_foreseen(ahead)
            store.catch_up()
            _load_ahead(environment, following)
            if environment.running is not None:
                environment.running()

        result, tail, masking = run_command(
            environment, command, lambda stream, data: environment.report(StepOutput(step, data, stream)), look_ahead
        )
        environment.check_cancelled()
        try:
            check_result(node, result, tail)
            if masking is not None:
                masking.check(node.label, tail, environment.report)
        except StepFailed as error:
            if masking is not None:
                masking.add_to(error)
            if environment.keep is not None and not result.setup_failed:
                from builder.solver.failed import StepState

                state = StepState(
                    node=node, parent=parent, roots=roots, contents=contents, mount_points=result.mount_points
                )
                error.kept = environment.keep(state, error.cause, upper)
            raise
        blob, left_out = _layer(upper, parent, result.mount_points, scratch, environment)
        if ahead is not None and (left_out.paths or left_out.misread or not ahead.has_its_layers()):
            environment.keep_foreseen(None)  # it has what the layer has not, or may not find it
        if left_out.paths:
            drop(upper, left_out.paths)
        store.layers.add(blob)
        if left_out.misread:  # then what the layer says is unpacked, here as everywhere
            environment.report(_misread(node, left_out.misread[0]))
        else:
            directory = store.unpacked.adopt(blob.diff_id, upper, lowers if left_out.linked else ())
            environment.folds.add(directory, blob.uncompressed_size)
    return Made(blob.diff_id, now(environment.epoch))


def _misread(node: RunNode, path: str) -> Warned:
    return Warned(
        f"{node.label}: /{path} is not in the image: in a layer, a name that begins with {WHITEOUT_PREFIX} says that "
        "something is deleted, and so it is after this step"
    )


def _load_ahead(environment: Environment, following: StepNode | None) -> None:
    """Load the modules that the time after the command needs: they take some 6 ms, and a command's start alone 30."""
    with suppress(Unsupported):
        encoder(environment.compression.kind, environment.compression.level)
    if isinstance(following, CopyNode):
        import builder.filesystem.pipeline
        import builder.solver.make_copy  # noqa: F401


def _begin(
    environment: Environment,
    node: RunNode,
    user: ExecUser,
    lowers: list[str],
    roots: dict[int, Layers],
    contents: dict[str, str],
    held: ExitStack,
) -> tuple[str, Command]:
    """The step's scratch, which `held` gives back, and its command: with the root that was foreseen, if it is that."""
    store = environment.store
    foreseen = environment.take_foreseen()
    if foreseen is not None:
        if not node.mounts and node.script is None:
            overlay = (foreseen.command.upper, foreseen.command.work)
            mounting = Mounting(environment, roots, contents, foreseen.scratch, held)
            command = step_command(environment, node, user, lowers, overlay, mounting)
            if foreseen.serves(command):
                os.close(foreseen.opened)
                command.root = foreseen.command.root
                return held.enter_context(store.step_scratches.use(foreseen.scratch)), command
        foreseen.give_up(store)
    scratch = held.enter_context(store.step_scratches.use())
    overlay = overlay_directories(scratch, lowers)
    mounting = Mounting(environment, roots, contents, scratch, held)
    return scratch, step_command(environment, node, user, lowers, overlay, mounting)


def run_command(
    environment: Environment, command: Command, show: Callable[[int, bytes], None], meanwhile: Callable[[], None]
) -> tuple[Result, list[str], Masking | None]:
    """Run a command and `show` what it prints to a stream as it comes, masked: how it ended, the last lines of its
    output, and what has masked them (None in a build without secrets). `meanwhile` is called when it runs. Raises
    Unsupported, and what these do."""
    tail: deque[bytes] = deque([b""], maxlen=_TAIL_LINES)
    masking: Masking | None = None
    if environment.guard is not None:
        from builder.solver.secret_output import Masking

        masking = Masking(environment.guard)

    def take(stream: int, data: bytes) -> None:
        if masking is not None:
            data = masking.feed(stream, data)
        if data:
            tell(stream, data)

    def tell(stream: int, data: bytes) -> None:
        first, *others = data.split(b"\n")
        tail[-1] = (tail[-1] + first)[-_TAIL_BYTES:]
        tail.extend(line[-_TAIL_BYTES:] for line in others)
        show(stream, data)

    try:
        result = environment.sandbox.run(command, take, meanwhile)
    except SandboxError as error:
        raise Unsupported(str(error), remedy=_what_is_needed()) from error
    finally:
        for held in masking.finish() if masking is not None else ():
            tell(*held)
    return result, [line.decode("utf-8", "backslashreplace") for line in tail if line], masking


def _what_is_needed() -> str:
    """What a machine lacks where no command can run at all."""
    from builder.sandbox.allowed import setting_to_change
    from builder.sandbox.namespaces import in_user_namespace

    setting = setting_to_change() if in_user_namespace() else ""
    if setting:
        return f"namespaces are restricted here; as root: {setting}"
    return "RUN needs root, overlayfs and namespaces on this machine; 'builder doctor' says what it lacks"


def check_result(node: RunNode, result: Result, tail: list[str]) -> None:
    """Raises StepFailed unless the command ended well."""
    shown = printable(" ".join(node.argv))
    if result.exit_status == 0 and not result.error:
        if not result.written:
            return
        raise StepFailed(
            f"the command wrote to {result.written}, which its mount shows read-only; without namespaces that cannot be"
            " prevented, and what was written is lost",
            details=(f"  command: {shown}",),
            remedy="write elsewhere, or let the mount be written to: ,rw",
        )
    if result.setup_failed:
        raise StepFailed(f"the sandbox failed: {result.error}", details=(f"  command: {shown}",))
    foreign = node.platform.architecture != host_platform().architecture
    if result.error and foreign and "format" in result.error:
        raise Unsupported(
            f"this machine cannot run programs for {node.platform}",
            details=(f"  command: {shown}", f"  {printable(result.error)}"),
            remedy="install qemu-user-static and binfmt-support (Debian), so that the kernel runs them through qemu",
        )
    if result.error:
        cause = f"the command could not be started: {result.error}"
    elif result.out_of_memory:
        cause = "the command ran out of memory"
    elif result.signal:
        cause = f"the command was ended by signal {result.signal}{_signal_name(result.signal)}"
    else:
        cause = f"the command ended with status {result.exit_status}"
    log = ("  last lines of its output:", *(f"    {line}" for line in tail)) if tail else ()
    raise StepFailed(
        cause,
        details=(f"  command: {shown}", *log),
        remedy=_remedy(node, result),
    )


def _remedy(node: RunNode, result: Result) -> str:
    if result.error and node.argv[1:2] == ("-c",) and f'"{node.argv[0]}"' in result.error and "no such" in result.error:
        return f'there is no {node.argv[0]}: begin with an image that has a shell, or write RUN ["PROGRAM", …]'
    if result.error:
        return f"it is started as {node.user or 'root'} in {node.workdir}"
    return f"it ran as {node.user or 'root'} in {node.workdir}; 'builder builds logs' shows the whole log"


def _signal_name(number: int) -> str:
    import signal

    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""


def _layer(
    upper: str, parent: Layers, mount_points: tuple[str, ...], scratch: str, environment: Environment
) -> tuple[LayerBlob, LeftOut]:
    """The layer of what the command wrote, and what is in `upper` and not in it. That a mount point is gone, which only
    this step had, is no change."""
    passing = {path.strip("/") for path in mount_points}
    left_out = LeftOut()

    def counts(change: Change) -> bool:
        if change.info.kind != kinds.WHITEOUT or change.path not in passing:
            return True
        left_out.paths.append(change.path)
        return False

    if environment.epoch is not None:
        clamp_times(upper, environment.epoch)
    form = environment.compression
    try:
        with (
            environment.store.unpacked.tree(parent) as below,
            LayerSink(scratch, compression=form.kind, level=form.level, sync=False) as sink,
        ):
            guard = environment.guard
            writer = guard.writer(sink.write) if guard is not None else TarWriter(sink.write, room=lambda: sink.room)
            _write_root(writer, upper, below.directories, environment.epoch)
            found = changes(upper, below if parent else None, left_out)
            write_changes(filter(counts, found), writer)
            writer.close()
            blob = sink.finish()
        return blob, left_out
    except OSError as error:
        _, inside, path = os.fsdecode(error.filename or "").partition(f"{upper}/")
        if error.errno == errno.ENAMETOOLONG and inside:
            raise LayerError(
                f"{len(os.fsencode(path)) + 1} bytes are longer than a path may be, in a command or in a layer",
                place=f"/{path[:80]}…{path[-40:]}",
                remedy="remove it in the same RUN",
            ) from error
        raise StoreError(f"cannot write the step's layer: {error.strerror}", place=scratch) from error


def _write_root(writer: TarWriter, upper: str, lowers: Sequence[str], epoch: int | None) -> None:
    """State the owner and mode of `/` if the command changed them: layers that differ in that alone are not equal. With
    `epoch` (seconds) it is no younger than that; `clamp_times` leaves it alone."""
    root, before = os.stat(upper), os.stat(lowers[0]) if lowers else None
    owner = (before.st_uid, before.st_gid) if before is not None else (0, 0)
    if (root.st_uid, root.st_gid) != owner or root.st_mode & 0o7777 != 0o755:
        mtime = root.st_mtime_ns if epoch is None else min(root.st_mtime_ns, epoch * 1_000_000_000)
        writer.add(".", FileInfo(kinds.DIRECTORY, root.st_mode & 0o7777, root.st_uid, root.st_gid, 0, mtime))
