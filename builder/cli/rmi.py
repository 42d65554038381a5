"""`builder rmi`: remove images."""

from __future__ import annotations

import sys

import click

from builder.cli.flags import Command
from builder.cli.settings import Settings
from builder.cli.stores import Failures, open_store
from builder.errors import BuilderError
from builder.oci.platform import parse_platform


@click.command("rmi", cls=Command, epilog="Example: builder rmi app:1 app:2")
@click.argument("names", metavar="IMAGE…", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Also an ID with several names; missing ones are no error.")
@click.option(
    "--platform", "platforms", multiple=True, metavar="OS/ARCH", help="Only the variant for this platform (repeatable)."
)
@click.option("--no-prune", is_flag=True, help="Remove the names only; 'builder prune' removes the data later.")
@click.pass_obj
def command(
    settings: Settings, names: tuple[str, ...], force: bool, platforms: tuple[str, ...], no_prune: bool
) -> None:
    """Remove images by name, digest or ID.

    A name is taken away first, and the image goes with its last one. Layers that another image or the build cache needs
    stay; 'builder prune' empties the cache. An image that a running build uses is not removed.
    """
    from builder.cli.pruning import hint_at_cache
    from builder.store.collect import collect
    from builder.store.images import NoSuchImage
    from builder.store.remove import remove, remove_platforms

    wanted = [parse_platform(one) for text in platforms for one in text.split(",")]
    store = open_store(settings, as_root=True)
    failures = Failures()
    deleted = False
    for name in names:
        try:
            removal = remove_platforms(store, name, wanted) if wanted else remove(store, name, force=force)
        except NoSuchImage as error:
            if force:
                print(f"error: {error}", file=sys.stderr)
            else:
                failures.add(error)
            continue
        except BuilderError as error:
            failures.add(error)
            continue
        for reference in removal.untagged:
            print(f"Untagged: {reference.familiar}")
        if removal.deleted:
            print(f"Deleted: {removal.deleted}")
            deleted = True
    if deleted and not no_prune:
        collect(store)
        hint_at_cache(store)
    failures.end()
