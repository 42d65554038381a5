"""A command that somebody sits in front of: its standard input, its terminal, and the signals that reach the caller.

Nothing of the caller's reaches the command but bytes: it gets pipes, or a terminal of its own (`terminal`), never a
descriptor that it could open again as a file of the host or push input into.
"""

from __future__ import annotations

import _socket
import os
import select
import signal
import time
from contextlib import suppress

from .caller import FORWARDED, has_terminal, raw, signals
from .messages import receive_descriptors
from .terminal import get_size, set_size

_PATIENCE = 3  # interrupts that a command may leave unanswered, as with `docker run`
_LAST_MOMENTS = 3.0  # seconds that a command has for its end when the caller's terminal is gone
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
      leaves unanswered it is killed. So it is when it outlives a SIGHUP by some seconds and the caller's terminal is
      gone then: as process 1 a command ignores what it has no handler for, and nobody is left to end it. Where there
      was no terminal (a service, a job) a SIGHUP is no more than that. One that the caller ignores (nohup) stays
      ignored. A change of the window's size is passed on.

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
        self._had_terminal = False
        self._hung_up: float | None = None  # until when the command may outlive a SIGHUP
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
        self._had_terminal = has_terminal()
        with raw(self.stdin if self.terminal and self._is_keyboard else None), signals() as woken:
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
            if self._hung_up is not None and time.monotonic() >= self._hung_up:
                self._hung_up = None
                if not has_terminal():
                    _kill(control)
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
        left = None if self._hung_up is None else max(0.0, self._hung_up - time.monotonic()) * 1000
        return {descriptor for descriptor, _ in poll.poll(left)}

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
            if self._interrupts >= _PATIENCE:
                _kill(control)
                continue
            if number == signal.SIGHUP and self._had_terminal and self._hung_up is None:
                self._hung_up = time.monotonic() + _LAST_MOMENTS
            with suppress(OSError):  # it has just ended
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


def _kill(control: _socket.socket) -> None:
    """Have the helper kill the command, which it takes a hang-up of its client for."""
    with suppress(OSError):  # it has just ended
        control.shutdown(_socket.SHUT_WR)


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
