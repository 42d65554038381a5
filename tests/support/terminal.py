"""Programs on a terminal, as people start them."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from builder.sandbox.terminal import set_size


class Program:
    """A program on a terminal of its own, whose other end this is."""

    def __init__(
        self, arguments: Sequence[str], environ: Mapping[str, str] | None = None, size: tuple[int, int] = (24, 80)
    ) -> None:
        self.pid, self.end = os.forkpty()
        if self.pid == 0:
            try:
                set_size(0, size)
                os.execve(arguments[0], list(arguments), dict(os.environ if environ is None else environ))
            finally:
                os._exit(1)
        self.output = b""
        self._status: int | None = None

    def write(self, text: str) -> None:
        os.write(self.end, text.encode())

    def read_until(self, text: str, seconds: float = 20) -> str:
        """All output so far, which holds `text`."""
        end = time.monotonic() + seconds
        while text.encode() not in self.output:
            ready, _, _ = select.select([self.end], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{text!r} is not in {self.output!r}"
            try:
                self.output += os.read(self.end, 65536)
            except OSError:
                raise AssertionError(f"{text!r} is not in {self.output!r}") from None
        return self.output.decode()

    def status(self) -> int:
        """Its exit status, once it has ended; what it still writes is read."""
        with suppress(OSError):
            while data := os.read(self.end, 65536):
                self.output += data
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def hang_up(self, seconds: float = 15) -> int | None:
        """Take its terminal away; its exit status, if it ends in that time."""
        os.close(self.end)
        self.end = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        end = time.monotonic() + seconds
        while self._status is None and time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        return self._status

    def close(self) -> None:
        if self._status is None and os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.end)
