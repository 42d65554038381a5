"""The caller's side of the sandbox: `Sandbox.run` from as many threads as there are steps at once."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` makes enumerations of its numbers, which takes longer
import _socket
import marshal
import os
import sys
import threading
from contextlib import contextmanager, suppress

from . import namespaces
from .command import PROTECT, Command, Result, SandboxError
from .messages import send_descriptors, write_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .session import Session

STDOUT, STDERR = 1, 2
_CHUNK = 65536
# Executed by the helper's interpreter: the package without its `__init__`, which would load the whole builder.
_BOOTSTRAP = """\
import sys
package = sys.modules["builder"] = type(sys)("builder")
package.__path__ = [sys.argv[1]]
from builder.sandbox.helper import main
main()
"""


class Sandbox:
    """Runs commands, each isolated, through a helper process that is started with the first of them.

    Safe to use from several threads. If this process dies, however that happens, the helper and all commands do, too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[_socket.socket] = set()
        self._helper: _socket.socket | None = None
        self._pid = 0
        self._cancelled = False

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self,
        command: Command,
        on_output: Callable[[int, bytes], None],
        meanwhile: Callable[[], object] | None = None,
    ) -> Result:
        """Run a command to its end; `on_output(stream, data)` gets what it writes to STDOUT and STDERR, as it comes.
        `meanwhile` is called once, as soon as the command is on its way.

        Raises SandboxError where no command can run at all. An exception of `on_output` ends the command and goes up.
        """
        with self._started(command, []) as (control, outputs):
            if meanwhile is not None:
                meanwhile()
            return self._follow(control, outputs, on_output) if outputs else Result(cancelled=True)

    def foresee(self, command: Command) -> int:
        """Have the root made of a command that will probably come next, under the name `command.root`: once the command
        that runs has ended, unless that fails, or at once if none runs. Nobody but that may write to its layers any
        more; they may get other names when the descriptor that is returned is at its end. A command that comes under
        this name must be of the same `shape`, over the same directories, whatever their paths are by then. Any other
        takes its way as if nothing had been said.

        Raises SandboxError. That a root cannot be made is said to the command.
        """
        opened, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            with self._lock:
                if not self._cancelled:
                    self._send(command, [theirs])
        except BaseException:
            os.close(opened)
            raise
        finally:
            os.close(theirs)
        return opened

    def attach(self, command: Command, session: Session) -> Result:
        """Run a command to its end with the session's input, output, terminal and signals. Raises SandboxError; OSError
        where its output cannot be written, which ends it."""
        command.terminal = session.size()
        try:
            with self._started(command, session.open()) as (control, outputs):
                return self._result(session.follow(control, outputs)) if outputs else Result(cancelled=True)
        finally:
            session.close()

    def prepare(self) -> None:
        """Start what commands run through, ahead of the first of them. Raises SandboxError."""
        with self._lock:
            if not self._cancelled:
                self._start()

    def _start(self) -> _socket.socket:
        """The helper, started if there is none."""
        if self._helper is None:
            self._reap()
            self._helper, self._pid = _start_helper()
        return self._helper

    @contextmanager
    def _started(self, command: Command, extra: list[int]) -> Iterator[tuple[_socket.socket, dict[int, int]]]:
        """Start a command: its socket, and the pipes with its output by their stream, none if it was cancelled already.
        It is killed with the block's end if it still runs. `extra` is its third stream, which is closed here."""
        control, theirs = _socket.socketpair()
        pipes = [os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)]
        outputs = {pipes[0][0]: STDOUT, pipes[1][0]: STDERR}
        try:
            try:
                with self._lock:
                    cancelled = self._cancelled
                    if not cancelled:
                        self._running.add(control)
                        self._send(command, [theirs.fileno(), pipes[0][1], pipes[1][1], *extra])
            finally:
                theirs.close()
                for descriptor in (pipes[0][1], pipes[1][1], *extra):
                    os.close(descriptor)
            yield control, {} if cancelled else outputs
        finally:
            with self._lock:
                self._running.discard(control)
            control.close()  # the helper sees that and kills the command if it still runs
            for descriptor in outputs:
                os.close(descriptor)

    def _follow(
        self, control: _socket.socket, outputs: dict[int, int], on_output: Callable[[int, bytes], None]
    ) -> Result:
        import select

        poll = select.poll()
        for descriptor in (*outputs, control.fileno()):
            poll.register(descriptor, select.POLLIN)
        answer = b""
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == control.fileno():
                    data = _receive(control)
                    answer += data
                    if not data:
                        # Every process of the step is gone, so what is in the pipes now is all there will be.
                        for output, stream in outputs.items():
                            os.set_blocking(output, False)
                            _drain(output, stream, on_output)
                        return self._result(answer)
                elif data := os.read(descriptor, _CHUNK):
                    on_output(outputs[descriptor], data)
                else:
                    poll.unregister(descriptor)

    def _result(self, answer: bytes) -> Result:
        if answer:
            return Result.unpack(marshal.loads(answer))
        if self._cancelled:
            return Result(cancelled=True)
        return Result(error="the sandbox's helper process ended unexpectedly", setup_failed=True)

    def cancel(self) -> None:
        """End all running commands and refuse new ones; their `run` returns a Result that says `cancelled`."""
        with self._lock:
            self._cancelled = True
            for control in self._running:
                try:
                    control.shutdown(_socket.SHUT_WR)
                except OSError:
                    continue

    def rest(self) -> None:
        """Let the helper end, unless a command runs: no other is expected. Nobody waits for that before `close`."""
        with self._lock:
            if not self._running:
                self._hang_up()

    def close(self) -> None:
        """End what runs, and the helper."""
        self.cancel()
        with self._lock:
            self._hang_up()
            self._reap()

    def _hang_up(self) -> None:
        if self._helper is not None:
            self._helper.close()
            self._helper = None

    def _reap(self) -> None:
        """Wait for the last helper, which has been hung up on."""
        if self._pid:
            with suppress(ChildProcessError):  # this program ignores SIGCHLD
                os.waitpid(self._pid, 0)
            self._pid = 0

    def _send(self, command: Command, descriptors: list[int]) -> None:
        """Hand a request to the helper; start it if there is none or it has died."""
        request = marshal.dumps((command.profile().pack(), command.root))
        body = write_command(command)
        try:
            for _ in range(2):
                helper = self._start()
                try:
                    send_descriptors(helper, request, [body, *descriptors])
                    return
                except OSError:
                    self._hang_up()
        finally:
            os.close(body)
        raise SandboxError("the sandbox's helper process does not start")


def _start_helper() -> tuple[_socket.socket, int]:
    """Start the helper from a read-only mount of the interpreter, see `syscalls.read_only_copy`."""
    from . import syscalls

    namespaces.check_privilege()
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    arguments = [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, package]
    try:
        program = os.open(os.path.realpath(sys.executable), os.O_PATH | os.O_CLOEXEC)
        try:
            tree = syscalls.read_only_copy(program)
            os.close(program)
            program = tree
        except PermissionError:
            # In a user namespace that shares its parent's mounts: the helper does it in a mount namespace of its own.
            arguments.append(PROTECT)
        try:
            pid = os.posix_spawn(
                f"/proc/self/fd/{program}",
                arguments,
                # Interpreters with a shared library may be found by this variable only.
                {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3),
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                ],
                setpgroup=0,
                setsigmask=(),
                setsigdef=default_signals(),
            )
        finally:
            os.close(program)
    except OSError as error:
        ours.close()
        raise SandboxError(f"the sandbox cannot start: {error.filename or 'helper'}: {error.strerror}") from error
    finally:
        theirs.close()
    return ours, pid


def default_signals() -> set[int]:
    """The signals that steps get with their default actions, whatever this program ignores (as under nohup(1))."""
    valid: set[int] = _signal.valid_signals()
    return valid - {_signal.SIGKILL, _signal.SIGSTOP}


def _receive(control: _socket.socket) -> bytes:
    try:
        return control.recv(_CHUNK)
    except ConnectionError:
        return b""


def _drain(descriptor: int, stream: int, on_output: Callable[[int, bytes], None]) -> None:
    try:
        while data := os.read(descriptor, _CHUNK):
            on_output(stream, data)
    except BlockingIOError:
        return
