"""`builder images`: what is in the store."""

from __future__ import annotations

import click

from builder.cli.filters import LISTING, glob_pattern, matches, parse_filters, predicate
from builder.cli.flags import Command
from builder.cli.format import ago, moment, print_rows, short_id, size, table
from builder.cli.settings import Settings
from builder.cli.stores import open_store
from builder.errors import InvalidReference, UsageError
from builder.oci import reference as references
from builder.store.describe import Describer, Summary

_NONE = "<none>"
_HEADERS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Platforms": "PLATFORMS",
    "Labels": "LABELS",
    "Containers": "CONTAINERS",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "VirtualSize": "SIZE",
}
_PLAIN = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
_DIGESTS = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"


@click.command("images", cls=Command, epilog="Example: builder images --filter reference='app*' --format '{{.ID}}'")
@click.argument("pattern", metavar="[REPOSITORY[:TAG]]", default="")
@click.option("-a", "--all", "everything", is_flag=True, help="Show all images (the default: steps are not images).")
@click.option("-q", "--quiet", is_flag=True, help="Only the image IDs.")
@click.option("--digests", is_flag=True, help="Show the manifests' digests.")
@click.option("--no-trunc", is_flag=True, help="Show whole image IDs.")
@click.option(
    "-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="dangling, label, before, since, reference…"
)
@click.option("--format", "form", default="", metavar="FORMAT", help="table [TEMPLATE], json, or a Go template.")
@click.option("--tree", is_flag=True, help="Show the platforms of each image.")
@click.pass_obj
def command(
    settings: Settings,
    pattern: str,
    everything: bool,
    quiet: bool,
    digests: bool,
    no_trunc: bool,
    filters: tuple[str, ...],
    form: str,
    tree: bool,
) -> None:
    """List images, newest first.

    SIZE is that of the uncompressed layers, where it is known. The filters are dangling=true|false, before=IMAGE,
    since=IMAGE, label=KEY[=VALUE], label!=…, reference=PATTERN and until=TIME.
    """
    if tree and (quiet or form or digests):
        raise UsageError("--tree cannot be combined with --quiet, --digests or --format")
    store = open_store(settings)
    describer = Describer(store)
    wanted = predicate(parse_filters(filters, LISTING), store.images, describer)
    rows = [row for row in describer.summaries() if wanted(row) and _is_named(row, pattern)]
    if tree:
        print(_tree(rows, not no_trunc), end="")
        return
    shown = [_fields(row, not no_trunc) for row in rows]
    if quiet and not form:
        for identity in dict.fromkeys(row["ID"] for row in shown):
            print(identity)
        return
    print_rows(shown, "{{.ID}}" if quiet and form == "table" else form, _HEADERS, _DIGESTS if digests else _PLAIN)


def _is_named(row: Summary, text: str) -> bool:
    """Whether a row is of the repository (with any tag) or the full name that was asked for, or matches its pattern."""
    if not text:
        return True
    if row.reference is None:
        return False
    if any(character in text for character in "*?["):
        return matches(row.reference, glob_pattern(text))
    try:
        wanted = references.parse(text, default_tag=False)
    except InvalidReference:
        return False
    return (
        row.reference.name == wanted.name
        and wanted.tag in (None, row.reference.tag)
        and wanted.digest in (None, row.descriptor.digest)
    )


def _fields(row: Summary, truncate: bool) -> dict[str, str]:
    name = row.reference
    return {
        "Repository": name.familiar_name if name else _NONE,
        "Tag": (name.tag if name else None) or _NONE,
        "Digest": row.descriptor.digest,
        "ID": short_id(row.image_id, truncate=truncate),
        "CreatedSince": ago(row.created),
        "CreatedAt": moment(row.created),
        "Size": size(row.size),
        "Platforms": ",".join(str(image.platform) for image in row.platforms if image.platform is not None),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(row.labels.items())),
        "Containers": "N/A",
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
        "VirtualSize": size(row.size),
    }


def _tree(rows: list[Summary], truncate: bool) -> str:
    """Images, with their platforms below them; several names of one image are one node."""
    nodes: dict[str, list[Summary]] = {}
    for row in rows:
        nodes.setdefault(row.descriptor.digest, []).append(row)
    lines = ["IMAGE\tID\tDISK USAGE\tCONTENT SIZE"]
    for named in nodes.values():
        row = named[0]
        stored = sum(image.stored for image in row.platforms)
        for other in named[1:]:
            lines.append(f"{_display(other)}\t\t\t")
        lines.append(
            f"{_display(row)}\t{short_id(row.image_id, truncate=truncate)}\t{size(row.size + stored)}\t{size(stored)}"
        )
        shown = [image for image in row.platforms if image.platform is not None]
        for position, image in enumerate(shown):
            branch = "└─" if position == len(shown) - 1 else "├─"
            identity = short_id(image.descriptor.digest if row.is_index else image.image_id, truncate=truncate)
            lines.append(
                f"{branch} {image.platform}\t{identity}\t{size(image.size + image.stored)}\t{size(image.stored)}"
            )
    return table(lines)


def _display(row: Summary) -> str:
    return row.reference.familiar if row.reference else f"{_NONE}:{_NONE}"
