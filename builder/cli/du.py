"""`builder du`: what takes space."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from builder.cli.flags import Command
from builder.cli.format import ago, print_rows, short_id, size, table
from builder.cli.settings import Settings
from builder.cli.stores import open_store
from builder.errors import UsageError
from builder.store.describe import Describer
from builder.store.store import Store

_HEADERS = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}
_COLUMNS = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"


@click.command("du", cls=Command, epilog="Example: builder du -v")
@click.option("-v", "--verbose", is_flag=True, help="Show each image and each record of the build cache.")
@click.option("--format", "form", default="", metavar="FORMAT", help="table [TEMPLATE], json, or a Go template.")
@click.pass_obj
def command(settings: Settings, verbose: bool, form: str) -> None:
    """Show what takes space in the store, and how much of it 'builder prune' would free.

    Sizes are those of the files as they are kept; what images and the cache share counts with the images. ACTIVE are
    images with a name, records and unpacked layers that an image has, and cache mounts that a running build uses.
    """
    from builder.store.usage import usage

    if verbose and form:
        raise UsageError("--verbose cannot be combined with --format")
    store = open_store(settings, as_root=True)
    if verbose:
        print(_verbose(store), end="")
        return
    rows = []
    for one in usage(store):
        share = f" ({100 * one.reclaimable // one.size}%)" if one.size else ""
        rows.append(
            {
                "Type": one.kind,
                "TotalCount": str(one.total),
                "Active": str(one.active),
                "Size": size(one.size),
                "Reclaimable": size(one.reclaimable) + share,
            }
        )
    print_rows(rows, form, _HEADERS, _COLUMNS)


def _verbose(store: Store) -> str:
    from builder.store.usage import cache_records, shares

    images = ["REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSHARED SIZE\tUNIQUE SIZE"]
    for share in shares(store, Describer(store).summaries()):
        row = share.image
        name = row.reference
        images.append(
            f"{name.familiar_name if name else '<none>'}\t{(name.tag if name else None) or '<none>'}\t"
            f"{short_id(row.image_id)}\t{ago(row.created)}\t{size(share.shared)}\t{size(share.unique)}"
        )
    records = ["CACHE ID\tTYPE\tHOLDS\tLAST USED\tSIZE\tSHARED"]
    for holding, taken, shared in cache_records(store):
        kind = holding.kind.rpartition("-")[0] if holding.kind else "step"
        identity = holding.key[:12] if not holding.kind else holding.key
        used = ago(datetime.fromtimestamp(holding.used, UTC))
        records.append(
            f"{identity}\t{kind}\t{short_id(holding.holds)}\t{used}\t{size(taken)}\t{'true' if shared else 'false'}"
        )
    return f"Images:\n\n{table(images)}\nBuild cache:\n\n{table(records)}"
