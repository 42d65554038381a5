"""A command's process as the helper sees it: forked ahead of its command, handed it, watched, asked how it ended."""

from __future__ import annotations

import _socket
import marshal
import os
import time

from . import cgroups, namespaces, syscalls
from .command import Profile, Result
from .messages import send_descriptors
from .step import Step, read_reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .helper import Helper

_SIGKILL = 9


class Running:
    """Process 1 of a new PID namespace: when it ends the kernel kills what it left running, as under runc.

    Forked for `profile`, it sets up what depends on that alone, and waits for its command. `name` is unique among the
    processes of all helpers. Raises SandboxError, OSError.
    """

    def __init__(self, helper: Helper, profile: Profile, name: str) -> None:
        self.profile = profile
        self.group = cgroups.ControlGroup(name, profile) if cgroups.needed(profile) else None
        self._reports, report = os.pipe2(os.O_CLOEXEC)
        self._commands, theirs = _socket.socketpair()
        self._pid = namespaces.fork_into_pid_namespace(helper.pid_namespace)
        if self._pid == 0:
            try:
                _close_all_but(theirs.fileno(), report)
                Step(helper, profile, theirs, report, self.group).run()
            finally:
                os._exit(1)
        os.close(report)
        theirs.close()
        self._control: _socket.socket | None = None
        self._cancelled = False

    def start(self, descriptors: list[int]) -> bool:
        """Give it its command: the client's socket, the command and its streams, see `client`. They stay open here.

        False if it has ended meanwhile, for a reason that `finish` tells.
        """
        self._control = _socket.socket(fileno=os.dup(descriptors[0]))
        self._started = time.monotonic()
        self.ended = os.pidfd_open(self._pid)
        try:
            send_descriptors(self._commands, b"r", descriptors[1:])
        except OSError:
            return False
        finally:
            self._commands.close()
        return True

    def discard(self) -> int:
        """Do without it: it ends because nothing will come. Returns its number, for waiting until it has."""
        self._commands.close()
        os.close(self._reports)
        if self._control is not None:
            self._control.close()
            os.close(self.ended)
        return self._pid

    @property
    def control(self) -> int:
        """The descriptor on which the client sends numbers of signals, or hangs up."""
        assert self._control is not None
        return self._control.fileno()

    def pass_signals(self) -> bool:
        """Send it the signals that the client asks for; if the client is gone, kill it. Whether more can follow."""
        assert self._control is not None
        try:
            numbers = self._control.recv(64) or bytes([_SIGKILL])
        except ConnectionError:
            numbers = bytes([_SIGKILL])
        for number in numbers:
            os.kill(self._pid, number)
        self._cancelled = _SIGKILL in numbers
        return not self._cancelled

    def finish(self) -> None:
        """Answer the client, now that the process has ended."""
        assert self._control is not None
        os.close(self.ended)
        _, status, usage = os.wait4(self._pid, 0)
        duration = time.monotonic() - self._started
        mount_points, error, setup_failed = read_reports(self._reports)
        os.close(self._reports)
        code = os.waitstatus_to_exitcode(status)
        result = Result(
            None if error or code < 0 else code,
            signal=-code if code < 0 else 0,
            error=error,
            setup_failed=setup_failed,
            cancelled=self._cancelled,
            duration=duration,
            user_time=usage.ru_utime,
            system_time=usage.ru_stime,
            max_memory=usage.ru_maxrss * 1024,
            mount_points=mount_points,
        )
        if self.group:
            result.out_of_memory = self.group.out_of_memory()
            self.group.remove()
        answer(self._control, result)


def answer(control: _socket.socket, result: Result) -> None:
    """Send the result to the client, if that is still there, and hang up: that ends the answer."""
    try:
        control.sendall(marshal.dumps(result.pack()))
    except OSError:
        return
    finally:
        control.close()


def _close_all_but(*kept: int) -> None:
    """Close what a fork inherited: descriptors of other steps, which would hide from the client that those ended."""
    first = 3
    for descriptor in sorted(kept):
        if descriptor > first:
            syscalls.close_range(first, descriptor - 1)
        first = descriptor + 1
    syscalls.close_range(first, 0xFFFFFFFF)
