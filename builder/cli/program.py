"""The program: a command, its errors as messages and exit statuses, its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from builder.cli.given import recall
from builder.cli.settings import COMPLETE, Settings
from builder.errors import EXIT_FAILED, EXIT_INTERRUPTED, NO_ROOM, BuilderError, DiskFull, render

if TYPE_CHECKING:
    from builder.api.repeat.question import Question

# What `signal` asks itself; around it, that makes enumerations of all numbers, which take longer than all else here.
_signal: Any = __import__("_signal")


def run(asked: Question | None = None, at_end: Callable[[], None] = lambda: None) -> NoReturn:
    """The program: `main` and `at_end`, then an end at once: taking the interpreter apart is a sixth of a cached
    rebuild."""
    try:
        main(asked)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else EXIT_FAILED
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # whoever read it has gone
            stream.flush()
    with suppress(KeyboardInterrupt):
        at_end()
    os._exit(status)


def main(asked: Question | None = None) -> NoReturn:
    """Run the command line and raise SystemExit with its status."""
    _signal.signal(_signal.SIGTERM, _terminate)
    settings = Settings(debug=wants_debug(sys.argv[1:]), asked=asked)
    try:
        status = _command(settings)
        sys.stdout.flush()
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be gone
            print("\nerror: interrupted", file=sys.stderr)
        status = EXIT_INTERRUPTED
    except BuilderError as error:
        status = _fail(error, settings.debug)
    except BrokenPipeError:
        status = _broken_pipe()
    except OSError as error:
        status = _fail(system_error(error, settings.known_root), settings.debug)
    except Exception as error:
        defect = BuilderError(
            f"internal error: {type(error).__name__}: {error}",
            remedy="this is a defect of builder; run again with --debug for where it happened",
        )
        status = _fail(defect, settings.debug)
    sys.exit(status)


def wants_debug(words: Sequence[str]) -> bool:
    """Whether a command line has `--debug` before the command's name: behind it others may have one of their own."""
    left = iter(words)
    for word in left:
        if word == "--debug":
            return True
        if word == "--root":
            next(left, None)
        elif word == "--" or not word.startswith("-"):
            break
    return False


def _fail(error: BuilderError, debug: bool) -> int:
    """Say what went wrong, with `debug` where, too. Returns the exit status."""
    with suppress(OSError):  # the terminal may be gone
        if debug:
            import traceback

            traceback.print_exc()
        print(render(error), file=sys.stderr)
    return error.exit_status


def _command(settings: Settings) -> int:
    """Do what the command line says, which need not be read by click if it was before. Returns the exit status."""
    if COMPLETE in os.environ:
        from builder.cli.completion import answer

        return answer(os.environ[COMPLETE])
    asked = settings.asked
    given = recall(asked) if asked is not None else None
    if asked is not None and given is not None:
        settings.known_root, options = given
        if asked.command == "build":
            from builder.cli.building import run_build

            return run_build(settings, options)
        from builder.cli.pushing import run_push

        run_push(settings, options)
        return 0
    from builder.cli.main import call

    return call(settings)


def system_error(error: OSError, root: str) -> BuilderError:
    """An error of the system's that nobody foresaw. One that names no file is the store's if its disk is full."""
    if error.errno in NO_ROOM and error.filename is None and root:
        from builder.store.room import is_full

        if is_full(root):
            return DiskFull(root)
    found = BuilderError(error.strerror or str(error), place=error.filename or "input/output")
    found.__cause__ = error
    return found


def _terminate(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _broken_pipe() -> int:
    """Whoever read our output has gone; what Python still holds must not raise again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_FAILED
