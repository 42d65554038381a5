"""`builder save`: images as an archive."""

from __future__ import annotations

import click

from builder.cli.flags import Command
from builder.cli.settings import Settings
from builder.cli.stores import archive_output, only_platform, open_store


@click.command("save", cls=Command, epilog="Example: builder save -o app.tar app:1 app:2")
@click.argument("names", metavar="IMAGE…", nargs=-1, required=True)
@click.option("-o", "--output", default="", metavar="FILE", help="Where to write (default: standard output).")
@click.option(
    "--format", "form", type=click.Choice(["docker-archive", "oci", "oci-archive"]), default="docker-archive",
    help="docker-archive is an OCI archive with Docker's manifest.json beside.",
)  # fmt: skip
@click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH", help="Only the variant for this platform.")
@click.pass_obj
def command(settings: Settings, names: tuple[str, ...], output: str, form: str, platforms: tuple[str, ...]) -> None:
    """Write images to an archive that Docker, podman, skopeo and 'builder load' read.

    A repository's name without a tag stands for all of its tags, an ID for the image without its names.
    """
    from builder.export.archive import write_archive
    from builder.export.choose import choose_images

    store = open_store(settings)
    with store.lease():
        images = choose_images(store, names, only_platform(platforms))
        with archive_output(output) as file:
            write_archive(store, images, file, docker=form == "docker-archive")
