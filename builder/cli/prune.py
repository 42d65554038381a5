"""`builder prune`: free space."""

from __future__ import annotations

import click

from builder.cli.flags import Command
from builder.cli.settings import Settings
from builder.cli.stores import open_store


@click.command("prune", cls=Command, epilog="Example: builder prune -f --filter until=24h")
@click.option("-a", "--all", "everything", is_flag=True, help="Remove all images and all build cache.")
@click.option("--cache", "only_cache", is_flag=True, help="Remove build cache only, and no image; all of it with -a.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="until=TIME, label=KEY[=VALUE], label!=…")
@click.pass_obj
def command(settings: Settings, everything: bool, only_cache: bool, force: bool, filters: tuple[str, ...]) -> None:
    """Remove images without a name, build cache that no image uses, and failed steps kept for 'builder debug'.

    With -a all images and all build cache go. --cache leaves the images, as 'docker builder prune' does. What running
    builds use stays, and so do cache mounts. The filter label is about images alone. 'builder image prune' leaves the
    build cache and failed steps as they are.
    """
    from builder.cli import pruning

    wanted = pruning.wanted(everything, filters, images=not only_cache)
    if not force:
        what = ("all images", "all build cache") if wanted.everything else ("all dangling images", "unused build cache")
        items = (*what[1 if only_cache else 0 :], "all kept states of failed steps")
        pruning.ask("This will remove:\n" + "".join(f"  - {item}\n" for item in items))
    pruning.run(open_store(settings, as_root=True), wanted, images=not only_cache, cache=True)
