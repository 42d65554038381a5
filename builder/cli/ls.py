"""`builder ls`: what files an image has."""

from __future__ import annotations

from typing import Any

import click

from builder.cli.flags import Command
from builder.cli.listing import FORMATS, KINDS, find_entry, print_document, print_long, shown_time
from builder.cli.settings import Settings
from builder.cli.stores import open_store, platform_of
from builder.filesystem import kinds
from builder.filesystem.contents import Entry
from builder.filesystem.names import printable


@click.command("ls", cls=Command, epilog="Example: builder ls -l app:1 /usr/bin")
@click.argument("name", metavar="IMAGE")
@click.argument("path", metavar="[PATH]", default="/")
@click.option("-l", "--long", is_flag=True, help="Show modes, owners, sizes, times and where links lead.")
@click.option("-R", "--recursive", is_flag=True, help="Show all that is below, a path a line.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", help="A list for people, or JSON.")
@click.option("--platform", default="", metavar="OS/ARCH", help="The variant for this platform.")
@click.pass_obj
def command(settings: Settings, name: str, path: str, long: bool, recursive: bool, form: str, platform: str) -> None:
    """List the files of an image, without unpacking or running anything.

    IMAGE may be a step of one: app:1@3 is what there was after layer 3, app:1~1 before the last one. As with ls, a PATH
    that is a symbolic link is followed, with -l only if it ends with a slash. Owners are numbers, times UTC.
    """
    from builder.store.contents import read_contents, select

    store = open_store(settings)
    with store.lease():
        contents = read_contents(store, select(store, name, platform_of(platform)))
    real, entry = find_entry(contents, name, path, follow=not long or path.endswith("/"))
    if entry.info.kind != kinds.DIRECTORY:
        rows = [(path, real, entry)]
    elif recursive:
        rows = [(f"/{below}", below, found) for below, found in contents.walk(real)]
    else:
        rows = [(below, f"{real}/{below}" if real else below, found) for below, found in contents.scan(real)]
    if form == "json":
        print_document([_document(below, found) for _, below, found in rows])
    elif long:
        print_long([(label, found.info) for label, _, found in rows])
    else:
        for label, _, _ in rows:
            print(printable(label))


def _document(path: str, entry: Entry) -> dict[str, Any]:
    info = entry.info
    found: dict[str, Any] = {
        "path": f"/{path}",
        "type": KINDS[info.kind],
        "mode": f"{info.mode:04o}",
        "uid": info.uid,
        "gid": info.gid,
        "size": info.size,
        "mtime": shown_time(info.mtime_ns),
        "layer": entry.layer + 1,
    }
    if info.kind == kinds.SYMLINK:
        found["link"] = info.link
    if info.kind in (kinds.CHARACTER, kinds.BLOCK):
        found["device"] = list(info.device)
    return found
