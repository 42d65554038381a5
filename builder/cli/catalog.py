"""`builder catalog`: what a registry has."""

from __future__ import annotations

import click

from builder.cli.flags import Command
from builder.cli.format import print_rows
from builder.cli.settings import Settings
from builder.cli.transfers import open_session
from builder.oci.reference import DEFAULT_DOMAIN

_HEADERS = {"Registry": "REGISTRY", "Repository": "REPOSITORY"}


@click.command("catalog", cls=Command, epilog="Example: builder catalog localhost:5000")
@click.argument("registry", metavar="[REGISTRY]", default=DEFAULT_DOMAIN)
@click.option("--format", "form", default="", metavar="FORMAT", help="table [TEMPLATE], json, or a Go template.")
@click.pass_obj
def command(settings: Settings, registry: str, form: str) -> None:
    """List the repositories of a registry, a line each. Public registries seldom allow it, private ones mostly do."""
    from builder.registry.listing import list_repositories
    from builder.registry.login import server_of

    host = server_of(registry)
    with open_session() as session:
        if form:
            rows = [{"Registry": host, "Repository": name} for name in list_repositories(session, host)]
            print_rows(rows, form, _HEADERS, "{{.Registry}}\t{{.Repository}}")
            return
        for name in list_repositories(session, host):
            print(name)
