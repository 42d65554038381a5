"""`builder tags`: what a repository has."""

from __future__ import annotations

import click

from builder.cli.flags import Command
from builder.cli.format import print_rows
from builder.cli.settings import Settings
from builder.cli.transfers import open_session
from builder.errors import UsageError
from builder.oci import reference as references

_HEADERS = {"Repository": "REPOSITORY", "Tag": "TAG"}


@click.command("tags", cls=Command, epilog="Example: builder tags ghcr.io/org/app")
@click.argument("repository", metavar="REPOSITORY")
@click.option("--format", "form", default="", metavar="FORMAT", help="table [TEMPLATE], json, or a Go template.")
@click.pass_obj
def command(settings: Settings, repository: str, form: str) -> None:
    """List the tags of a repository as its registry has them, a line each, sorted."""
    from builder.registry.listing import list_tags

    name = references.parse(repository, default_tag=False)
    if name.tag or name.digest:
        raise UsageError(f"{repository!r} is more than a repository", remedy=f"write {name.familiar_name}")
    with open_session() as session:
        tags = list_tags(session, name)
    rows = [{"Repository": name.familiar_name, "Tag": tag} for tag in tags]
    print_rows(rows, form or "{{.Tag}}", _HEADERS, "{{.Repository}}\t{{.Tag}}")
