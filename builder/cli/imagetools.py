"""`builder imagetools`: images in registries, looked at and combined without being pulled."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from builder.cli.defaults import progress_option
from builder.cli.flags import Command
from builder.cli.progress import open_view
from builder.cli.settings import Settings
from builder.cli.stores import open_store
from builder.cli.transfers import open_session
from builder.errors import Unsupported, UsageError
from builder.oci import reference as references
from builder.oci.platform import parse_target
from builder.oci.reference import Reference
from builder.oci.spec import Descriptor
from builder.progress import Message, Reporter

if TYPE_CHECKING:
    from builder.registry.indexes import Combined
    from builder.registry.transport import Session


@click.group(
    "imagetools",
    epilog="Example: builder imagetools inspect debian:bookworm",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
def command() -> None:
    """Work on images in registries: what they are, and new ones made of them."""


@command.command(
    "inspect", cls=Command, epilog="Example: builder imagetools inspect --format '{{json .Manifest}}' debian"
)
@click.argument("name", metavar="NAME")
@click.option("--raw", is_flag=True, help="The manifest's bytes as the registry has them.")
@click.option("--format", "form", default="", metavar="TEMPLATE", help="Go template: .Name .Manifest .Image .SBOM …")
@click.pass_obj
def inspect(settings: Settings, name: str, raw: bool, form: str) -> None:
    """Show an image of a registry: its digest, and what an index lists.

    A template's fields are Name, Manifest, Image (the configuration; of several platforms a map of them), Provenance
    and SBOM.
    """
    from builder.cli.remote_image import describe, render
    from builder.registry.pull import fetch_manifest

    if raw and form:
        raise UsageError("--raw and --format cannot be used together")
    reference = references.parse(name)
    with open_session() as session:
        descriptor, data = fetch_manifest(session, reference)
        if raw:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)  # without a line's end, so that the digest is that of the output
            sys.stdout.buffer.flush()
        elif form and "".join(form.split()) != "{{.Manifest}}":
            print(render(session, name, reference, descriptor, data, form))
        else:
            print(describe(reference, descriptor, data), end="")


@command.command(
    "create",
    cls=Command,
    short_help="Make an image of images in registries",
    epilog="Example: builder imagetools create -t me/app:1 me/app:1-amd64 me/app:1-arm64",
)
@click.argument("sources", metavar="[SOURCE…]", nargs=-1)
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME", help="A name for the new image (repeatable).")
@click.option("-f", "--file", "files", multiple=True, metavar="FILE", help="Read a source's descriptor from a file.")
@click.option("--append", is_flag=True, help="Add to what the first name stands for now.")
@click.option("--dry-run", is_flag=True, help="Show the new image instead of pushing it.")
@click.option("--annotation", "annotations", multiple=True, metavar="[TYPE:]KEY=VALUE", help="Annotate the new index.")
@click.option("--prefer-index/--no-prefer-index", default=True, help="Make an index of one lone source too (default).")
@click.option(
    "-p", "--platform", "platforms", multiple=True, metavar="OS/ARCH", help="Only images for these platforms."
)
@click.option(
    "--metadata-file", default="", metavar="FILE", help="Write the new image's descriptor to a file, as JSON."
)
@progress_option(help="How the push is shown.")
@click.pass_obj
def create(
    settings: Settings,
    sources: tuple[str, ...],
    tags: tuple[str, ...],
    files: tuple[str, ...],
    append: bool,
    dry_run: bool,
    annotations: tuple[str, ...],
    prefer_index: bool,
    platforms: tuple[str, ...],
    metadata_file: str,
    progress: str,
) -> None:
    """Make an image of images in registries: an index of their manifests, pushed under the names.

    A source is a reference, a digest, or a descriptor as JSON. What the target's repository lacks is mounted from
    another repository of its registry, or copied.
    """
    texts = [*_read(files), *sources]
    targets = [references.parse(tag) for tag in tags]
    if not texts:
        raise UsageError("there are no sources", remedy="name images, or descriptors with -f")
    if not targets and not dry_run:
        raise UsageError("the new image has no name", remedy="give one with --tag, or use --dry-run")
    if append and targets:
        texts.insert(0, tags[0])
    given = _places([_parse(text) for text in texts], targets)
    wanted = [parse_target(one) for text in platforms for one in text.split(",")]
    index_annotations, of_descriptors = _annotations(annotations)
    with closing(open_view(progress)) as view, open_session(report=view) as session:
        from builder.registry.indexes import combine, read_source

        image = combine(
            [read_source(session, reference, override) for reference, override in given],
            annotations=index_annotations,
            descriptor_annotations=of_descriptors,
            prefer_index=prefer_index,
            platforms=wanted,
        )
        if dry_run:
            print(image.data.decode())
            return
        _push(settings, session, image, targets, view)
    if metadata_file:
        metadata = {
            "containerimage.descriptor": msgspec.to_builtins(image.descriptor),
            "image.name": ",".join(sorted({target.name for target in targets})),
        }
        _write(metadata_file, json.dumps(metadata, indent=2))


def _push(settings: Settings, session: Session, image: Combined, targets: list[Reference], report: Reporter) -> None:
    from builder.registry.indexes import Remote
    from builder.registry.push import push

    repositories: dict[str, list[Reference]] = {}
    for target in targets:
        repositories.setdefault(target.name, []).append(target)
    with open_store(settings).scratch() as scratch:
        for members in repositories.values():
            remote = Remote(session, image, scratch, members[0].domain)
            extra = [member.tag for member in members[1:] if member.tag]
            push(
                session, members[0], image.descriptor, remote.open, tags=extra, origins=remote.origins, reporter=report
            )
            for member in members:
                report(Message(f"pushed {image.descriptor.digest} to {member}"))


def _read(files: tuple[str, ...]) -> list[str]:
    try:
        return [Path(path).read_text(encoding="utf-8") for path in files]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        place = str(error.filename) if isinstance(error, OSError) else None
        raise UsageError(f"a source cannot be read: {reason}", place=place) from error


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write: {error.strerror}", place=path) from error


def _parse(text: str) -> tuple[Reference | None, Descriptor | None]:
    """A source: a reference, or a descriptor (of a lone digest only that is known)."""
    text = text.strip()
    if text.startswith("sha256:"):
        references.parse(f"source@{text}")
        return None, Descriptor("", text, 0)
    if not text.startswith("{"):
        return references.parse(text), None
    try:
        document: dict[str, Any] = json.loads(text)
        if document.get("schemaVersion"):
            raise UsageError("a source is a manifest, not a descriptor", remedy='write {"digest": "sha256:…", …}')
        descriptor = msgspec.convert({"mediaType": "", "size": 0, **document}, Descriptor)
    except (ValueError, msgspec.ValidationError) as error:
        raise UsageError(f"a source is not a valid descriptor: {error}", place=text[:60]) from error
    references.parse(f"source@{descriptor.digest}")
    return None, descriptor


def _places(
    sources: list[tuple[Reference | None, Descriptor | None]], targets: list[Reference]
) -> list[tuple[Reference, Descriptor | None]]:
    """Digests and descriptors belong to the one repository that everything else names."""
    named = {reference.name: reference for reference, _ in sources if reference is not None}
    named |= {target.name: target for target in targets}
    found = []
    for reference, descriptor in sources:
        if reference is None:
            assert descriptor is not None
            if len(named) != 1:
                raise UsageError(
                    f"the repository of {descriptor.digest} is not known: there are {len(named)} it may be in",
                    remedy="write NAME@DIGEST",
                )
            (repository,) = named.values()
            reference = msgspec.structs.replace(repository, tag=None, digest=descriptor.digest)
        found.append((reference, descriptor))
    return found


def _annotations(texts: tuple[str, ...]) -> tuple[dict[str, str], list[tuple[Any, str, str]]]:
    """Those of the index itself, and those of the descriptors that it lists (with the platform, or None)."""
    from builder.solver.annotations import parse_annotation

    index, descriptors = {}, []
    for text in texts:
        for one in parse_annotation(text):
            if one.place == "index":
                index[one.key] = one.value
            elif one.place == "manifest-descriptor":
                descriptors.append((one.platform, one.key, one.value))
            else:
                raise Unsupported(
                    f"{text!r} would change the images themselves, which are listed as they are",
                    remedy="use index:KEY=VALUE or manifest-descriptor:KEY=VALUE",
                )
    return index, descriptors
