"""`builder push`: images to registries."""

from __future__ import annotations

from typing import Any

import click

from builder.cli.flags import Command
from builder.cli.given import keep
from builder.cli.pushing import run_push
from builder.cli.settings import Settings


@click.command("push", cls=Command, epilog="Example: builder push registry.example.com/team/app:1")
@click.argument("names", metavar="NAME[:TAG]…", nargs=-1, required=True)
@click.option("-a", "--all-tags", is_flag=True, help="Every tag that the repository has in the store.")
@click.option("--platform", default="", metavar="OS/ARCH", help="Only the image for this platform, without its index.")
@click.option("-q", "--quiet", is_flag=True, help="Print the full names only.")
@click.pass_obj
def command(settings: Settings, /, **given: Any) -> None:
    """Push images of the store to their registries.

    What a repository has is not sent, and what another repository of the registry is known to have is mounted from
    there. Tags of one image in one repository are pushed together.
    """
    try:
        run_push(settings, given)
    finally:
        if settings.asked is not None:
            keep(settings.asked, settings.root, given)
