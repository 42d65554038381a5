"""The sandbox for where no namespaces and mounts can be made, as in a container without CAP_SYS_ADMIN: chroot(2).

Each step gets a whole copy of its file system, which takes time and space, and is compared with it afterwards. It is
less of a sandbox: the step shares the container's processes, network and hostname. It has Docker's default capabilities
but those that lead out of a chroot or make devices, sees only its root, and all its processes end with it. It can trace
no process that holds more capabilities, as its builder does. /proc and /sys are empty. What cannot be done is refused,
and a step that writes to what it is shown read-only fails.

A chroot holds only who is given no descriptor from outside of it. So no step may get one of another's root: where the
kernel's Landlock confines a step, it reaches neither processes nor abstract Unix sockets of others; one that cannot be
confined runs while no other does. That is each before Linux 6.12; later, where there is no CAP_SYS_ADMIN, one of
another user than root, who may need programs like sudo (`chroot_guard.Restraint`). Other processes of the container, to
which a step that is not confined could pass its root, are trusted. And one that has become root can kill its guard,
which ends its build and its turn, but not itself: where strangers build, have a newer kernel, or a container for each.

    client ── guard (a process for each step, which copies, compares and ends the tree) ── command

This module is the caller's side; `chroot_guard` is the guard, `chroot_root` makes the root and compares.
"""

from __future__ import annotations

import os
import sys

from . import capabilities, landlock, namespaces, syscalls
from .client import Sandbox, default_signals
from .command import Command, Result, SandboxError
from .messages import write_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .session import Session

CONTROL, COMMAND = 3, 4
"""The guard's descriptors: where it answers, and the file that holds the command."""
_BOOTSTRAP = """\
import sys
package = sys.modules["builder"] = type(sys)("builder")
package.__path__ = [sys.argv[1]]
from builder.sandbox.chroot_guard import main
main()
"""
_NEEDED = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID", "SETPCAP", "SYS_CHROOT", "MKNOD")


def missing() -> list[str]:
    """The capabilities that this rung needs and this process lacks; those of a user namespace make no devices."""
    held = capabilities.held()
    if namespaces.in_user_namespace():
        held &= ~capabilities.mask(frozenset(("CAP_MKNOD",)))
    return [f"CAP_{name}" for name in _NEEDED if not held >> capabilities.NAMES.index(name) & 1]


def keeps_signals_in() -> bool:
    """Whether commands of root can signal no process but their own here, and run at the same time."""
    return landlock.is_able()


def refusal(command: Command) -> str:
    """What of a command cannot be done in a chroot, '' if all can."""
    wanted = (
        (command.network == "none", "--network=none"),
        (command.security == "insecure", "--security=insecure"),
        (command.memory, "--memory"),
        (command.cpus, "--cpus"),
        (command.shm_size, "--shm-size"),
        (command.hostname != "buildkitsandbox", f"the hostname {command.hostname}"),
        (any(mount.kind == "tmpfs" and mount.size for mount in command.mounts), "--mount=type=tmpfs,size="),
        (command.terminal is not None, "a terminal"),
    )
    return ", ".join(what for needed, what in wanted if needed)


class ChrootSandbox(Sandbox):
    """Runs commands, each in a chroot of its own. The contract is that of `Sandbox`."""

    def __init__(self) -> None:
        super().__init__()
        self._guards: list[int] = []

    def prepare(self) -> None:
        """Nothing is shared by commands here."""

    def foresee(self, command: Command) -> int:
        """A root is made by the command's own guard."""
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def attach(self, command: Command, session: Session) -> Result:
        raise SandboxError("an interactive command needs namespaces and mounts, which this machine does not allow")

    def close(self) -> None:
        super().close()
        with self._lock:
            for pid in self._guards:
                _wait_for(pid)
            self._guards.clear()

    def _send(self, command: Command, descriptors: list[int]) -> None:
        """Start a guard for the command."""
        lacking = missing()
        if lacking:
            where = ", being in a user namespace" if namespaces.in_user_namespace() else ""
            raise SandboxError(
                f"running a command in a chroot needs {', '.join(lacking)}, which this process lacks{where}"
            )
        unable = refusal(command)
        if unable:
            raise SandboxError(f"in a chroot there is no way to have {unable}: that needs namespaces and mounts")
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # nothing that strangers run is to read this process's memory
        self._guards = [pid for pid in self._guards if not _wait_for(pid, os.WNOHANG)]
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        body = write_command(command)
        try:
            guard = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, package],
                {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, descriptors[0], CONTROL),
                    (os.POSIX_SPAWN_DUP2, body, COMMAND),
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, descriptors[1], 1),
                    (os.POSIX_SPAWN_DUP2, descriptors[2], 2),
                ],
                setpgroup=0,
                setsigmask=(),
                setsigdef=default_signals(),
            )
        except OSError as error:
            raise SandboxError(f"the sandbox cannot start: {error.strerror}") from error
        finally:
            os.close(body)
        self._guards.append(guard)


def _wait_for(pid: int, how: int = 0) -> bool:
    """Wait for a guard; whether it has ended."""
    try:
        return bool(os.waitpid(pid, how)[0])
    except ChildProcessError:
        return True  # this program ignores SIGCHLD
