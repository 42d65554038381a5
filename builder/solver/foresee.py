"""The root of the command that comes next, made while the layer of the one before it is written.

Of a short step most of the time goes into its root (mounts), and most of the rest into its layer. The next step's root
lies on this one's directory of changes, to which nobody writes once its command has ended. So where a RUN is followed
by another one as the same user, and nothing else runs at once, the sandbox is told of that root while the command runs,
to make it when that has ended. Whether it serves is decided when the step comes: what became of the directory, and all
else that the root depends on, must be as told.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from builder.errors import BuilderError
from builder.sandbox.command import Command, SandboxError
from builder.solver.commands import overlay_directories

if TYPE_CHECKING:
    from builder.plan.steps import RunNode
    from builder.solver.environment import Environment
    from builder.store.store import Store

_PATIENCE = 1000  # milliseconds: opening directories takes none


class Foreseen(msgspec.Struct, frozen=True):
    """A root that the sandbox makes: the `scratch` with its upper and work directory, the `command` that it was told
    of, which directory is its top layer and whose, and the descriptor that is at its end when the layers are open."""

    scratch: str
    command: Command
    top: tuple[int, int, int, int]
    opened: int

    def has_its_layers(self) -> bool:
        """Wait until its layers may get other names; False if that takes too long."""
        import select

        poll = select.poll()
        poll.register(self.opened, select.POLLIN)
        return bool(poll.poll(_PATIENCE))

    def give_up(self, store: Store) -> None:
        """Do without it."""
        os.close(self.opened)
        store.step_scratches.discard(self.scratch)

    def serves(self, command: Command) -> bool:
        """Whether it is the root of a command whose upper and work directory are of this scratch."""
        return (
            bool(command.lowers)
            and command.lowers[1:] == self.command.lowers[1:]
            and _identity(command.lowers[0]) == self.top
            and (command.upper, command.work) == (self.command.upper, self.command.work)
            and command.shape() == self.command.shape()
        )


def foresee(environment: Environment, command: Command, node: RunNode, following: RunNode) -> Foreseen | None:
    """Have the root of the `following` step made when the command of `node`, which runs, has ended; None if that will
    be another one than can be told by now."""
    if following.mounts or following.script is not None or environment.epoch is not None:
        return None  # with a time nothing may be younger, which is seen to afterwards
    same = ("user", "network", "security")
    if environment.isolated or any(getattr(following, name) != getattr(node, name) for name in same):
        return None
    store = environment.store
    try:
        scratch = store.step_scratches.take()
    except BuilderError:
        return None
    try:
        top = _identity(command.upper)  # before the owner is taken over: the command may give it another at any time
        told = Command.unpack(command.pack())
        told.lowers = (command.upper, *environment.folds.over(command.lowers))
        told.upper, told.work = overlay_directories(scratch, told.lowers)
        told.arguments, told.environment, told.mounts = (), (), ()
        told.directory = following.workdir
        told.root = scratch
        return Foreseen(scratch, told, top, environment.sandbox.foresee(told))
    except BaseException as error:
        store.step_scratches.discard(scratch)
        if isinstance(error, (OSError, SandboxError)):  # the step itself says what is wrong
            return None
        raise


def _identity(directory: str) -> tuple[int, int, int, int]:
    status = os.stat(directory)
    return status.st_dev, status.st_ino, status.st_uid, status.st_gid
