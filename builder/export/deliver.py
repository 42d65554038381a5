"""Delivers a solved build: commits the image, squashed if that was asked for, and writes every output."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from builder.errors import BuilderError
from builder.export.destination import WrittenFile, destination
from builder.export.output import Output, output_names
from builder.export.refused import refuse_outputs, refuse_undated
from builder.filesystem.compression import Compression
from builder.oci.reference import Reference
from builder.oci.spec import History, RootFS
from builder.plan.steps import HistoryLine, PlannedImage
from builder.progress import Reporter, StepDone, StepStarted
from builder.solver.annotations import Annotation
from builder.solver.commit import Committed, Form, Stated, commit
from builder.solver.solve import Root
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.export.attest import Attester, Said
    from builder.registry.transport import Session


Approve = Callable[[Sequence[PlannedImage], Mapping[int, Root]], None]


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that outputs are made from. `squash` is '', `all` or `new`; no outputs means the store.

    `index` asks for an index, and for directories by platform, even where there is one platform only. `approve` is
    shown the images as they will be, before anything is written; it raises what keeps them from that. `attester`
    says what goes beside them, if anything does. `names` without a tag get the usual one, unless they are pushed by
    digest. `wrote` is told of each file that images were written to.
    """

    store: Store
    images: tuple[PlannedImage, ...]
    roots: Mapping[int, Root]
    names: tuple[Reference, ...]
    outputs: tuple[Output, ...]
    annotations: tuple[Annotation, ...]
    squash: str
    index: bool = False
    epoch: int | None
    compression: Compression
    report: Reporter
    connect: Callable[[], Session]
    approve: Approve | None = None
    attester: Attester | None = None
    stated: Stated = lambda _: ()
    wrote: Callable[[WrittenFile], object] = lambda _: None


def deliver(delivery: Delivery) -> Committed | None:
    """Write the outputs; returns the image (None if there was none to be made). Raises BuilderError."""
    if delivery.outputs:
        refuse_outputs(delivery.outputs, named=bool(delivery.names))
        refuse_undated(delivery.outputs, delivery.epoch)
    if delivery.squash:
        delivery = _squashed(delivery)
    if delivery.approve is not None:
        delivery.approve(delivery.images, delivery.roots)
    first: Committed | None = None
    made: dict[tuple[Form, Said | None], Committed] = {}
    named: list[tuple[Committed, list[Reference], list[Reference], Output]] = []
    for output in delivery.outputs or (Output(type="image"),):
        if not output.holds_image:
            if output.type != "cacheonly":
                _write_files(delivery, output)
            continue
        names, pushed = output_names(output, delivery.names)
        # What is said of a pushed image does not tell of the names that stay here.
        key = _form(delivery, output), delivery.attester.choose(output, pushed) if delivery.attester else None
        if key not in made:
            with _step(delivery, f"export-{len(made)}", "exporting the image"):
                made[key] = _commit(delivery, *key)
        first = first or made[key]
        if output.type == "image":
            if output.by_digest:
                digest = made[key].descriptor.digest
                names, pushed = _with_digest(names, pushed, digest), _with_digest(pushed, pushed, digest)
            named.append((made[key], names, pushed if output.push else [], output))
        else:
            _write_archive(delivery, output, made[key])
    for committed, names, pushed, output in named:  # names change last, when nothing else can fail but a push
        delivery.store.images.tag(committed.descriptor, names)
        if pushed:
            _push(delivery, committed, pushed, insecure=output.insecure)
    return first


def _with_digest(names: list[Reference], which: list[Reference], digest: str) -> list[Reference]:
    """The names, those of `which` with the image's digest."""
    return [msgspec.structs.replace(name, digest=digest) if name in which else name for name in names]


def _commit(delivery: Delivery, form: Form, said: Said | None) -> Committed:
    attest = None
    if delivery.attester is not None and said is not None:
        attest = delivery.attester.writer(said, delivery.images, delivery.roots)
    return commit(
        delivery.store,
        delivery.images,
        delivery.roots,
        epoch=delivery.epoch,
        form=form,
        attest=attest,
        stated=delivery.stated,
    )


def _push(delivery: Delivery, committed: Committed, names: list[Reference], *, insecure: bool) -> None:
    from builder.export.registry import push_image

    label = f"pushing {', '.join(name.familiar for name in names)}"
    with _step(delivery, label, label), delivery.connect() as session:
        if insecure:
            from builder.registry.insecure import trust

            for domain in dict.fromkeys(name.domain for name in names):
                trust(session, domain)
        push_image(delivery.store, session, committed.descriptor, names, delivery.report)


def _form(delivery: Delivery, output: Output) -> Form:
    return Form(
        compression=output.compression,
        force=output.force_compression,
        docker_types=output.oci_media_types is False,
        annotations=(*delivery.annotations, *output.annotations),
        index=delivery.index,
    )


def _squashed(delivery: Delivery) -> Delivery:
    """The delivery with every image's layers squashed; the history keeps its lines."""
    from builder.export.squash import squash_layers

    images, roots = [], dict(delivery.roots)
    for image in delivery.images:
        root = roots[image.node]
        base = len(image.config.rootfs.diff_ids or ()) if delivery.squash == "new" else 0
        if len(root.layers) - base < 2:
            images.append(image)
            continue
        with _step(delivery, f"squash-{len(roots)}", f"squashing {len(root.layers) - base} layers"):
            merged = squash_layers(delivery.store, root.layers, base, delivery.compression)
        number = max(roots) + 1
        roots[number] = Root((*root.layers[:base], merged), root.created)
        images.append(_with_one_layer(image, number, base))
    return msgspec.structs.replace(delivery, images=tuple(images), roots=roots)


def _with_one_layer(image: PlannedImage, node: int, base: int) -> PlannedImage:
    """The image with all its lines of history, of which only the last one bears the merged layer."""
    inherited: list[History] = list(image.config.history or ())
    if base == 0:
        inherited = [msgspec.structs.replace(line, empty_layer=True) for line in inherited]
    lines = [msgspec.structs.replace(line, node=None) for line in image.history]
    lines.append(HistoryLine("SQUASH", node))
    rootfs = RootFS(diff_ids=(image.config.rootfs.diff_ids or [])[:base])
    config = msgspec.structs.replace(image.config, history=inherited, rootfs=rootfs)
    return msgspec.structs.replace(image, node=node, config=config, history=tuple(lines))


def _write_files(delivery: Delivery, output: Output) -> None:
    """A directory for each platform where there are several, or as `platform-split` has it, which in a tar counts for
    the names of statements alone: as in BuildKit."""
    from builder.export.files import Files, refuse_overlap, write_directory, write_tar

    several = delivery.index or len(delivery.images) > 1
    split = several if output.platform_split is None else output.platform_split
    names = [str(image.platform).replace("/", "_") for image in delivery.images]
    layers = [delivery.roots[image.node].layers for image in delivery.images]

    def files(position: int, below: str = "") -> Files:
        beside = _statements(delivery, output, position, names[position] if several and not split else "")
        return Files(layers=layers[position], beside=beside, below=below)

    if output.type == "tar":
        with _step(delivery, output.dest, f"writing files to {output.dest}"), destination(output.dest) as file:
            images = [files(position, name if several else "") for position, name in enumerate(names)]
            write_tar(delivery.store, images, file.write, epoch=delivery.epoch)
        return
    if len(names) > 1 and not split:
        refuse_overlap(delivery.store, dict(zip(names, layers, strict=True)))
    if output.delete:
        from builder.export.mirror import remove_others

        with _step(delivery, f"clear {output.dest}", f"removing from {output.dest} what is not in the image"):
            parts = [(name if split else "", files(position)) for position, name in enumerate(names)]
            remove_others(delivery.store, parts, output.dest)
    for position, name in enumerate(names):
        path = os.path.join(output.dest, name) if split else output.dest
        with _step(delivery, path, f"writing files to {path}"):
            write_directory(delivery.store, files(position), path, epoch=delivery.epoch)


def _statements(delivery: Delivery, output: Output, position: int, platform: str) -> dict[str, bytes]:
    """What is said of an image's files, as files beside them; with a `platform` that is in their names."""
    if delivery.attester is None:
        return {}
    name = str(delivery.names[0]) if delivery.names else "image"
    found = delivery.attester.files(output, delivery.images[position], position, delivery.roots, name)
    if not platform:
        return found
    return {f".{platform}".join(os.path.splitext(name)): data for name, data in found.items()}


def _write_archive(delivery: Delivery, output: Output, committed: Committed) -> None:
    from builder.export.archive import ArchivedImage, write_archive

    names = tuple(output_names(output, delivery.names)[0])
    images = [ArchivedImage(committed.descriptor, names)]
    if not output.tar:
        from builder.export.layout import write_layout

        with _step(delivery, output.dest, f"writing the layout {output.dest}"):
            write_layout(delivery.store, images, output.dest)
        return
    with _step(delivery, output.dest, f"writing {output.dest}"), destination(output.dest) as file:
        write_archive(delivery.store, images, file, docker=output.type == "docker")
        if output.dest != "-":
            delivery.wrote(WrittenFile.of(file))


@contextmanager
def _step(delivery: Delivery, step: str, label: str) -> Iterator[None]:
    delivery.report(StepStarted(step, label))
    started = time.monotonic()
    try:
        yield
    except BaseException as error:
        cause = error.cause if isinstance(error, BuilderError) else type(error).__name__
        delivery.report(StepDone(step, label, seconds=time.monotonic() - started, error=cause))
        raise
    delivery.report(StepDone(step, label, seconds=time.monotonic() - started))
