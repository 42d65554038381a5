"""`builder diff`: how two images, or two steps of one, differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from builder.cli.flags import Command
from builder.cli.format import size, table
from builder.cli.listing import FORMATS, KINDS, clipped, plural, print_document
from builder.cli.settings import Settings
from builder.cli.stores import open_store, platform_of
from builder.errors import EXIT_FAILED
from builder.filesystem import kinds
from builder.filesystem.names import printable

if TYPE_CHECKING:
    from builder.filesystem.compare import FileChange
    from builder.filesystem.contents import Entry
    from builder.filesystem.packages import PackageChange
    from builder.store.compare import Difference, Setting

_WIDEST = 100


@click.command("diff", cls=Command, epilog="Example: builder diff app:1 app:2; builder diff app@2 app@3")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option("--no-trunc", is_flag=True, help="Show each file of what was added or removed whole, and whole values.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", help="Lists for people, or JSON.")
@click.option("--exit-code", is_flag=True, help="Exit with status 1 if there is a difference.")
@click.option("--platform", default="", metavar="OS/ARCH", help="The variant for this platform, of both.")
@click.pass_obj
def command(
    settings: Settings, before: str, after: str, no_trunc: bool, form: str, exit_code: bool, platform: str
) -> int:
    """Show how two images differ: files (A added, C changed, D removed), configuration, packages.

    A and B are images or steps of them: app@3 is what there was after layer 3 as 'builder layers' counts, app~1 the
    image without its last layer. The configuration of a step is known for what one of the last builds here made. Times
    of files do not count.
    """
    from builder.store.compare import compare_images
    from builder.store.contents import select

    store = open_store(settings)
    wanted = platform_of(platform)
    with store.lease():
        found = compare_images(store, select(store, before, wanted), select(store, after, wanted))
    if form == "json":
        print_document(_document(before, after, found))
    else:
        _print(found, not no_trunc)
    return EXIT_FAILED if exit_code and found else 0


def _print(found: Difference, truncate: bool) -> None:
    if not found:
        print("no difference" if found.configuration is not None else "no difference in files")
    if found.files:
        added = sum(change.before is None for change in found.files)
        removed = sum(change.after is None for change in found.files)
        changed = len(found.files) - added - removed
        grown = sum(_bytes(change.after) - _bytes(change.before) for change in found.files)
        sign = "-" if grown < 0 else "+"
        print(f"Files: {added:,} added, {changed:,} changed, {removed:,} removed, {sign}{size(abs(grown))}")
        print(table(_files(found.files, truncate)), end="")
    if found.configuration:
        print("Configuration:")
        for setting in found.configuration:
            line = f"{setting.name}: {_value(setting.before)} → {_value(setting.after)}"
            print(f"  {clipped(line, _WIDEST, truncate=truncate)}")
    elif found.configuration is None:
        print(f"Configuration: not compared; {_why_unknown(found)}")
    if found.packages:
        print("Packages:")
        print(table(_packages(found.packages)), end="")


def _why_unknown(found: Difference) -> str:
    names = " and ".join(map(printable, found.unknown))
    return f"no recorded build tells that of {names}, and an image keeps only its last"


def _files(changes: Sequence[FileChange], truncate: bool) -> Iterator[str]:
    """A line a change; what was added or removed with all that is in it is one line if `truncate`."""
    position = 0
    while position < len(changes):
        change = changes[position]
        position += 1
        inside: list[FileChange] = []
        if truncate and _is_whole_directory(change):
            while position < len(changes) and changes[position].path.startswith(f"{change.path}/"):
                inside.append(changes[position])
                position += 1
        yield _line(change, inside)


def _packages(changes: Sequence[PackageChange]) -> Iterator[str]:
    for one in changes:
        yield (
            printable(f"  {one.manager} {one.name}")
            + "\t"
            + printable(f"{one.before or '(none)'} → {one.after or '(none)'}")
        )


def _is_whole_directory(change: FileChange) -> bool:
    entry = change.after if change.before is None else change.before
    return None in (change.before, change.after) and entry is not None and entry.info.kind == kinds.DIRECTORY


def _line(change: FileChange, inside: Sequence[FileChange]) -> str:
    path = printable(f"/{change.path}")
    before, after = change.before, change.after
    if before is not None and after is not None:
        return f"C\t{path}\t{', '.join(_aspect(aspect, before, after) for aspect in change.aspects)}"
    letter, entry = ("A", after) if before is None else ("D", before)
    assert entry is not None
    if entry.info.kind == kinds.DIRECTORY:
        taken = sum(_bytes(one.after) + _bytes(one.before) for one in inside)
        held = f"{plural(len(inside), 'file')} in it, {size(taken)}" if inside else "directory"
        return f"{letter}\t{path}/\t{held}"
    return f"{letter}\t{path}\t{size(_bytes(entry)) if entry.info.kind == kinds.FILE else KINDS[entry.info.kind]}"


def _aspect(aspect: str, before: Entry, after: Entry) -> str:
    old, new = before.info, after.info
    values: dict[str, tuple[str, str]] = {
        "type": (KINDS[old.kind], KINDS[new.kind]),
        "mode": (f"{old.mode:04o}", f"{new.mode:04o}"),
        "owner": (f"{old.uid}:{old.gid}", f"{new.uid}:{new.gid}"),
        "content": (size(_bytes(before)), size(_bytes(after))),
        "link": (printable(old.link), printable(new.link)),
        "device": (f"{old.device[0]},{old.device[1]}", f"{new.device[0]},{new.device[1]}"),
    }
    if aspect not in values:
        return aspect
    return f"{aspect} {values[aspect][0]} → {values[aspect][1]}"


def _bytes(entry: Entry | None) -> int:
    return entry.stored.size if entry is not None and entry.stored is not None else 0


def _value(value: Any) -> str:
    if value is None:
        return "(none)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _document(before: str, after: str, found: Difference) -> dict[str, Any]:
    return {
        "before": before,
        "after": after,
        "files": [_file(change) for change in found.files],
        "configuration": None if found.configuration is None else [_setting(one) for one in found.configuration],
        "configuration_unknown": _why_unknown(found) if found.unknown else None,
        "packages": [_package(one) for one in found.packages],
    }


def _file(change: FileChange) -> dict[str, Any]:
    kind = "added" if change.before is None else "removed" if change.after is None else "changed"
    return {
        "path": f"/{change.path}",
        "change": kind,
        "differs": list(change.aspects),
        "before": _entry(change.before),
        "after": _entry(change.after),
    }


def _entry(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    info = entry.info
    found: dict[str, Any] = {
        "type": KINDS[info.kind],
        "mode": f"{info.mode:04o}",
        "uid": info.uid,
        "gid": info.gid,
        "size": info.size,
    }
    if entry.stored is not None and entry.stored.digest:
        found["digest"] = f"sha256:{entry.stored.digest.hex()}"
    if info.kind == kinds.SYMLINK:
        found["link"] = info.link
    return found


def _setting(one: Setting) -> dict[str, Any]:
    return {"name": one.name, "before": one.before, "after": one.after}


def _package(one: PackageChange) -> dict[str, Any]:
    return {"manager": one.manager, "name": one.name, "before": one.before, "after": one.after}
