"""The guard of a command in a chroot: makes its root, ends its processes, and gathers what it did.

It is a fresh interpreter for each command, so that nothing of the builder's memory is inherited. It waits for the
command's end, and as a subreaper gets all that the command leaves running.
"""

from __future__ import annotations

import marshal
import os
import sys

from . import capabilities, landlock, process, syscalls
from .chroot import COMMAND, CONTROL
from .chroot_root import Root
from .command import Command, Result, SandboxError
from .messages import describe, read_command, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

_SIGKILL = 9
# These lead out of a chroot, or make devices of the host that could be opened.
_FORBIDDEN = capabilities.mask(frozenset(("CAP_SYS_CHROOT", "CAP_MKNOD")))


def main() -> None:
    """Run the command that the file on descriptor 4 holds, and answer on descriptor 3."""
    import _socket

    control = _socket.socket(fileno=CONTROL)
    os.set_inheritable(CONTROL, False)
    try:
        result = _run(read_command(COMMAND), control)
    except BaseException as error:
        result = Result(error=describe(error), setup_failed=True)
    try:
        control.sendall(marshal.dumps(result.pack()))
    except OSError:
        return


def _run(command: Command, control: _socket.socket) -> Result:
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # it knows secrets, and has capabilities that the step lacks
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)  # whatever a step leaves running becomes this process's child
    os.umask(0)
    check = _checking(control)
    root = Root(command, check)
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, _SIGKILL)
        root.make()
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 0)  # from now on there is a command that must be ended first
        check()
        restraint = Restraint(command)
        turn = _await_turn(restraint, control)
        if turn < 0:
            return Result(cancelled=True)
        try:
            result = _follow(command, root, restraint, control)
        finally:
            os.close(turn)
        if not result.cancelled:
            result.written = root.written()  # before the files are moved away
            root.collect()
    except _Unwanted:
        return Result(cancelled=True)
    finally:
        root.remove()
    return result


class Restraint:
    """What keeps a command from reaching others: `is_filtered` if this process, and so the command, is under a filter
    of system calls already; `is_confined` if Landlock can keep it in.

    Without CAP_SYS_ADMIN that takes no_new_privs, so that set-user-id programs give nobody more rights. It is set for
    root's commands, which could signal everybody, and have nothing to gain by such programs. Those of other users keep
    the right to use them, as sudo, unless a filter takes it, too; they can signal nobody who runs as root.
    """

    def __init__(self, command: Command) -> None:
        self.is_filtered = _is_filtered()
        self._is_privileged = capabilities.has(capabilities.SYS_ADMIN)
        loses = syscalls.has_no_new_privileges() or command.uid == 0 or not self.is_filtered
        self.is_confined = landlock.is_able() and (self._is_privileged or loses)

    def apply(self) -> bytes | None:
        """Confine this process. Docker's filter of system calls, for when it has become the user; None where the
        container has one."""
        if not self._is_privileged and (self.is_confined or not self.is_filtered):
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        if self.is_confined:
            landlock.confine(landlock.make_ruleset())
        if self.is_filtered:
            return None
        from .seccomp import build_filter

        return build_filter(capabilities.DEFAULT, syscalls.MACHINE)


def _is_filtered() -> bool:
    with open("/proc/self/status") as status:
        return any(line.startswith("Seccomp:") and line.split()[1] == "2" for line in status)


def _await_turn(restraint: Restraint, control: _socket.socket) -> int:
    """Wait until the command may run; a descriptor that is open while it does, or -1 if the client has hung up.

    Two commands in one network can pass each other descriptors of their roots, and `..` leads out of a chroot from a
    directory of another. Those who are confined cannot; one who is not runs alone. All who share the network namespace
    lock that, whichever store they are for.
    """
    import fcntl

    turn = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    kind = fcntl.LOCK_SH if restraint.is_confined else fcntl.LOCK_EX
    try:
        fcntl.flock(turn, kind | fcntl.LOCK_NB)
        return turn
    except BlockingIOError:
        pass
    waiting = os.fork()  # the lock is the descriptor's, which they share; this process waits for the client, too
    if waiting == 0:
        try:
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, _SIGKILL)
            fcntl.flock(turn, kind)
            os._exit(0)
        finally:
            os._exit(1)
    cancelled = _wait(waiting, control)
    _, status, _ = os.wait4(waiting, 0)
    if not cancelled and not status:
        return turn
    os.close(turn)
    if cancelled:
        return -1
    raise SandboxError("a command that nothing confines cannot wait for its turn")


def _follow(command: Command, root: Root, restraint: Restraint, control: _socket.socket) -> Result:
    """Run the command to its end, and end what it leaves running."""
    import time

    started = time.monotonic()
    reports, answers = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.close(reports)
            _become(command, root, restraint, answers)
        finally:
            os._exit(1)
    os.close(answers)
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


def _become(command: Command, root: Root, restraint: Restraint, answers: int) -> None:
    """In the child: the chroot, then limits, directory, user, capabilities and exec. Returns only when that fails."""
    try:
        os.setsid()
        process.leave_keyrings()
        bounding = capabilities.bounding()
        keep = process.kept_capabilities(command.security, bounding) & capabilities.held() & ~_FORBIDDEN
        process.limit_capabilities(bounding, keep)
        program = restraint.apply()
        # From here on an import would execute the image's files with all privileges.
        sys.path.clear()
        sys.meta_path.clear()
        os.chroot(root.path)
        os.chdir("/")
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        if answers > 3:
            syscalls.close_range(3, answers - 1)
        syscalls.close_range(answers + 1, 0xFFFFFFFF)
        process.own_pipes([1, 2], command.uid)
        process.set_limits(command.ulimits)
        inside = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        process.enter_directory(inside, command)
        os.close(inside)
        process.become_user(command, keep, program)
        process.execute(command)
    except process.StartError as error:
        os.write(answers, b"start:" + report(str(error)))
    except BaseException as error:  # without a report a defect would look like the command's own failure
        os.write(answers, b"set-up:" + report(describe(error)))


class _Unwanted(Exception):
    """The client has hung up."""


def _checking(control: _socket.socket) -> Callable[[], None]:
    """What raises _Unwanted once the client has hung up."""
    import select

    poll = select.poll()
    poll.register(control.fileno(), select.POLLIN)

    def check() -> None:
        if poll.poll(0):
            raise _Unwanted

    return check


def _wait(child: int, control: _socket.socket) -> bool:
    """Wait for a child's end; kill it, and say so, if the client hangs up."""
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
