"""`builder load`: images from an archive."""

from __future__ import annotations

import sys

import click

from builder.cli.flags import Command
from builder.cli.settings import Settings
from builder.cli.stores import archive_input, only_platform, open_store


@click.command("load", cls=Command, epilog="Example: builder load -i app.tar.gz")
@click.option("-i", "--input", "path", default="", metavar="FILE", help="The archive (default: standard input).")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH", help="Only the variant for this platform.")
@click.pass_obj
def command(settings: Settings, path: str, quiet: bool, platforms: tuple[str, ...]) -> None:
    """Read images from an archive: Docker's or OCI's, compressed or not.

    Every digest is verified; if anything is wrong, nothing is loaded. A name with a digest that is not the image's is
    passed over.
    """
    from builder.cli.progress import open_view
    from builder.progress import Transfer, Warned, warning
    from builder.store.load import load

    store = open_store(settings)
    wanted = only_platform(platforms)
    name = path if path not in ("", "-") else "standard input"
    with archive_input(path) as stream:
        view = open_view("tty" if sys.stderr.isatty() and not quiet else "none")
        try:
            images = load(
                store, stream, platform=wanted, place=name, progress=lambda done: view(Transfer(name, done, -1))
            )
        finally:
            view.close()
    for image in images:
        for reference in image.passed_over:
            text = f"passed over, since the image that was loaded is {image.descriptor.digest}"
            print(warning(Warned(text, place=reference.familiar)), file=sys.stderr)
        for reference in image.names:
            print(f"Loaded image: {reference.familiar}")
        if not image.names:
            print(f"Loaded image ID: {store.images.image_id(image.descriptor)}")
