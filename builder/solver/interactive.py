"""Standing in a step: a shell, or its command again, where it ran, over what it wrote; or where it would have begun.

What is done there is thrown away: the kept state stays as the step left it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from builder.errors import StepFailed, Unsupported
from builder.filesystem import kinds
from builder.filesystem.diff import changes
from builder.filesystem.kinds import Kind
from builder.filesystem.layered import LayeredTree
from builder.filesystem.resolve import resolve
from builder.filesystem.tree import FileInfo, FileTree
from builder.plan.steps import RunNode, StepNode
from builder.progress import Warned
from builder.sandbox.command import Command, Mount, Result, SandboxError
from builder.sandbox.session import Session
from builder.solver.commands import overlay_directories, step_command
from builder.solver.environment import Environment
from builder.solver.failed import StepState
from builder.solver.mounts import Mounting
from builder.solver.users import accounts_of, find_user

RERUN = "/dev/builder/rerun"
"""A program that runs the step's command again."""
COMMAND = "BUILDER_COMMAND"
"""A variable that holds it as a shell takes it."""

ADDED, CHANGED, DELETED = "A", "C", "D"

_LOOK = "'builder debug --ls /' lists its files, '--cat PATH' shows one"
_RERUN = ", '--rerun' runs its command"
_SHELLS = ("bin/bash", "usr/bin/bash", "bin/sh", "usr/bin/sh")


class ChangedFile(msgspec.Struct, frozen=True):
    """A file that a command added, changed or deleted; `path` without a slash at its beginning."""

    change: str
    path: str
    kind: Kind


def enter_step(
    environment: Environment, state: StepState, upper: str, arguments: tuple[str, ...] | None, session: Session
) -> Result:
    """Run something in a step's place: with its layers, what its command wrote (`upper`, '' for nothing), environment,
    user, directory and mounts. Without `arguments` that is a shell.

    Raises StepFailed where the image has no shell, and what mounts raise; Unsupported where nothing can be run.
    """
    with LayeredTree(_lowers(environment, state, upper)) as tree:
        shell = find_shell(tree)
    if arguments is None and shell is None:
        again = _RERUN if isinstance(state.node, RunNode) else ""
        raise StepFailed("the step's file system has no shell", remedy=f"{_LOOK}{again}")
    with command_there(environment, state, upper) as command:
        argv, command.arguments = command.arguments, arguments if arguments is not None else (str(shell),)
        if argv:
            _add_rerun(command, argv, shell or "/bin/sh")
        if session.terminal and not any(line.startswith("TERM=") for line in command.environment):
            command.environment = (*command.environment, "TERM=xterm")
        try:
            return environment.sandbox.attach(command, session)
        except SandboxError as error:
            raise Unsupported(
                str(error), remedy=f"a shell needs root, overlayfs and namespaces on this machine; {_LOOK}"
            ) from error


@contextmanager
def command_there(environment: Environment, state: StepState, upper: str) -> Iterator[Command]:
    """The step's own command (without arguments where it is no RUN) over what it wrote before (`upper`, '' for
    nothing). What it writes goes with the block. Raises what mounts raise, and StepFailed for an unknown user."""
    lowers = _lowers(environment, state, upper)
    node = _stand(environment, state)
    user = find_user(accounts_of(environment, state.parent), node.user)
    with environment.store.scratch() as scratch, ExitStack() as held:
        overlay = overlay_directories(scratch, lowers)
        if upper:
            os.chmod(overlay[0], os.stat(upper).st_mode & 0o7777)
        mounting = Mounting(environment, state.roots, state.contents, scratch, held)
        yield step_command(environment, node, user, lowers, overlay, mounting)


def _lowers(environment: Environment, state: StepState, upper: str) -> list[str]:
    return [*([upper] if upper else []), *environment.store.unpacked.directories(state.parent)]


def surroundings(node: StepNode) -> RunNode:
    """What a command has at a step's place: the RUN itself, or one that says nothing yet."""
    if isinstance(node, RunNode):
        return node
    here = node.surroundings
    return RunNode(
        label=node.label,
        stage=node.stage,
        platform=node.platform,
        range=node.range,
        parent=node.parent,
        argv=(),
        env=here.env,
        proxies=here.proxies,
        user=here.user,
        workdir=here.workdir,
        network=here.network,
    )


def _stand(environment: Environment, state: StepState) -> RunNode:
    """What there is to stand in. Where the failure may be that of a mount or of the user they are left out, and that
    is said."""
    node = surroundings(state.node)
    if environment.isolated:
        node = msgspec.structs.replace(node, network="none")
    if not state.unready:
        return node
    left_out = []
    if node.mounts:
        left_out.append("its mounts")
        node = msgspec.structs.replace(node, mounts=())
    try:
        find_user(accounts_of(environment, state.parent), node.user)
    except StepFailed:
        left_out.append(f"its user {node.user!r}")
        node = msgspec.structs.replace(node, user="")
    if left_out:
        environment.report(
            Warned(f"the step failed before its command ran; it is shown without {' and '.join(left_out)}")
        )
    return node


def changed_files(environment: Environment, state: StepState, upper: str) -> list[ChangedFile]:
    """What the step's command changed before it failed, sorted by path."""
    passing = {path.strip("/") for path in state.mount_points}
    found: list[ChangedFile] = []
    with LayeredTree(environment.store.unpacked.directories(state.parent)) as below:
        for change in changes(upper, below if state.parent else None):
            path, info = change.path, change.info
            if info.kind == kinds.OPAQUE:
                gone = [(f"{path}/{name}", kind) for name, kind in _entries(below, path)]
                found += [
                    ChangedFile(DELETED, one, kind) for one, kind in gone if not os.path.lexists(f"{upper}/{one}")
                ]
                continue
            before = below.lstat(path)
            if info.kind == kinds.WHITEOUT:
                if path not in passing and before is not None:
                    found.append(ChangedFile(DELETED, path, before.kind))
            else:
                found += written_file(path, before, info)
    return sorted(found, key=lambda file: file.path.split("/"))


def written_file(path: str, before: FileInfo | None, after: FileInfo) -> list[ChangedFile]:
    """What a file of a layer is: new, or not as it was; nothing for a directory that only repeats what was there."""
    if before is None:
        return [ChangedFile(ADDED, path, after.kind)]
    if after.kind != kinds.DIRECTORY or _facts(after) != _facts(before):
        return [ChangedFile(CHANGED, path, after.kind)]
    return []


def _entries(tree: LayeredTree, path: str) -> list[tuple[str, Kind]]:
    info = tree.lstat(path)
    if info is None or info.kind != kinds.DIRECTORY:
        return []
    return [(name, entry.kind) for name, entry in tree.scan(path)]


def _facts(info: FileInfo) -> tuple[Kind, int, int, int]:
    """What makes a directory differ."""
    return info.kind, info.mode, info.uid, info.gid


def find_shell(tree: FileTree) -> str | None:
    """The shell that people like best of those that a root file system has."""
    for path in _SHELLS:
        info = tree.lstat(resolve(tree, path))
        if info is not None and info.kind == kinds.FILE:
            return f"/{path}"
    return None


def _add_rerun(command: Command, argv: tuple[str, ...], shell: str) -> None:
    again = shlex.join(argv)
    script = f"#!{shell}\ncd {shlex.quote(command.directory)} && exec {again}\n"
    content = script.encode("utf-8", "surrogateescape")
    command.mounts = (*command.mounts, Mount(RERUN, "file", content=content, mode=0o755))
    command.environment = (*command.environment, f"{COMMAND}={again}")
