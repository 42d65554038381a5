"""`builder prune`: free space."""

from __future__ import annotations

import click

from builder.cli.flags import Command
from builder.cli.settings import Settings
from builder.cli.stores import open_store


@click.command("prune", cls=Command, epilog="Example: builder prune -f --filter until=24h")
@click.option(
    "-a", "--all", "everything", is_flag=True, help="Remove all images and all build cache, with cache mounts."
)
@click.option("--cache", "only_cache", is_flag=True, help="Remove build cache and cache mounts only; all with -a.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help="until=TIME, label=KEY[=VALUE], label!=…; with --cache also those of 'builder du'.",
)
@click.option("--max-used-space", default="", metavar="SIZE", help="Remove build cache until it has no more than this.")
@click.option(
    "--reserved-space",
    "--keep-storage",
    "reserved",
    default="",
    metavar="SIZE",
    help="Remove build cache, but never to less than this.",
)
@click.option("--min-free-space", default="", metavar="SIZE", help="Remove build cache until the disk has this free.")
@click.pass_obj
def command(
    settings: Settings,
    everything: bool,
    only_cache: bool,
    force: bool,
    filters: tuple[str, ...],
    max_used_space: str,
    reserved: str,
    min_free_space: str,
) -> None:
    """Remove images without a name, build cache that no image uses, cache mounts, and failed steps kept for 'builder
    debug'.

    With -a all images and all build cache go. --cache leaves the images, as 'docker builder prune' does. What running
    builds use stays, and so do the cache mounts that they used. --filter until=… goes by the last use. The filter label
    is about images alone. 'builder image prune' leaves the build cache, cache mounts and failed steps as they are.

    The three sizes (20g, 512MiB) limit the build cache: what of it was not used for longest goes first, and no more
    than they ask. Its size is that of the build cache, of the unpacked layers that no image has and of the cache
    mounts, each of which goes as a whole, see 'builder du'.
    --filter until=… then says what may go; -a adds what images have as well, where that frees anything. Images, failed
    steps and their options are as without a limit.
    """
    from builder.cli import pruning

    wanted = pruning.wanted(everything, filters, images=not only_cache)
    limit = pruning.limit(wanted, max_used_space, reserved, min_free_space)
    if not force:
        pruning.ask_about_cache(wanted, limit, images=not only_cache)
    pruning.run(open_store(settings, as_root=True), wanted, images=not only_cache, cache=True, limit=limit)
