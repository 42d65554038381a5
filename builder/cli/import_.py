"""`builder import`: an image of a file system's archive."""

from __future__ import annotations

import os
from contextlib import nullcontext

import click

from builder.cli.defaults import platform_option
from builder.cli.flags import Command
from builder.cli.settings import Settings
from builder.cli.stores import archive_input, open_store, platform_of
from builder.errors import UsageError
from builder.oci import reference


@click.command("import", cls=Command, epilog="Example: builder import -c 'CMD [\"/bin/sh\"]' rootfs.tar.xz base:1")
@click.argument("source", metavar="FILE|URL|-")
@click.argument("name", metavar="[NAME[:TAG]]", default="")
@click.option(
    "-c", "--change", "changes", multiple=True, metavar="INSTRUCTION", help="A Dockerfile instruction, as CMD."
)
@click.option("-m", "--message", default="", metavar="TEXT", help="The comment in the image's history.")
@platform_option(default="", help="What the image is for (default: this machine).")
@click.pass_obj
def command(settings: Settings, source: str, name: str, changes: tuple[str, ...], message: str, platform: str) -> None:
    """Make an image with one layer of a tar archive, compressed or not, and print its ID."""
    from builder.api.importing import import_image

    wanted = reference.parse(name) if name else None
    if wanted is not None and wanted.digest is not None:
        raise UsageError("a new name cannot have a digest", remedy="write NAME[:TAG]")
    store = open_store(settings)
    is_url = source.startswith(("http://", "https://"))
    with nullcontext() if is_url else archive_input(source) as stream:
        image_id = import_image(
            store, source, stream, name=wanted, changes=changes, message=message, platform=platform_of(platform),
            environ=os.environ,
        )  # fmt: skip
    print(image_id)
