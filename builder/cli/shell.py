"""`builder shell`: a shell in an image."""

from __future__ import annotations

import os
from typing import Any

import click

from builder.cli.run import CANNOT_RUN, RunCommand, common, run_options, start
from builder.cli.settings import Settings
from builder.errors import UsageError


@click.command(
    "shell",
    cls=RunCommand,
    epilog="Example: builder shell app:1",
    context_settings={"allow_interspersed_args": False, "help_option_names": ["--help"]},  # -h is --hostname
)
@click.argument("image", metavar="IMAGE")
@click.argument("arguments", metavar="[ARG]…", nargs=-1, type=click.UNPROCESSED)
@run_options
@click.pass_obj
def command(settings: Settings, /, **given: Any) -> int:
    """Open a shell in an image, as 'builder run -it' does.

    The shell is that of the image's SHELL instruction, otherwise bash or sh, whichever it has; ARGs go to it. Without a
    terminal it reads its commands from standard input.
    """
    from builder.api.running import RunOptions

    try:
        options = RunOptions(shell=True, **common(given))
        return start(settings, options, given, interactive=True, terminal=os.isatty(0) and os.isatty(1))
    except UsageError as error:
        error.exit_status = CANNOT_RUN
        raise
