"""A command's process as the helper sees it: forked ahead of its command, handed it, watched, asked how it ended."""

from __future__ import annotations

import _socket
import errno
import marshal
import os
import time

from . import cgroups, namespaces, syscalls
from .command import Profile, Result
from .messages import COMMAND, FORESEEN, send_descriptors
from .step import Reports, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .helper import Helper

_SIGKILL = 9
_PATIENCE = (0.001, 0.01, 0.02)  # seconds; the kernel may close in the background what was on its way in a socket
_LEFT_OPEN = "a file of its root is still open for writing: it was passed to a process that has not ended with it"


class Foreseen:
    """A command that will probably come next, under the name `root`: a file with it, and the descriptor that tells the
    client that its layers are open."""

    def __init__(self, profile: Profile, root: str, descriptors: list[int]) -> None:
        self.profile = profile
        self.root = root
        self.descriptors = descriptors

    def close(self) -> None:
        """Do without it, or let those have it to whom it was sent."""
        for descriptor in self.descriptors:
            os.close(descriptor)


class Running:
    """Process 1 of a new PID namespace: when it ends the kernel kills what it left running, as under runc.

    Forked for `profile`, it sets up what depends on that alone, and waits for its command. `name` is unique among the
    processes of all helpers. Raises SandboxError, OSError.
    """

    def __init__(self, helper: Helper, profile: Profile, name: str) -> None:
        self.profile = profile
        self.group = cgroups.ControlGroup(name, profile) if cgroups.needed(profile) else None
        try:
            self._commands, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
            try:
                self._pid = namespaces.fork_into_pid_namespace(helper.pid_namespace)
                if self._pid == 0:
                    try:
                        _close_all_but(theirs.fileno(), *helper.shared)
                        Step(helper, profile, theirs, self.group).run()
                    finally:
                        os._exit(1)
            except BaseException:
                self._commands.close()
                raise
            finally:
                theirs.close()
        except BaseException:
            if self.group:
                self.group.remove()
            raise
        self.root = ""  # the name of the root that it has made
        self.foreseen: Foreseen | None = None  # what is to be done when it has ended
        self._control: _socket.socket | None = None
        self.ended = -1
        self._sealed = -1  # its root, of which nothing is written any more
        self._cancelled = False
        self._waited_for = False

    def foresee(self, foreseen: Foreseen) -> None:
        """Have it make the root of a command, see `client`. If it has ended, `start` tells."""
        self.root = foreseen.root
        try:
            send_descriptors(self._commands, FORESEEN, foreseen.descriptors)
        except OSError:
            return

    def start(self, descriptors: list[int]) -> bool:
        """Give it its command: the command, the client's socket and its streams, see `client`. They stay open here.

        False if it has ended meanwhile, for a reason that `finish` tells. Raises OSError; `discard` it then.
        """
        command, control, *streams = descriptors
        self._control = _socket.socket(fileno=os.dup(control))
        self._started = time.monotonic()
        self.ended = os.pidfd_open(self._pid)
        try:
            send_descriptors(self._commands, COMMAND, [command, *streams])
        except OSError:
            return False
        return True

    def discard(self) -> None:
        """Do without it: it ends because nothing will come. `is_gone` tells when."""
        self._commands.close()
        if self._control is not None:
            self._control.close()
        if self.ended >= 0:
            os.close(self.ended)

    def is_gone(self) -> bool:
        """Whether one that was discarded, killed or finished has ended; if so, nothing of it is left over."""
        if not self._waited_for:
            self._waited_for = bool(os.waitpid(self._pid, os.WNOHANG)[0])
        return self._waited_for and (self.group is None or self.group.remove())

    def kill(self) -> None:
        """Have it end. `is_gone` tells when."""
        os.kill(self._pid, _SIGKILL)

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

    def finish(self) -> Result:
        """How it ended, now that it has. What the kernel still holds of it, `is_gone` removes."""
        os.close(self.ended)
        _, status, usage = os.wait4(self._pid, 0)
        self._waited_for = True
        duration = time.monotonic() - self._started
        reports = Reports(self._commands)
        self._commands.close()
        sealed = reports.root < 0 or self.profile.security != "sandbox" or _seal(reports.root)
        if not sealed and not reports.error:
            reports.error, reports.setup_failed = _LEFT_OPEN, True
        code = os.waitstatus_to_exitcode(status)
        result = Result(
            None if reports.error or code < 0 else code,
            signal=-code if code < 0 else 0,
            error=reports.error,
            setup_failed=reports.setup_failed,
            cancelled=self._cancelled,
            duration=duration,
            user_time=usage.ru_utime,
            system_time=usage.ru_stime,
            max_memory=usage.ru_maxrss * 1024,
            mount_points=reports.mount_points,
        )
        if self.group:
            result.out_of_memory = self.group.out_of_memory()
            self.group.remove()
        self._sealed = reports.root
        return result

    def answer(self, result: Result) -> None:
        """Answer the client, and let go of the root."""
        assert self._control is not None
        answer(self._control, result)
        if self._sealed >= 0:
            os.close(self._sealed)  # unmounts it, for which nobody has to wait


def _seal(root: int) -> bool:
    """Make a root read-only, whose processes are gone, for those to whom they have passed descriptors of it: what is in
    it becomes a layer. False if one of them has a file open for writing.

    A kernel that refuses it for another reason, as by a policy, leaves roots as writable as they are.
    """
    for seconds in (*_PATIENCE, 0):
        try:
            syscalls.make_read_only(root)
        except OSError as error:
            if error.errno == errno.EBUSY:
                time.sleep(seconds)
                continue
        return True
    return False


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
