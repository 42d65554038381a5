"""The sandbox for where no namespaces and mounts can be made, as in a container without CAP_SYS_ADMIN: chroot(2).

Each step gets a whole copy of its file system, which takes time and space, and is compared with it afterwards. It is
less of a sandbox: the step shares the container's processes, network and hostname, and with root's id it can signal
those that run as root. It has Docker's default capabilities but those that lead out of a chroot or make devices, sees
only its root, and all its processes end with it. /proc and /sys are empty. What cannot be done is refused.

    client ── guard (a process for each step, which copies, compares and ends the tree) ── command

This module is the caller's side and the guard; `chroot_root` makes the root and compares.
"""

from __future__ import annotations

import marshal
import os
import sys

from . import capabilities, process, syscalls
from .chroot_root import Root
from .client import Sandbox
from .command import Command, Result, SandboxError
from .messages import describe, receive_body

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from .session import Session

_SIGKILL = 9
_CONTROL = 3
_BOOTSTRAP = """\
import sys
package = sys.modules["builder"] = type(sys)("builder")
package.__path__ = [sys.argv[1]]
from builder.sandbox.chroot import main
main()
"""
# These lead out of a chroot, or make devices of the host that could be opened.
_FORBIDDEN = capabilities.mask(frozenset(("CAP_SYS_CHROOT", "CAP_MKNOD")))
_NEEDED = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID", "SETPCAP", "SYS_CHROOT", "MKNOD")


def missing() -> list[str]:
    """The capabilities that this rung needs and this process lacks."""
    held = capabilities.held()
    return [f"CAP_{name}" for name in _NEEDED if not held >> capabilities.NAMES.index(name) & 1]


def refusal(command: Command) -> str:
    """What of a command cannot be done in a chroot, '' if all can."""
    wanted = (
        (command.network == "none", "--network=none"),
        (command.security == "insecure", "--security=insecure"),
        (command.memory, "--memory"),
        (command.cpus, "--cpus"),
        (command.pids, "a limit of processes"),
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
            raise SandboxError(f"running a command in a chroot needs {', '.join(lacking)}, which this process lacks")
        unable = refusal(command)
        if unable:
            raise SandboxError(f"in a chroot there is no way to have {unable}: that needs namespaces and mounts")
        self._guards = [pid for pid in self._guards if not _wait_for(pid, os.WNOHANG)]
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        try:
            guard = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, package],
                {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, descriptors[0], _CONTROL),
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, descriptors[1], 1),
                    (os.POSIX_SPAWN_DUP2, descriptors[2], 2),
                ],
                setpgroup=0,
            )
        except OSError as error:
            raise SandboxError(f"the sandbox cannot start: {error.strerror}") from error
        self._guards.append(guard)


def _wait_for(pid: int, how: int = 0) -> bool:
    """Wait for a guard; whether it has ended."""
    try:
        return bool(os.waitpid(pid, how)[0])
    except ChildProcessError:
        return True  # this program ignores SIGCHLD


# --- the guard


def main() -> None:
    """Run the command that comes on descriptor 3, and answer there."""
    import _socket

    control = _socket.socket(fileno=_CONTROL)
    os.set_inheritable(_CONTROL, False)
    body = receive_body(control)
    if body is None:
        return  # the client is gone
    try:
        result = _run(Command.unpack(marshal.loads(body)), control)
    except (SandboxError, OSError) as error:
        result = Result(error=describe(error), setup_failed=True)
    try:
        control.sendall(marshal.dumps(result.pack()))
    except OSError:
        return


def _run(command: Command, control: _socket.socket) -> Result:
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)  # whatever a step leaves running becomes this process's child
    os.umask(0)
    root = Root(command)
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, _SIGKILL)
        root.make()
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 0)  # from now on there is a command that must be ended first
        if _is_unwanted(control):
            return Result(cancelled=True)
        result = _follow(command, root, control)
        if not result.cancelled:
            root.collect()
    finally:
        root.remove()
    return result


def _follow(command: Command, root: Root, control: _socket.socket) -> Result:
    """Run the command to its end, and end what it leaves running."""
    import time

    started = time.monotonic()
    reports, report = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.close(reports)
            _become(command, root, report)
        finally:
            os._exit(1)
    os.close(report)
    for stream in (1, 2):
        os.close(stream)
    cancelled = _wait(child, control)
    _, status, usage = os.wait4(child, 0)
    duration = time.monotonic() - started
    _end_children()
    kind, _, error = _read(reports).partition(":")
    code = os.waitstatus_to_exitcode(status)
    return Result(
        None if error or code < 0 else code,
        signal=-code if code < 0 else 0,
        error=error,
        setup_failed=kind == "set-up",
        cancelled=cancelled,
        duration=duration,
        user_time=usage.ru_utime,
        system_time=usage.ru_stime,
        max_memory=usage.ru_maxrss * 1024,
    )


def _become(command: Command, root: Root, report: int) -> None:
    """In the child: the chroot, then limits, directory, user, capabilities and exec. Returns only when that fails."""
    try:
        os.setsid()
        process.leave_keyrings()
        bounding = capabilities.bounding()
        keep = process.kept_capabilities(command.security, bounding) & capabilities.held() & ~_FORBIDDEN
        process.limit_capabilities(bounding, keep)
        program = _filter()
        # From here on an import would execute the image's files with all privileges.
        sys.path.clear()
        sys.meta_path.clear()
        os.chroot(root.path)
        os.chdir("/")
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        if report > 3:
            syscalls.close_range(3, report - 1)
        syscalls.close_range(report + 1, 0xFFFFFFFF)
        process.own_pipes([1, 2], command.uid)
        process.set_limits(command.ulimits)
        inside = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        process.enter_directory(inside, command)
        os.close(inside)
        process.become_user(command, keep, program)
        process.execute(command)
    except process.StartError as error:
        os.write(report, f"start:{error}".encode(errors="surrogateescape"))
    except (SandboxError, OSError) as error:
        os.write(report, f"set-up:{describe(error)}".encode(errors="surrogateescape"))
    except BaseException as error:  # a defect: without a report it would look like the command's own failure
        os.write(report, f"set-up:unexpected {type(error).__name__}: {error}".encode(errors="surrogateescape"))


def _filter() -> bytes | None:
    """Docker's filter of system calls, where the container has none that this process is under already.

    Without CAP_SYS_ADMIN it takes no_new_privs, so that set-user-id programs give nobody more rights.
    """
    with open("/proc/self/status") as status:
        if any(line.startswith("Seccomp:") and line.split()[1] == "2" for line in status):
            return None
    from .seccomp import build_filter

    program = build_filter(capabilities.DEFAULT, syscalls.MACHINE)
    if not capabilities.held() >> capabilities.SYS_ADMIN & 1:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    return program


def _is_unwanted(control: _socket.socket) -> bool:
    """Whether the client has hung up."""
    import select

    return bool(select.select([control], [], [], 0)[0])


def _wait(child: int, control: _socket.socket) -> bool:
    """Wait for the command's end; kill it, and say so, if the client hangs up."""
    import select

    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(control.fileno(), select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if ended in ready:
            os.close(ended)
            return False
        os.kill(child, _SIGKILL)
        os.close(ended)
        return True


def _end_children() -> None:
    """Kill all that the command left running. Their children come to this process as they end, so it goes round."""
    own = os.getpid()
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for pid in _children(own):
            os.kill(pid, _SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children(parent: int) -> list[int]:
    """The processes whose parent this is."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue  # it has ended
            if int(fields[1]) == parent:
                found.append(int(name))
    return found


def _read(descriptor: int) -> str:
    data = b""
    while part := os.read(descriptor, 65536):
        data += part
    os.close(descriptor)
    return data.decode(errors="surrogateescape")
