#!python
"""The program's start: a command that only repeats the one before is answered at once, all else is for the commands.

Installed, it is `builder` as well (the first line becomes the path of the interpreter).
"""

from __future__ import annotations

import os
import sys

from builder.bundle import Bundle

TYPE_CHECKING = False  # as type checkers know it; loading `typing` takes longer than all the rest here
if TYPE_CHECKING:
    from typing import NoReturn


# What `signal` asks itself; around it, that makes enumerations of all numbers.
_signal = __import__("_signal")
_INTERRUPTED = 130  # as `builder.errors` has it, which is not loaded here


def run() -> NoReturn:
    """Run the command line and end the process."""
    if sys.getfilesystemencoding() != "utf-8":
        _start_again()
    for number in (_signal.SIGTERM, _signal.SIGHUP):
        if _signal.getsignal(number) == _signal.SIG_DFL:  # not under nohup(1)
            _signal.signal(number, _signal.default_int_handler)
    try:
        _run()
    except KeyboardInterrupt:
        try:
            os.write(2, b"\nerror: interrupted\n")
        finally:  # the terminal may be gone
            os._exit(_INTERRUPTED)


def _run() -> NoReturn:
    _open_streams()
    bundle = Bundle()
    bundle.install()
    from builder.api.repeat.question import question

    asked = question(sys.argv[1:], os.environ)
    said = asked.answer() if asked is not None else None
    if said is None:
        from builder.cli.program import run as run_commands

        run_commands(asked, bundle.complete)
    status = 0
    try:
        for stream, text in ((sys.stderr, said[1]), (sys.stdout, said[0])):  # the name of the image comes last
            stream.write(text)
            stream.flush()
    except BrokenPipeError:
        status = 1
    except OSError as error:
        status = 1
        _say(error, asked.root if asked is not None else "")
    os._exit(status)


def _start_again() -> None:
    """Execute this again, with the same bytes as arguments, so that text is UTF-8 whatever the locale: names are in
    images, and other programs of this kind write it. Once: not where somebody has decided on it, which this does."""
    if "utf8" not in sys._xoptions and sys.executable and sys.orig_argv:
        try:
            os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
        except OSError:  # without it nothing is wrong but names that are not ASCII
            return


def _say(error: OSError, root: str) -> None:
    from builder.cli.program import system_error
    from builder.errors import render

    try:
        os.write(2, f"{render(system_error(error, root))}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return


def _open_streams() -> None:
    """Open those standard streams on /dev/null that whoever called has closed: other files would get their numbers.

    What standard output cannot show is written as Python writes it to standard error."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # until the end
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


if __name__ == "__main__":
    run()
