"""`builder pull`: images from a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from builder.cli.defaults import platform_option
from builder.cli.flags import Command
from builder.cli.settings import Settings
from builder.cli.stores import open_store, platform_of
from builder.cli.transfers import PULLED, TransferView, open_session
from builder.errors import Unsupported, UsageError
from builder.oci import reference as references
from builder.oci.reference import DEFAULT_TAG, Reference
from builder.progress import Warned

if TYPE_CHECKING:
    from builder.registry.transport import Session


@click.command("pull", cls=Command, epilog="Example: builder pull --platform linux/arm64 debian:bookworm-slim")
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@click.option("-a", "--all-tags", is_flag=True, help="Every tag of the repository.")
@platform_option(default="", help="The image for this platform instead of this machine's.")
@click.option("-q", "--quiet", is_flag=True, help="Print the image's full name only.")
@click.pass_obj
def command(settings: Settings, name: str, all_tags: bool, platform: str, quiet: bool) -> None:
    """Fetch an image from a registry into the store.

    Of an image for several platforms one is fetched; the name keeps standing for the whole index, so that the digest
    is the registry's. A pull that broke off is gone on with by the next one.
    """
    from builder.cli.pulling import pull_image, say_status

    given = references.parse(name, default_tag=False)
    if all_tags and (given.tag or given.digest):
        raise UsageError("a tag cannot be used with --all-tags", remedy="name the repository alone")
    wanted = platform_of(platform)
    store = open_store(settings)
    changed = False
    with TransferView(PULLED, quiet=quiet) as view, open_session(report=view) as session:
        if not all_tags and given.tag is None and given.digest is None:
            view.line(f"Using default tag: {DEFAULT_TAG}")
        for one in _tags(session, given) if all_tags else [references.parse(name)]:
            try:
                pulled = pull_image(store, session, one, wanted, view)
            except Unsupported as error:
                if not all_tags:
                    raise
                view(Warned(str(error)))  # charts and signatures stand beside images in repositories
                continue
            changed = changed or pulled.changed
        shown = given if all_tags else references.parse(name)
        say_status(view, shown.familiar, changed=changed)
    print(shown)


def _tags(session: Session, repository: Reference) -> list[Reference]:
    """A reference for each tag of a repository."""
    from builder.registry.listing import list_tags

    return [Reference(repository.domain, repository.path, tag) for tag in list_tags(session, repository)]
