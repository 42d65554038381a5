"""`builder tag`: another name for an image."""

from __future__ import annotations

import click

from builder.cli.flags import Command
from builder.cli.settings import Settings
from builder.cli.stores import open_store
from builder.errors import UsageError
from builder.oci import reference


@click.command("tag", cls=Command, epilog="Example: builder tag app:1 registry.example.com/team/app:1")
@click.argument("source", metavar="IMAGE[:TAG]")
@click.argument("target", metavar="NAME[:TAG]")
@click.pass_obj
def command(settings: Settings, source: str, target: str) -> None:
    """Give an image another name. An image that had the name before loses it, and stays without one."""
    name = reference.parse(target)
    if name.digest is not None:
        raise UsageError("a new name cannot have a digest", remedy="write NAME[:TAG]")
    store = open_store(settings)
    with store.lease():
        store.images.tag(store.images.find(source).descriptor, [name])
