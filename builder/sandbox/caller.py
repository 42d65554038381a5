"""What a command's caller has of its own while somebody sits in front of it: its terminal, and the signals it gets."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

FORWARDED = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip


def has_terminal() -> bool:
    """Whether this process has a controlling terminal. One that hangs up is taken from its session."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@contextmanager
def raw(descriptor: int | None) -> Iterator[None]:
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
def signals() -> Iterator[int]:
    """A descriptor from which the numbers of signals can be read, which then do nothing else. Only the main thread gets
    any."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    handlers: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
    before = -1
    try:
        if threading.current_thread() is threading.main_thread():
            before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
            for number in (*FORWARDED, signal.SIGWINCH):
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue
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
