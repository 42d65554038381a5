#!python
"""The program's start: a build that only repeats the one before is answered at once, all else is for the commands.

Installed, it is `builder` as well (the first line becomes the path of the interpreter).
"""

from __future__ import annotations

import os
import sys

from builder.api.repeating import question

TYPE_CHECKING = False  # as type checkers know it; loading `typing` takes longer than all the rest here
if TYPE_CHECKING:
    from typing import NoReturn


def run() -> NoReturn:
    """Run the command line and end the process."""
    asked = question(sys.argv[1:], os.environ)
    said = asked.answer() if asked is not None else None
    if said is None:
        from builder.cli.main import run as run_commands

        run_commands(asked)
    status = 0
    try:
        for stream, text in zip((sys.stdout, sys.stderr), said, strict=True):
            stream.write(text)
            stream.flush()
    except BrokenPipeError:
        status = 1
    os._exit(status)


if __name__ == "__main__":
    run()
