"""`builder layers`: what each layer of an image does and costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from builder.cli.flags import Command
from builder.cli.format import size, table
from builder.cli.listing import FORMATS, clipped, numbers, plural, print_document
from builder.cli.settings import Settings
from builder.cli.stores import open_store, platform_of
from builder.filesystem.names import printable

if TYPE_CHECKING:
    from builder.filesystem.analysis import Analysis, FileSize
    from builder.store.analysis import ImageAnalysis

_WIDEST_INSTRUCTION, _WIDEST_PATH = 60, 70


@click.command("layers", cls=Command, epilog="Example: builder layers -n 5 app:1")
@click.argument("name", metavar="IMAGE")
@click.option("-n", "--top", type=click.IntRange(min=0), default=10, metavar="N", help="Entries of each list.")
@click.option("--no-trunc", is_flag=True, help="Show whole instructions and paths.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", help="Tables for people, or JSON.")
@click.option("--platform", default="", metavar="OS/ARCH", help="The variant for this platform.")
@click.pass_obj
def command(settings: Settings, name: str, top: int, no_trunc: bool, form: str, platform: str) -> None:
    """Show an image's layers, lowest first: what each instruction added, changed and removed, and what is wasted.

    SIZE is without compression, STORED the blob's. WASTED are bytes of files that the same or a later layer replaced or
    removed: they are stored, and nobody can see them. Directories count as files. For all files of one layer compare
    two steps: builder diff IMAGE@2 IMAGE@3.
    """
    from builder.store.analysis import analyse_image
    from builder.store.contents import select

    store = open_store(settings)
    with store.lease():
        analysis = analyse_image(store, select(store, name, platform_of(platform)), top)
    if form == "json":
        print_document(_document(name, analysis))
        return
    print(_layers(analysis, not no_trunc), end="")
    for title, lines in _sections(analysis.found, not no_trunc):
        if len(lines) > 1:
            print(f"\n{title}:\n{table(lines)}", end="")


def _layers(analysis: ImageAnalysis, truncate: bool) -> str:
    lines = ["LAYER\tSIZE\tSTORED\tADDED\tCHANGED\tREMOVED\tWASTED\tCREATED BY"]
    for layer in analysis.layers:
        did = layer.changes
        lines.append(
            f"{did.layer}\t{size(did.size)}\t{size(layer.stored)}\t{did.added}\t{did.changed}\t{did.removed}\t"
            f"{size(did.wasted)}\t{clipped(layer.created_by, _WIDEST_INSTRUCTION, truncate=truncate) or '<missing>'}"
        )
    found = analysis.found
    lost = f"{100 * found.wasted / found.size:.1f}%" if found.size else "0%"
    return (
        f"{table(lines)}{plural(len(analysis.layers), 'layer')}, {size(found.size)}, {size(analysis.stored)} stored;"
        f" {size(found.wasted)} wasted ({lost})\n"
    )


def _sections(found: Analysis, truncate: bool) -> Iterator[tuple[str, list[str]]]:
    def path(text: str) -> str:
        """With its end kept, which says more."""
        text = printable(f"/{text}")
        return "…" + text[1 - _WIDEST_PATH :] if truncate and len(text) > _WIDEST_PATH else text

    yield (
        "Largest files",
        ["SIZE\tLAYER\tPATH", *(f"{size(one.size)}\t{one.layer}\t{path(one.path)}" for one in found.largest)],
    )
    yield (
        "Wasted: stored, and hidden by a layer",
        [
            "SIZE\tLAYER\tHIDDEN BY\tPATH",
            *(
                f"{size(one.size)}\t{numbers(copy.layer for copy in one.copies)}\t"
                f"{numbers(copy.by for copy in one.copies)}\t{path(one.path)}"
                f"{' (removed)' if one.copies[-1].removed else ''}"
                for one in found.waste
            ),
        ],
    )
    yield (
        "Duplicates: the same content in several layers",
        [
            "EXTRA\tCOPIES\tLAYERS\tPATH",
            *(
                f"{size(one.extra)}\t{len(one.copies)}\t{numbers(copy.layer for copy in one.copies)}\t"
                f"{', '.join(dict.fromkeys(path(copy.path) for copy in one.copies[: 3 if truncate else None]))}"
                for one in found.duplicates
            ),
        ],
    )
    yield (
        "Caches that package managers left behind",
        [
            "SIZE\tFILES\tLAYER\tPATH\tINSTEAD",
            *(
                f"{size(one.size)}\t{one.files}\t{numbers(one.layers)}\t{path(one.path)}\t{one.remedy}"
                for one in found.caches
            ),
        ],
    )


def _document(name: str, analysis: ImageAnalysis) -> dict[str, Any]:
    found = analysis.found
    return {
        "image": name,
        "size": found.size,
        "stored": analysis.stored,
        "wasted": found.wasted,
        "layers": [
            {
                "layer": layer.changes.layer,
                "digest": layer.digest,
                "diffID": layer.changes.diff_id,
                "createdBy": layer.created_by,
                "size": layer.changes.size,
                "stored": layer.stored,
                "added": layer.changes.added,
                "changed": layer.changes.changed,
                "removed": layer.changes.removed,
                "wasted": layer.changes.wasted,
                "largest": [_file(one) for one in layer.changes.largest],
            }
            for layer in analysis.layers
        ],
        "largest": [_file(one) for one in found.largest],
        "waste": [
            {
                "path": f"/{one.path}",
                "size": one.size,
                "copies": [
                    {"layer": copy.layer, "size": copy.size, "hiddenBy": copy.by, "removed": copy.removed}
                    for copy in one.copies
                ],
            }
            for one in found.waste
        ],
        "duplicates": [
            {"size": one.size, "extra": one.extra, "copies": [_file(copy) for copy in one.copies]}
            for one in found.duplicates
        ],
        "caches": [
            {
                "manager": one.manager,
                "path": f"/{one.path}",
                "files": one.files,
                "size": one.size,
                "layers": list(one.layers),
                "remedy": one.remedy,
            }
            for one in found.caches
        ],
    }


def _file(one: FileSize) -> dict[str, Any]:
    return {"path": f"/{one.path}", "size": one.size, "layer": one.layer}
