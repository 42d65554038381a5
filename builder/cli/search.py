"""`builder search`: what a registry finds."""

from __future__ import annotations

import click

from builder.cli.flags import Command
from builder.cli.format import print_rows
from builder.cli.settings import Settings
from builder.cli.transfers import open_session
from builder.errors import UsageError

_HEADERS = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
    "IsAutomated": "AUTOMATED",
}
_COLUMNS = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}"
_WIDEST = 45  # columns of a description
_MOST = 100  # results; Docker's limit
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


@click.command("search", cls=Command, epilog="Example: builder search --filter is-official=true --limit 5 debian")
@click.argument("term", metavar="[HOST[:PORT]/]TERM")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="stars=N, is-official=true|false.")
@click.option("--format", "form", default="", metavar="FORMAT", help="table [TEMPLATE], json, or a Go template.")
@click.option("--limit", default=25, metavar="N", help="Results at most, up to 100 (default: 25).")
@click.option("--no-trunc", is_flag=True, help="Show whole descriptions.")
@click.pass_obj
def command(settings: Settings, term: str, filters: tuple[str, ...], form: str, limit: int, no_trunc: bool) -> None:
    """Search Docker Hub for images, or the registry that stands before the term.

    Of a registry that has no search but lists its repositories those are shown whose names contain the term.
    """
    from builder.registry.listing import search

    if not 1 <= limit <= _MOST:
        raise UsageError(f"the limit {limit} is outside of the range from 1 to {_MOST}")
    least, official, automated = _filters(filters)
    with open_session() as session:
        found = search(session, term, limit)
    plain = "json" in form  # there Docker writes true and false instead of marks
    rows = []
    for one in found:
        if one.star_count < least or official not in (None, one.is_official):
            continue
        if automated not in (None, one.is_automated):
            continue
        text = " ".join((one.description or "").split())
        rows.append(
            {
                "Name": one.name,
                "Description": text if no_trunc or len(text) <= _WIDEST else text[: _WIDEST - 1] + "…",
                "StarCount": str(one.star_count),
                "IsOfficial": _mark(one.is_official, plain),
                "IsAutomated": _mark(one.is_automated, plain),
            }
        )
    print_rows(rows, form, _HEADERS, _COLUMNS)


def _mark(value: bool, plain: bool) -> str:
    return str(value).lower() if plain else "[OK]" if value else ""


def _filters(texts: tuple[str, ...]) -> tuple[int, bool | None, bool | None]:
    """The least number of stars, whether official, whether automated; None for what does not matter."""
    stars, truths = 0, {}
    for text in texts:
        key, _, value = text.partition("=")
        if key == "stars" and value.isdecimal():
            stars = int(value)
        elif key in ("is-official", "is-automated") and value.lower() in _TRUTH:
            truths[key] = _TRUTH[value.lower()]
        else:
            raise UsageError(
                f"{text!r} is not a filter", remedy="write stars=N, is-official=true|false or is-automated=true|false"
            )
    return stars, truths.get("is-official"), truths.get("is-automated")
