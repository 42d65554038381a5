"""`builder du`: what takes space."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import click

from builder.cli.cache_filters import CACHE, choice
from builder.cli.filters import parse_filters
from builder.cli.flags import Command
from builder.cli.format import ago, moment, print_rows, short_id, size, table
from builder.cli.settings import Settings
from builder.cli.stores import open_store
from builder.errors import UsageError
from builder.store.cached import CACHE_MOUNT, CacheRecord, cache_records
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


_RECORD_HEADERS = {
    "ID": "CACHE ID",
    "Type": "TYPE",
    "Description": "DESCRIPTION",
    "LastUsed": "LAST USED",
    "LastUsedAt": "LAST USED AT",
    "Size": "SIZE",
    "Shared": "SHARED",
    "InUse": "IN USE",
    "Mutable": "MUTABLE",
}
_RECORD_COLUMNS = "{{.ID}}\t{{.Type}}\t{{.LastUsed}}\t{{.Size}}\t{{.Shared}}\t{{.InUse}}\t{{.Description}}"
_DIGITS = re.compile(r"^([0-9a-f]{12})[0-9a-f]{20,}")
_WIDEST = 60  # characters


@click.command("du", cls=Command, epilog="Example: builder du --filter type=exec.cachemount")
@click.option("-v", "--verbose", is_flag=True, help="Show each image and each record of the build cache.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="type=exec.cachemount, until=TIME, id=…")
@click.option("--format", "form", default="", metavar="FORMAT", help="table [TEMPLATE], json, or a Go template.")
@click.pass_obj
def command(settings: Settings, verbose: bool, filters: tuple[str, ...], form: str) -> None:
    """Show what takes space in the store, and how much of it 'builder prune' would free.

    Sizes are those of the files as they are kept; what images and the cache share counts with the images. ACTIVE are
    images with a name, records and unpacked layers that an image has, and cache mounts that a running build uses.

    With --filter those records of the build cache and those cache mounts are shown that pass all filters: id=PART,
    type=regular|exec.cachemount, description=TEXT, with != for all others and ~= for a regular expression; shared=true
    (an image has it), private=, inuse=true (a running build uses it), mutable=, immutable=, and until=TIME, which is
    when it was last used. 'builder prune --cache' takes the same.
    """
    from builder.store.usage import usage

    if verbose and form:
        raise UsageError("--verbose cannot be combined with --format")
    chosen = choice(parse_filters(filters, CACHE)) if filters else None
    store = open_store(settings, as_root=True)
    if chosen is not None:
        _show_records(store, [record for record in cache_records(store) if chosen(record)], form)
        return
    if verbose:
        print(_images(store) + "\nBuild cache:\n")
        _show_records(store, cache_records(store), "")
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


def _images(store: Store) -> str:
    from builder.store.usage import shares

    images = ["REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSHARED SIZE\tUNIQUE SIZE"]
    for share in shares(store, Describer(store).summaries()):
        row = share.image
        name = row.reference
        images.append(
            f"{name.familiar_name if name else '<none>'}\t{(name.tag if name else None) or '<none>'}\t"
            f"{short_id(row.image_id)}\t{ago(row.created)}\t{size(share.shared)}\t{size(share.unique)}"
        )
    return f"Images:\n\n{table(images)}"


def _show_records(store: Store, records: list[CacheRecord], form: str) -> None:
    """Each with its whole ID and description where a format is given."""
    from builder.store.usage import record_sizes

    rows = [
        _record(record, taken, whole=bool(form))
        for record, taken in zip(records, record_sizes(store, records), strict=True)
    ]
    print_rows(rows, form, _RECORD_HEADERS, _RECORD_COLUMNS)


def _record(record: CacheRecord, taken: int, *, whole: bool) -> dict[str, str]:
    used = datetime.fromtimestamp(record.used, UTC)
    description, identity = record.description, record.id
    if not whole:
        description, identity = _shortened(description), _shortened(_DIGITS.sub(r"\1", identity))
    return {
        "ID": identity,
        "Type": record.type,
        "Description": description,
        "LastUsed": ago(used),
        "LastUsedAt": moment(used),
        "Size": size(taken),
        "Shared": _word(record.shared),
        "InUse": _word(record.in_use),
        "Mutable": _word(record.type == CACHE_MOUNT),
    }


def _shortened(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _word(value: bool) -> str:
    return "true" if value else "false"
