"""Work in a process of its own, for users that are not root.

What needs a user namespace (steps, unpacked layers) needs a process without threads to enter it, which one that imports
builder need not be. The caller starts `builder.cli.worker`, which enters the namespace and calls `serve`. Both are the
same program, so that requests, events and results travel as pickles: the function with its arguments on the worker's
standard input (what follows it there is the build's), events and the outcome on a pipe.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from builder.errors import BuilderError, Interrupted
from builder.progress import Event, Reporter

if TYPE_CHECKING:
    from builder.api.options import BuildOptions, BuildResult

_PROGRAM = "builder.cli.worker"
_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class _Returned:
    """The last message of a worker: what the function returned."""

    def __init__(self, value: Any) -> None:
        self.value = value


def build_apart(options: BuildOptions, report: Reporter, stdin: BinaryIO | None) -> BuildResult:
    """`builder.api.build.build` in a worker. Events are reported by the calling thread. Raises BuilderError."""
    from builder.api.build import build

    result: BuildResult = _call(build, (options,), report, stdin)
    return result


def call_apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a module of ours returns, called in a worker. Raises what it raises."""
    return _call(function, arguments, None, None)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], report: Reporter | None, stdin: IO[bytes] | None) -> Any:
    request = pickle.dumps((function, arguments, report is not None))
    reading, writing = os.pipe()
    with open(reading, "rb") as messages:
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", _PROGRAM, str(writing)],
                stdin=subprocess.PIPE,
                pass_fds=[writing],
                env={**os.environ, "PYTHONPATH": _search_path()},
            )
        finally:
            os.close(writing)
        feeder = threading.Thread(target=_feed, args=(process, request, stdin), daemon=True)
        feeder.start()
        try:
            outcome = _outcome(messages, report)
        except BaseException:
            process.send_signal(signal.SIGTERM)
            raise
        finally:
            process.wait()
    if isinstance(outcome, _Returned):
        return outcome.value
    if isinstance(outcome, BaseException):
        raise outcome
    raise BuilderError(f"the worker process ended with status {process.returncode}", remedy="see its standard error")


def _search_path() -> str:
    given = os.environ.get("PYTHONPATH")
    return f"{_PACKAGES}{os.pathsep}{given}" if given else _PACKAGES


def _feed(process: subprocess.Popen[bytes], request: bytes, stdin: IO[bytes] | None) -> None:
    assert process.stdin is not None
    with suppress(OSError), process.stdin:  # a worker that has ended says why itself
        process.stdin.write(request)
        if stdin is not None:
            shutil.copyfileobj(stdin, process.stdin)


def _outcome(messages: IO[bytes], report: Reporter | None) -> _Returned | BaseException | None:
    """Report the events; None if the worker died without a word."""
    while True:
        try:
            message = pickle.load(messages)
        except EOFError:
            return None
        if not isinstance(message, Event):
            assert isinstance(message, (_Returned, BaseException))
            return message
        if report is not None:
            report(message)


def serve(prepare: Callable[[], None], pipe: int) -> None:
    """In the worker: `prepare`, then do what standard input asks for, and tell of it on a pipe."""
    signal.signal(signal.SIGTERM, _interrupt)
    lock = threading.Lock()
    with open(pipe, "wb", buffering=0) as messages:

        def send(message: object) -> None:
            with lock:
                messages.write(_portable(message))

        def report(event: Event) -> None:
            try:
                send(event)
            except OSError:  # whoever asked is gone
                os.kill(os.getpid(), signal.SIGTERM)

        try:
            function, arguments, streams = pickle.load(sys.stdin.buffer)
            prepare()
            more = (report, sys.stdin.buffer) if streams else ()
            outcome: object = _Returned(function(*arguments, *more))
        except KeyboardInterrupt:
            outcome = Interrupted("interrupted")
        except Exception as error:
            outcome = error
        with suppress(OSError):
            send(outcome)


def _portable(message: object) -> bytes:
    """A message's pickle; of an error that has none, what a BuilderError keeps of it."""
    try:
        data = pickle.dumps(message)
        if isinstance(message, Exception):
            pickle.loads(data)
    except Exception:
        if isinstance(message, BuilderError):
            kept = BuilderError(message.cause, place=message.place, remedy=message.remedy, details=message.details)
            return pickle.dumps(kept)
        return pickle.dumps(BuilderError(f"{type(message).__name__}: {message}"))
    return data


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
