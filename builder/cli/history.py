"""`builder history`: how an image was made."""

from __future__ import annotations

import click

from builder.cli.flags import Command
from builder.cli.format import ago, print_rows, rfc3339, short_id, size
from builder.cli.settings import Settings
from builder.cli.stores import open_store, platform_of
from builder.store.describe import Describer, HistoryRow, parse_time

_HEADERS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
_HUMAN = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
_EXACT = "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
_WIDEST = 45


@click.command("history", cls=Command, epilog="Example: builder history --no-trunc app:1")
@click.argument("name", metavar="IMAGE")
@click.option("--no-trunc", is_flag=True, help="Show whole lines and IDs.")
@click.option("-q", "--quiet", is_flag=True, help="Only the image IDs.")
@click.option("-H", "--human/--no-human", default=True, help="Times and sizes for people (the default), or exact.")
@click.option("--format", "form", default="", metavar="FORMAT", help="table [TEMPLATE], json, or a Go template.")
@click.option("--platform", default="", metavar="OS/ARCH", help="The variant for this platform.")
@click.pass_obj
def command(settings: Settings, name: str, no_trunc: bool, quiet: bool, human: bool, form: str, platform: str) -> None:
    """Show an image's history, newest line first.

    SIZE is that of the line's layer without compression where it is known, else with it.
    """
    store = open_store(settings)
    describer = Describer(store)
    image = describer.choose(store.images.find(name), platform_of(platform))
    rows = [_fields(row, human, not no_trunc) for row in describer.history(image)]
    if quiet and not form:
        for row in rows:
            print(row["ID"])
        return
    print_rows(rows, form, _HEADERS, _HUMAN if human else _EXACT)


def _fields(row: HistoryRow, human: bool, truncate: bool) -> dict[str, str]:
    by = row.line.created_by.replace("\t", " ")
    if truncate and len(by) > _WIDEST:
        by = by[: _WIDEST - 1] + "…"
    created = parse_time(row.line.created)
    created_at = rfc3339(created) if created is not None else row.line.created or "N/A"
    return {
        "ID": short_id(row.image_id, truncate=truncate) if row.image_id else "<missing>",
        "CreatedSince": ago(created) if human else created_at,
        "CreatedAt": created_at,
        "CreatedBy": by.replace("\n", " ") if truncate else by,
        "Size": size(row.size) if human else str(row.size),
        "Comment": row.line.comment,
    }
