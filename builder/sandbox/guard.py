"""The guard of one command: the process above it, which tells the client how it ended.

The command itself is process 1, as under runc: when it ends the kernel kills what it left running. The guard's only
purpose is to be alive: it dies with the helper (PDEATHSIG), is the first process of a namespace that the kernel then
empties, and never executes anything that could take the signal away. It sees the client go by the command's socket.
"""

from __future__ import annotations

import _socket
import marshal
import os
import select
import time

from . import cgroups, syscalls
from .command import Profile, Result, SandboxError
from .messages import STREAMS, describe, frame, receive_body, receive_descriptors, send_descriptors
from .step import Step, read_reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .helper import Helper

_SIGKILL = 9


class Guard:
    """Sets up what `profile` says, waits for a command on `requests`, runs it and answers on the command's socket.

    `name` is unique among the guards of all helpers.
    """

    def __init__(self, helper: Helper, profile: Profile, requests: _socket.socket, name: str) -> None:
        self.helper = helper
        self.profile = profile
        self.requests = requests
        self.name = name
        self.group: cgroups.ControlGroup | None = None

    def run(self) -> None:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, _SIGKILL)
        failure = None
        try:
            child, step, reports = self._start()
        except (SandboxError, OSError) as error:
            failure = Result(error=describe(error), setup_failed=True)
        data, descriptors = receive_descriptors(self.requests, 1, 1 + STREAMS)
        if not data:
            return  # the helper has no use for this guard any more
        control = _socket.socket(fileno=descriptors[0])
        body = receive_body(control)
        if body is None:
            return  # the client is gone
        if failure is None:
            started = time.monotonic()
            _hand_over(step, body, descriptors[1:])
            for descriptor in descriptors[1:]:
                os.close(descriptor)
            failure = self._follow(child, reports, control, started)
        answer(control, failure)

    def _start(self) -> tuple[int, _socket.socket, int]:
        """Fork the process that becomes the command: its number, the socket that it waits on, its reports."""
        if cgroups.needed(self.profile):
            self.group = cgroups.ControlGroup(self.name, self.profile)
        reports, report = os.pipe2(os.O_CLOEXEC)
        ours, theirs = _socket.socketpair()
        syscalls.unshare(syscalls.CLONE_NEWPID)
        child = os.fork()
        if child == 0:
            try:
                os.close(reports)
                ours.close()
                Step(self.helper, self.profile, theirs, report, self.group).run()
            finally:
                os._exit(1)
        os.close(report)
        theirs.close()
        return child, ours, reports

    def _follow(self, child: int, reports: int, control: _socket.socket, started: float) -> Result:
        cancelled = _wait(child, control)
        _, status, usage = os.wait4(child, 0)
        duration = time.monotonic() - started
        mount_points, error, setup_failed = read_reports(reports)
        code = os.waitstatus_to_exitcode(status)
        result = Result(
            None if error or code < 0 else code,
            signal=-code if code < 0 else 0,
            error=error,
            setup_failed=setup_failed,
            cancelled=cancelled,
            duration=duration,
            user_time=usage.ru_utime,
            system_time=usage.ru_stime,
            max_memory=usage.ru_maxrss * 1024,
            mount_points=mount_points,
        )
        if self.group:
            result.out_of_memory = self.group.out_of_memory()
            self.group.remove()
        return result


def _hand_over(step: _socket.socket, body: bytes, streams: list[int]) -> None:
    """Give the command to its process. One that has ended meanwhile has reported why."""
    try:
        send_descriptors(step, b"r", streams)
        step.sendall(frame(body))
    except OSError:
        return
    finally:
        step.close()


def _wait(child: int, control: _socket.socket) -> bool:
    """Wait for the command's end. The client sends numbers of signals for it; if it hangs up, kill the command and say
    so."""
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(control.fileno(), select.POLLIN)
    cancelled = False
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if ended in ready:
            os.close(ended)
            return cancelled
        for number in _signals(control):
            os.kill(child, number)
            if number == _SIGKILL:
                cancelled = True
                poll.unregister(control.fileno())


def _signals(control: _socket.socket) -> bytes:
    try:
        return control.recv(64) or bytes([_SIGKILL])
    except ConnectionError:
        return bytes([_SIGKILL])


def answer(control: _socket.socket, result: Result) -> None:
    """Send the result to the client, if that is still there, and hang up: that ends the answer, before this process
    has to be taken down."""
    try:
        control.sendall(marshal.dumps(result.pack()))
    except OSError:
        return
    finally:
        control.close()
