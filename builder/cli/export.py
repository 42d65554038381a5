"""`builder export`: the files of an image as one tar."""

from __future__ import annotations

import click

from builder.cli.flags import Command
from builder.cli.settings import Settings
from builder.cli.stores import archive_output, open_store, platform_of


@click.command("export", cls=Command, epilog="Example: builder export app:1 | tar -t")
@click.argument("name", metavar="IMAGE")
@click.option("-o", "--output", default="", metavar="FILE", help="Where to write (default: standard output).")
@click.option("--platform", default="", metavar="OS/ARCH", help="The variant for this platform.")
@click.pass_obj
def command(settings: Settings, name: str, output: str, platform: str) -> None:
    """Write the flattened file system of an image as a tar archive, without its configuration."""
    from builder.export.files import Files, write_tar
    from builder.oci.spec import paired_layers
    from builder.store.describe import Describer

    store = open_store(settings, as_root=True)
    with store.lease():
        image = Describer(store).choose(store.images.find(name), platform_of(platform))
        assert image.config is not None
        assert image.manifest is not None
        layers = paired_layers(image.manifest, image.config, name)
        for diff_id, layer in layers:
            store.layers.know(diff_id, layer)
        with archive_output(output) as file:
            write_tar(store, [Files(layers=[diff_id for diff_id, _ in layers])], file.write)
