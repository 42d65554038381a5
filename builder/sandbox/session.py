"""A command that somebody sits in front of: its standard input, its terminal, and the signals that reach the caller.

Nothing of the caller's reaches the command but bytes: it gets pipes, or a terminal of its own (`terminal`), never a
descriptor that it could open again as a file of the host or push input into.
"""

from __future__ import annotations

import _socket
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from .messages import receive_descriptors
from .terminal import get_size, set_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

FORWARDED = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
_PATIENCE = 3  # interrupts that a command may leave unanswered, as with `docker run`
_CHUNK = 65536
_HELD = 1 << 20  # bytes of input that wait for the command
_DEFAULT_SIZE = (24, 80)
_LAST_OUTPUT = 200  # milliseconds to wait for what a terminal still holds


class Session:
    """Where a command's input comes from and its output goes: descriptors of the caller's, which stay open.

    - `stdin`: None for none. It is read until its end, or the command's.
    - `stdout`, `stderr`: everything goes to `stdout` if the command has a terminal.
    - `terminal`: the command gets one, with the size of the one at `stdout` or `stdin`; what is read from `stdin` is
      typed there. A terminal at `stdin` is in raw mode meanwhile, and afterwards as it was; if it hangs up, so does the
      command's.
    - Signals (FORWARDED) go to the command if this runs in the main thread; after the third SIGINT or SIGTERM that it
      leaves unanswered it is killed. A change of the window's size is passed on.

    For one command only: `Sandbox.attach` runs it.
    """

    def __init__(self, *, stdin: int | None = None, stdout: int = 1, stderr: int = 2, terminal: bool = False) -> None:
        self.stdin = stdin
        self.terminal = terminal
        self._targets = {1: stdout, 2: stderr}
        self._sink = -1  # where the input goes: a pipe, or the master of the terminal, which is an output, too
        self._outputs: dict[int, int] = {}
        self._console: _socket.socket | None = None
        self._pending = b""
        self._at_end = False
        self._interrupts = 0
        self._is_keyboard = stdin is not None and os.isatty(stdin)

    def size(self) -> tuple[int, int] | None:
        """The rows and columns that the command's terminal is to have; None if it gets none."""
        if not self.terminal:
            return None
        for descriptor in (self._targets[1], self.stdin):
            with suppress(OSError):
                size = get_size(descriptor) if descriptor is not None else (0, 0)
                if all(size):
                    return size
        return _DEFAULT_SIZE

    def open(self) -> list[int]:
        """Make the command's end of the input or of the way to its terminal; the caller closes it when it is sent."""
        if self.terminal:
            self._console, theirs = _socket.socketpair()
            return [theirs.detach()]
        if self.stdin is None:
            return []
        read, self._sink = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._sink, False)
        return [read]

    def close(self) -> None:
        self._close_sink()
        if self._console is not None:
            self._console.close()
            self._console = None

    def follow(self, control: _socket.socket, outputs: dict[int, int]) -> bytes:
        """Pass everything on until the helper hangs up; what it has answered. `outputs` are pipes and their streams.

        Raises OSError where the output cannot be written: nobody is there to see it.
        """
        self._outputs = dict(outputs)
        with _raw(self.stdin if self.terminal and self._is_keyboard else None), _signals() as woken:
            return self._follow(control, woken)

    def _follow(self, control: _socket.socket, woken: int) -> bytes:
        answer = b""
        while True:
            ready = self._wait([control.fileno(), woken, *self._outputs])
            for descriptor in [one for one in self._outputs if one in ready]:
                if not self._copy(descriptor):
                    self._leave(descriptor)
            if self._console is not None and self._console.fileno() in ready:
                self._accept()
            elif self._sink in ready:
                self._feed()
            if self.stdin is not None and self.stdin in ready:
                self._read_input()
            if woken in ready:
                self._pass_signals(os.read(woken, _CHUNK), control)
            if control.fileno() in ready:
                data = _receive(control)
                answer += data
                if not data:
                    self._drain()
                    return answer

    def _wait(self, reading: list[int]) -> set[int]:
        poll = select.poll()
        for descriptor in reading:
            poll.register(descriptor, select.POLLIN)
        if self._console is not None:
            poll.register(self._console.fileno(), select.POLLIN)
        if self._sink >= 0:
            events = select.POLLOUT if self._pending else 0
            if self._sink in reading:
                events |= select.POLLIN
            poll.register(self._sink, events)
        wants_input = self._sink >= 0 or self._console is not None
        if self.stdin is not None and wants_input and not self._at_end and len(self._pending) < _HELD:
            poll.register(self.stdin, select.POLLIN)
        return {descriptor for descriptor, _ in poll.poll()}

    def _accept(self) -> None:
        """Take the terminal that the command's process has made."""
        assert self._console is not None
        data, descriptors = receive_descriptors(self._console, 1, 1)
        self._console.close()
        self._console = None
        if data:
            self._sink = descriptors[0]
            self._outputs[self._sink] = 1
            os.set_inheritable(self._sink, False)
            os.set_blocking(self._sink, False)
            self._resize()  # it may have changed since it was asked for

    def _leave(self, descriptor: int) -> None:
        """Nothing comes from an output any more; a terminal that nobody has open takes no input, either."""
        del self._outputs[descriptor]
        if descriptor == self._sink:
            self._close_sink()

    def _copy(self, source: int) -> bool:
        """Pass on a piece of output; whether there can be more."""
        try:
            data = os.read(source, _CHUNK)
        except BlockingIOError:
            return True
        except OSError:  # EIO: nobody has the other end of the terminal open
            data = b""
        _write_all(self._targets[self._outputs[source]], data)
        return bool(data)

    def _read_input(self) -> None:
        assert self.stdin is not None
        try:
            data = os.read(self.stdin, _CHUNK)
        except OSError:  # EIO: the terminal is gone
            data = b""
        self._pending += data
        if data:
            return
        self._at_end = True
        if self.terminal and not self._is_keyboard:
            self._pending += b"\x04"  # what one types for it
        elif self.terminal or not self._pending:
            self._close_sink()

    def _feed(self) -> None:
        """Give the command what waits for it."""
        try:
            if self._pending:
                self._pending = self._pending[os.write(self._sink, self._pending) :]
            elif not self.terminal:  # an error was reported: nobody reads
                self._close_sink()
        except BlockingIOError:
            return
        except OSError:
            self._at_end, self._pending = True, b""
        if self._at_end and not self._pending and not self.terminal:
            self._close_sink()

    def _close_sink(self) -> None:
        if self._sink >= 0:
            self._outputs.pop(self._sink, None)
            os.close(self._sink)
            self._sink = -1

    def _pass_signals(self, numbers: bytes, control: _socket.socket) -> None:
        for number in numbers:
            if number not in FORWARDED:
                self._resize()
                continue
            self._interrupts += number in (signal.SIGINT, signal.SIGTERM)
            with suppress(OSError):  # it has just ended
                if self._interrupts >= _PATIENCE:
                    control.shutdown(_socket.SHUT_WR)
                else:
                    control.send(bytes([number]))

    def _resize(self) -> None:
        size = self.size()
        if size is not None and self._sink >= 0:
            with suppress(OSError):
                set_size(self._sink, size)

    def _drain(self) -> None:
        """Every process is gone, so what is left now is all there will be."""
        for descriptor in self._outputs:
            os.set_blocking(descriptor, False)
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            while poll.poll(_LAST_OUTPUT if self.terminal else 0) and self._copy(descriptor):
                pass


@contextmanager
def _raw(descriptor: int | None) -> Iterator[None]:
    """A terminal in raw mode: every key is the command's."""
    if descriptor is None:
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)
        yield
    finally:
        with suppress(termios.error):  # it is gone
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _signals() -> Iterator[int]:
    """A descriptor from which the numbers of signals can be read, which then do nothing else. Only the main thread gets
    any."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    handlers: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
    before = -1
    try:
        if threading.current_thread() is threading.main_thread():
            before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
            for number in (*FORWARDED, signal.SIGWINCH):
                handlers[number] = signal.signal(number, _nothing)
        yield read
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if handlers:
            signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)


def _nothing(number: int, frame: FrameType | None) -> None:
    """The number is in the pipe already."""


def _receive(control: _socket.socket) -> bytes:
    try:
        return control.recv(_CHUNK)
    except ConnectionError:
        return b""


def _write_all(descriptor: int, data: bytes) -> None:
    """Write everything, also where somebody has made the descriptor non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
