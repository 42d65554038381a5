"""`builder inspect`: what is known of an image."""

from __future__ import annotations

import json

import click

from builder.cli.flags import Command
from builder.cli.settings import Settings
from builder.cli.stores import Failures, open_store, platform_of
from builder.cli.template import Template, json_text
from builder.cli.template_values import plain
from builder.errors import BuilderError, UsageError

_OTHERS = frozenset("config container network node plugin secret service task volume".split())
"""What else Docker inspects."""


@click.command("inspect", cls=Command, epilog="Example: builder inspect -f '{{json .Config.Env}}' app:1")
@click.argument("names", metavar="IMAGE…", nargs=-1, required=True)
@click.option("-f", "--format", "form", default="", metavar="FORMAT", help="json, or a Go template.")
@click.option("--platform", default="", metavar="OS/ARCH", help="The variant for this platform.")
@click.option("--type", "kind", default="image", metavar="image", help="Accepted: there are images only.")
@click.option("-s", "--size", is_flag=True, help="Accepted: an image's size is always shown.")
@click.pass_obj
def command(settings: Settings, names: tuple[str, ...], form: str, platform: str, kind: str, size: bool) -> None:
    """Show what is known of images, as a JSON array in Docker's shape.

    Of an image for several platforms this machine's is shown, or the first; Id and Descriptor are then the index's.
    """
    _check_type(kind)
    from builder.cli.document import image_document
    from builder.store.describe import Describer

    store = open_store(settings)
    describer = Describer(store)
    template = Template(form) if form not in ("", "json") else None
    wanted = platform_of(platform)
    failures = Failures()
    documents = []
    for name in names:
        try:
            found = store.images.find(name)
            image = describer.choose(found, wanted)
        except BuilderError as error:
            failures.add(error)
            continue
        known = [entry.reference for entry in store.images.all() if entry.descriptor.digest == found.descriptor.digest]
        document = image_document(
            describer.summary(found), image, [name for name in known if name is not None], chosen=wanted is not None
        )
        if template is not None:
            print(template.render(document))
        documents.append(plain(document))
    if form == "json":
        print(json_text(documents))
    elif template is None:
        print(json.dumps(documents, indent=4, ensure_ascii=False))
    failures.end()


def _check_type(kind: str) -> None:
    if kind in _OTHERS:
        raise UsageError(f"there is no {kind} to inspect: the builder has images only", remedy="leave out --type")
    if kind != "image":
        raise UsageError(f"unknown type {kind!r}", remedy="write --type image, or leave it out")
