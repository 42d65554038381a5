"""The helper: one single-threaded process that forks a guard for each command, one of them ahead.

A request is a `Profile` that carries descriptors: the command's own socket, and then its streams (`messages.STREAMS`).
They go to a guard, which reads the `Command` from that socket, starts it, and answers with the `Result`.

    client ── helper ── guard (process 1 of an outer PID namespace) ── command (process 1 of an inner one)

Half of a command's set-up depends on its profile alone. So after each request the helper forks a spare guard for the
same profile, which gets that half done on another processor while the command runs.

The helper ends when the client's end of the socket closes, which no kind of death prevents; the guards die with it.
"""

from __future__ import annotations

import _socket
import gc
import marshal
import os
import sys

from . import capabilities, cgroups, namespaces, syscalls
from .command import PROTECT, Profile, Result
from .guard import Guard, answer
from .messages import STREAMS, describe, receive_descriptors, send_descriptors
from .seccomp import build_filter

_MOST = 4096  # bytes of a profile


class Spare:
    """A guard that waits for its command on the other end of `socket`."""

    def __init__(self, profile: Profile, socket: _socket.socket) -> None:
        self.profile = profile
        self.socket = socket


class Helper:
    """Serves requests on `socket` until its other end is closed."""

    def __init__(self, socket: _socket.socket) -> None:
        self.socket = socket
        self.count = 0
        self.filter = build_filter(capabilities.DEFAULT, syscalls.MACHINE)
        self.bounding = capabilities.bounding()
        self.user_namespace = namespaces.in_user_namespace()
        self.pid_namespace = namespaces.own_pid_namespace(socket)
        self.spare: Spare | None = None

    def serve(self) -> None:
        while True:
            data, descriptors = receive_descriptors(self.socket, _MOST, 1 + STREAMS)
            if not data:
                return
            profile = Profile.unpack(marshal.loads(data))
            try:
                self._hand_over(profile, descriptors)
            except OSError as error:
                control = _socket.socket(fileno=os.dup(descriptors[0]))
                answer(control, Result(error=describe(error), setup_failed=True))
            for descriptor in descriptors:
                os.close(descriptor)
            self._reap()
            # A control group would be left over if its guard is killed while it waits.
            if not cgroups.needed(profile):
                self._make_spare(profile)

    def _hand_over(self, profile: Profile, descriptors: list[int]) -> None:
        """Give a request to the spare guard, or to a new one if that is for another profile or has died."""
        spare, self.spare = self.spare, None
        if spare is not None:
            try:
                if spare.profile == profile:
                    send_descriptors(spare.socket, b"r", descriptors)
                    return
            except OSError:
                pass
            finally:
                spare.socket.close()
        new = self._fork(profile, descriptors)
        send_descriptors(new.socket, b"r", descriptors)
        new.socket.close()

    def _make_spare(self, profile: Profile) -> None:
        try:
            self.spare = self._fork(profile, [])
        except OSError:
            return  # then the next request forks its own, and says what is wrong

    def _fork(self, profile: Profile, unwanted: list[int]) -> Spare:
        """Fork a guard, which closes the descriptors that it is not to inherit."""
        self.count += 1
        name = f"{os.getpid()}-{self.count}"
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        child = namespaces.fork_into_pid_namespace(self.pid_namespace)
        if child == 0:
            status = 1
            try:
                self.socket.close()
                ours.close()
                for descriptor in unwanted:
                    os.close(descriptor)
                Guard(self, profile, theirs, name).run()
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        return Spare(profile, ours)

    def _reap(self) -> None:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


def _protect() -> None:
    """Execute this again from a read-only mount, in a new mount namespace, which a user namespace can always make."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    program = syscalls.read_only_copy(os.open(os.path.realpath(sys.executable), os.O_PATH | os.O_CLOEXEC))
    os.set_inheritable(3, True)
    os.execve(f"/proc/self/fd/{program}", sys.orig_argv[:-1], os.environ)


def main() -> None:
    """Serve on descriptor 3."""
    if sys.argv[-1] == PROTECT:
        _protect()
    gc.disable()
    socket = _socket.socket(fileno=3)
    os.set_inheritable(3, False)
    Helper(socket).serve()
