"""`builder ls`: what files an image has."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from typing import Any

import click

from builder.cli.flags import Command
from builder.cli.listing import FORMATS, KINDS, find_entry, print_document
from builder.cli.main import Settings
from builder.cli.stores import open_store, platform_of
from builder.filesystem.contents import Contents, Entry
from builder.filesystem.names import printable
from builder.filesystem.tree import Kind

_TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHARACTER: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
}


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
    if entry.info.kind is not Kind.DIRECTORY:
        rows = [(path, real, entry)]
    elif recursive:
        rows = [(f"/{below}", below, found) for below, found in contents.walk(real)]
    else:
        rows = [(below, f"{real}/{below}" if real else below, found) for below, found in contents.scan(real)]
    if form == "json":
        print_document([_document(below, found) for _, below, found in rows])
    elif long:
        _print_long(contents, rows)
    else:
        for label, _, _ in rows:
            print(printable(label))


def _print_long(contents: Contents, rows: list[tuple[str, str, Entry]]) -> None:
    owners = [f"{entry.info.uid}:{entry.info.gid}" for _, _, entry in rows]
    sizes = [_size(entry) for _, _, entry in rows]
    widths = max(map(len, owners), default=0), max(map(len, sizes), default=0)
    for (label, _, entry), owner, size in zip(rows, owners, sizes, strict=True):
        info = entry.info
        link = f" -> {printable(info.link)}" if info.kind is Kind.SYMLINK else ""
        mode = stat.filemode(_TYPES[info.kind] | info.mode)
        print(f"{mode} {owner:<{widths[0]}} {size:>{widths[1]}} {_time(info.mtime_ns)} {printable(label)}{link}")


def _size(entry: Entry) -> str:
    info = entry.info
    if info.kind in (Kind.CHARACTER, Kind.BLOCK):
        return f"{info.device[0]},{info.device[1]}"
    return str(len(info.link.encode("utf-8", "surrogateescape")) if info.kind is Kind.SYMLINK else info.size)


def _time(nanoseconds: int) -> str:
    """RFC 3339, in seconds; a time that no calendar has as seconds since 1970."""
    try:
        return datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"@{nanoseconds // 1_000_000_000}"


def _document(path: str, entry: Entry) -> dict[str, Any]:
    info = entry.info
    found: dict[str, Any] = {
        "path": f"/{path}",
        "type": KINDS[info.kind],
        "mode": f"{info.mode:04o}",
        "uid": info.uid,
        "gid": info.gid,
        "size": info.size,
        "mtime": _time(info.mtime_ns),
        "layer": entry.layer + 1,
    }
    if info.kind is Kind.SYMLINK:
        found["link"] = info.link
    if info.kind in (Kind.CHARACTER, Kind.BLOCK):
        found["device"] = list(info.device)
    return found
