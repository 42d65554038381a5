"""Work in a process of its own: for users that are not root, and for programs of images.

What needs a user namespace (steps, unpacked layers) needs a process without threads to enter it, which one that imports
builder need not be. The worker, `builder.cli.worker`, enters the namespace where that is needed and calls `serve`. Both
are the same program, so that the request (a function and its arguments), events and the outcome travel as pickles, on
pipes; the worker's standard streams stay free.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, BinaryIO, TypeVar

from builder.errors import BuilderError, Interrupted
from builder.progress import Event, Reporter

_Asked = TypeVar("_Asked")
_Got = TypeVar("_Got")

_PROGRAM = "builder.cli.worker"
_PIECE = 1 << 16
_LOOK = 0.1  # seconds between two looks whether the worker has ended
_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def report_apart(
    function: Callable[[_Asked, Reporter, BinaryIO], _Got], asked: _Asked, report: Reporter, stdin: BinaryIO | None
) -> _Got:
    """What a function returns, called in a worker with a reporter and its standard input, which is fed from `stdin`.
    Events are reported by the calling thread. Raises what it raises."""
    with _Worker(function, asked, reports=True, stdin=subprocess.PIPE) as worker:
        worker.feed(stdin)
        result: _Got = worker.outcome(report)
    return result


def call_apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a module of ours returns, called in a worker. Raises what it raises."""
    with _Worker(function, *arguments, stdin=subprocess.DEVNULL) as worker:
        return worker.outcome()


def run_apart(
    function: Callable[..., Any], *arguments: Any, data: bytes, timeout: float | None
) -> tuple[Any, bytes, bytes]:
    """What a function returns, and what it wrote to descriptors 1 and 2; it reads `data` from 0. Raises what it raises,
    and subprocess.TimeoutExpired when it takes longer than `timeout` seconds."""
    pipe = subprocess.PIPE
    with _Worker(function, *arguments, stdin=pipe, stdout=pipe, stderr=pipe) as worker:
        worker.patience = 1.0
        out, err = worker.process.communicate(data, timeout=timeout)
        return worker.outcome(), out, err


class _Worker:
    """A worker process that calls a function; with `reports` that gets a reporter and standard input as well. Leaving
    the block before there is an outcome ends it."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, reports: bool = False, **streams: int) -> None:
        request = pickle.dumps((function, arguments, reports))
        self._over = False
        self._unread: Exception | None = None  # why its standard input could not be read
        self.patience = 10.0  # seconds that it may take to end when it is told to
        asked, asking = os.pipe()
        told, telling = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", _PROGRAM, str(asked), str(telling)],
                pass_fds=[asked, telling],
                env={**os.environ, "PYTHONPATH": _search_path()},
                **streams,  # type: ignore[call-overload]  # these are stdin, stdout and stderr
            )
        except BaseException:
            os.close(asking)
            os.close(told)
            raise
        finally:
            os.close(asked)
            os.close(telling)
        self._messages = open(told, "rb")  # noqa: SIM115  # __exit__ closes it
        self._start(lambda: _write(asking, request))

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._over:
            self.process.terminate()
            if not self._ends():  # its steps die with it, and the next one tidies up
                self.process.kill()
        self._messages.close()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        self.process.wait()
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()

    def _ends(self) -> bool:
        """Whether it ends in time. Its messages are read meanwhile: it cannot end while it waits to tell of output."""
        end = time.monotonic() + self.patience
        messages = self._messages.fileno()
        readable = select.poll()
        readable.register(messages, select.POLLIN)
        while self.process.poll() is None:
            if time.monotonic() > end:
                return False
            if readable.poll(_LOOK * 1000) and not os.read(messages, _PIECE):
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(_LOOK)
        return True

    def _start(self, target: Callable[[], None]) -> None:
        threading.Thread(target=target, daemon=True).start()

    def feed(self, stream: BinaryIO | None) -> None:
        """Give it what a stream holds as its standard input. An error of the stream ends it, and is its outcome."""
        into = self.process.stdin
        assert into is not None

        def copy() -> None:
            try:
                _copy(stream, into)
            except Exception as error:
                self._unread = error
                self.process.terminate()  # its input stays open: an end would make half of a stream the whole

        self._start(copy)

    def outcome(self, report: Reporter | None = None) -> Any:
        """Report the events until the end; what the function returned. Raises what it raised."""
        while True:
            try:
                message = pickle.load(self._messages)
            except (EOFError, pickle.UnpicklingError):  # the latter where it ended in the middle of a message
                self._over = True
                status = self.process.wait()
                message = BuilderError(
                    f"the worker process ended with status {status}", remedy="see what it wrote to standard error"
                )
            self._over = not isinstance(message, Event)
            if self._over and self._unread is not None:
                raise self._unread
            if isinstance(message, _Returned):
                return message.value
            if isinstance(message, BaseException):
                raise message
            if report is not None:
                report(message)


class _Returned:
    """The last message of a worker: what the function returned."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _search_path() -> str:
    given = os.environ.get("PYTHONPATH")
    return f"{_PACKAGES}{os.pathsep}{given}" if given else _PACKAGES


def _write(descriptor: int, data: bytes) -> None:
    with suppress(OSError), open(descriptor, "wb") as file:  # a worker that has ended says why itself
        file.write(data)


def _copy(stream: BinaryIO | None, into: IO[bytes]) -> None:
    """Write all of a stream, or as much as is wanted. Raises what reading it raises, and leaves `into` open then."""
    while stream is not None and (data := stream.read(_PIECE)):
        try:
            into.write(data)
        except BrokenPipeError:  # a worker that has ended says why itself
            break
    with suppress(BrokenPipeError):
        into.close()


def serve(prepare: Callable[[], None], requests: int, outcomes: int) -> None:
    """In the worker: `prepare`, then do what is asked for on one descriptor, and tell of it on the other."""
    signal.signal(signal.SIGTERM, _interrupt)
    lock = threading.Lock()
    with open(requests, "rb") as asked, open(outcomes, "wb", buffering=0) as telling:

        def send(message: object) -> None:
            with lock:
                telling.write(_portable(message))

        def report(event: Event) -> None:
            try:
                send(event)
            except OSError:  # whoever asked is gone
                os.kill(os.getpid(), signal.SIGTERM)

        try:
            function, arguments, reports = pickle.load(asked)
            asked.close()
            for descriptor in (requests, outcomes):
                with suppress(OSError):
                    os.set_inheritable(descriptor, False)
            prepare()
            outcome: object = _Returned(function(*arguments, *((report, sys.stdin.buffer) if reports else ())))
        except KeyboardInterrupt:
            outcome = Interrupted("interrupted")
        except Exception as error:
            outcome = error
        with suppress(OSError):
            send(outcome)


def _portable(message: object) -> bytes:
    """A message's pickle; of an error that has none, what can be kept of it."""
    try:
        data = pickle.dumps(message)
        if isinstance(message, Exception):
            pickle.loads(data)
    except Exception as problem:
        if isinstance(message, BuilderError):
            kept = BuilderError(message.cause, place=message.place, remedy=message.remedy, details=message.details)
            return pickle.dumps(kept)
        told = message if isinstance(message, Exception) else problem
        return pickle.dumps(BuilderError(f"{type(told).__name__}: {told}"))
    return data


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
