"""`builder image prune`: remove images that nobody names."""

from __future__ import annotations

import click

from builder.cli.flags import Command
from builder.cli.settings import Settings
from builder.cli.stores import open_store


@click.command("prune", cls=Command, epilog="Example: builder image prune -f --filter label=stage=build")
@click.option("-a", "--all", "everything", is_flag=True, help="Remove all images, not just dangling ones.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="until=TIME, label=KEY[=VALUE], label!=…")
@click.pass_obj
def command(settings: Settings, everything: bool, force: bool, filters: tuple[str, ...]) -> None:
    """Remove images without a name, with -a all images. The build cache stays: see 'builder prune'."""
    from builder.cli import pruning

    wanted = pruning.wanted(everything, filters)
    if not force:
        pruning.ask(f"This will remove all {'' if wanted.everything else 'dangling '}images.")
    pruning.run(open_store(settings, as_root=True), wanted, cache=False)
