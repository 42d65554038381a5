"""`builder cat`: the content of an image's files."""

from __future__ import annotations

import sys

import click

from builder.cli.flags import Command
from builder.cli.listing import KINDS, find_entry
from builder.cli.settings import Settings
from builder.cli.stores import open_store, platform_of
from builder.errors import StoreError
from builder.filesystem.names import printable


@click.command("cat", cls=Command, epilog="Example: builder cat app:1 /etc/os-release")
@click.argument("name", metavar="IMAGE")
@click.argument("paths", metavar="PATH…", nargs=-1, required=True)
@click.option("--platform", default="", metavar="OS/ARCH", help="The variant for this platform.")
@click.pass_obj
def command(settings: Settings, name: str, paths: tuple[str, ...], platform: str) -> None:
    """Write files of an image to standard output, without unpacking or running anything.

    IMAGE may be a step of one: app:1@3 is what there was after layer 3, app:1~1 before the last one. Symbolic links are
    followed inside the image.
    """
    from builder.store.contents import read_contents, read_stored, select

    store = open_store(settings)
    with store.lease():
        image = select(store, name, platform_of(platform))
        contents = read_contents(store, image)
        files = []
        for path in paths:
            _, entry = find_entry(contents, name, path)
            if entry.stored is None:
                raise StoreError(
                    f"{printable(path)} is a {KINDS[entry.info.kind]}, not a file",
                    place=name,
                    remedy="'builder ls' looks into directories",
                )
            files.append(entry.stored)
        del contents
        output = sys.stdout.buffer
        for stored in files:  # one by one: in the order that was asked for
            for _, content in read_stored(store, image, [stored]):
                for piece in content.chunks():
                    output.write(piece)
        output.flush()
