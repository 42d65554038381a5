"""`builder logout`: forget a registry's credentials."""

from __future__ import annotations

import os
import sys

import click

from builder.cli.flags import Command
from builder.cli.settings import Settings
from builder.oci.reference import DEFAULT_DOMAIN


@click.command("logout", cls=Command, epilog="Example: builder logout ghcr.io")
@click.argument("server", metavar="[SERVER]", default="")
@click.pass_obj
def command(settings: Settings, server: str) -> None:
    """Log out from a registry, Docker Hub by default: its credentials are removed from Docker's configuration, and from
    the credential helper that it names."""
    from builder.registry.credentials import CredentialStore, key_of
    from builder.registry.login import forget, server_of

    host = server_of(server) if server else DEFAULT_DOMAIN
    print(f"Removing login credentials for {key_of(host)}")
    forget(os.environ, host)
    place = CredentialStore(os.environ).place(host)
    if place is not None:
        print(f"WARNING: {place} still has credentials for {host}, and they will be used", file=sys.stderr)
