"""The helper: one single-threaded process that forks the process of each command, one of them ahead.

    client ── helper (process 1 of an outer PID namespace) ── command (process 1 of an inner one)

A request is a `Profile` that carries descriptors: a file with the `Command`, the command's own socket, and its streams
(`messages.STREAMS`). On its socket the client sends numbers of signals, and gets the `Result` at last (`running`).
With the file and one more descriptor it is a command that is foreseen: once the one that runs has ended well, the spare
process makes its root, closes that descriptor when it has its layers open, and is kept for it.

Half of a command's set-up depends on its profile alone. So after each request the helper forks a spare process for the
same profile, which gets that half done on another processor while the command runs.

The helper ends when the client's end of its socket closes, which no kind of death prevents. However it ends itself, the
kernel then kills all that is in its namespace: every command, with whatever that has started.
"""

from __future__ import annotations

import _socket
import gc
import marshal
import os
import select
import sys
import time

from . import capabilities, cgroups, landlock, namespaces, syscalls
from .command import PROTECT, Profile, Result
from .messages import STREAMS, describe, receive_descriptors
from .running import Foreseen, Running, answer
from .seccomp import build_filter

_MOST = 4096  # bytes of a profile
_LAST_PATIENCE = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # seconds between looks


class Helper:
    """Serves requests on `socket` until its other end is closed."""

    def __init__(self, socket: _socket.socket) -> None:
        self.socket = socket
        self.count = 0
        self.filter = build_filter(capabilities.DEFAULT, syscalls.MACHINE)
        self.bounding = capabilities.bounding()
        self.ruleset = landlock.make_ruleset() if landlock.is_able() else -1
        self.shared = (self.ruleset,) if self.ruleset >= 0 else ()  # descriptors that a command's process needs, too
        self.user_namespace = namespaces.in_user_namespace()
        self.name = os.readlink("/proc/self")  # as outside
        self.pid_namespace = namespaces.enter_pid_namespace(socket)
        self.spare: Running | None = None
        self.leaving: list[Running] = []  # that were discarded, killed or finished, and of which something may be left
        self.running: dict[int, Running] = {}  # by the descriptor that tells its end, and by its client's
        self.poll = select.poll()

    def serve(self) -> None:
        requests = self.socket.fileno()
        self.poll.register(requests, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in self.poll.poll()]
            # First, while everything in `ready` is open: later, a new command could get the number of a descriptor that
            # was closed in this very turn, and what was reported for that would be taken for its own.
            if requests in ready and not self._accept():
                return
            for descriptor in ready:
                running = self.running.get(descriptor)
                if running is None:
                    continue  # the request, or it ended in this very turn
                if descriptor == running.ended:
                    self._finish(running)
                elif not running.pass_signals():
                    self.poll.unregister(descriptor)

    def _accept(self) -> bool:
        """Take a request; whether there was one."""
        data, descriptors = receive_descriptors(self.socket, _MOST, 2 + STREAMS)
        if not data:
            return False
        values, root = marshal.loads(data)
        profile = Profile.unpack(values)
        if len(descriptors) == 2:
            self._foresee(Foreseen(profile, root, descriptors))
            return True
        try:
            self._start(profile, root, descriptors)
        except Exception as error:  # also a defect ends this command alone, and none of those that run
            answer(_socket.socket(fileno=descriptors.pop(1)), Result(error=describe(error), setup_failed=True))
        for descriptor in descriptors:
            os.close(descriptor)
        self._forget_what_is_gone()
        # A control group would be left over if its process is killed while it waits.
        if self.spare is None and not cgroups.needed(profile):
            self._make_spare(profile)
        return True

    def _foresee(self, foreseen: Foreseen) -> None:
        """Have a root made when the command that runs has ended; at once if none runs."""
        running = {*self.running.values()}
        if not running:
            self._make_root(foreseen)
        elif len(running) == 1 and not (one := running.pop()).foreseen:
            one.foreseen = foreseen
        else:
            foreseen.close()

    def _make_root(self, foreseen: Foreseen) -> None:
        """Have the spare process make a root, if there is one for this profile."""
        if self.spare is not None and self.spare.profile == foreseen.profile and not self.spare.root:
            self.spare.foresee(foreseen)
        foreseen.close()

    def _start(self, profile: Profile, root: str, descriptors: list[int]) -> None:
        """Hand a command to the spare process, or to a new one if that is for others or has died."""
        spare, self.spare = self.spare, None
        if spare is not None:
            if spare.profile == profile and spare.root in ("", root) and self._hand(spare, descriptors):
                self._follow(spare)
                return
            self._discard(spare)
        new = self._fork(profile)
        self._hand(new, descriptors)  # if it has ended already, it says why
        self._follow(new)

    def _hand(self, running: Running, descriptors: list[int]) -> bool:
        try:
            return running.start(descriptors)
        except BaseException:
            self._discard(running)
            raise

    def _discard(self, running: Running) -> None:
        running.discard()
        self.leaving.append(running)

    def _forget_what_is_gone(self) -> None:
        self.leaving = [running for running in self.leaving if not running.is_gone()]

    def _follow(self, running: Running) -> None:
        for descriptor in (running.ended, running.control):
            self.running[descriptor] = running
            self.poll.register(descriptor, select.POLLIN)

    def _finish(self, running: Running) -> None:
        control = running.control
        for descriptor in (running.ended, control):
            del self.running[descriptor]
            try:
                self.poll.unregister(descriptor)
            except KeyError:
                continue  # the client has hung up before
        result = running.finish()
        if running.foreseen is not None:  # before the client hears of it: it has enough to do then
            if result.exit_status == 0:
                self._make_root(running.foreseen)
            else:
                running.foreseen.close()
        running.answer(result)
        self.leaving.append(running)
        self._forget_what_is_gone()

    def leave(self) -> None:
        """End what still runs, and wait a second at most for the kernel to give up their control groups: those would
        stay until another build needs one."""
        for running in {*self.running.values()}:
            running.kill()
            self.leaving.append(running)
        for seconds in _LAST_PATIENCE:
            self._forget_what_is_gone()
            if not any(running.group for running in self.leaving):
                return
            time.sleep(seconds)

    def _make_spare(self, profile: Profile) -> None:
        try:
            self.spare = self._fork(profile)
        except OSError:
            return  # then the next request forks its own, and says what is wrong

    def _fork(self, profile: Profile) -> Running:
        self.count += 1
        return Running(self, profile, f"{self.name}-{self.count}")


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
    helper = Helper(socket)
    helper.serve()
    helper.leave()
    os._exit(0)  # the client waits for the end, and taking the interpreter apart is most of it
