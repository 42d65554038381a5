"""Delivers a solved build: commits the image, squashed if that was asked for, and writes every output."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from builder.errors import BuilderError, StoreError
from builder.export.archive import ArchivedImage, write_archive
from builder.export.output import Output
from builder.oci import reference
from builder.oci.reference import Reference
from builder.oci.spec import History
from builder.plan.steps import HistoryLine, PlannedImage
from builder.progress import Reporter, StepDone, StepStarted
from builder.solver.commit import Committed, commit
from builder.solver.solve import Root
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.api.options import BuildOptions, BuildResult


class Delivery:
    """Everything that the outputs are made from."""

    def __init__(
        self,
        store: Store,
        images: tuple[PlannedImage, ...],
        roots: Mapping[int, Root],
        options: BuildOptions,
        epoch: int | None,
        report: Reporter,
    ) -> None:
        self.store = store
        self.images = images
        self.roots = dict(roots)
        self.options = options
        self.epoch = epoch
        self.report = report
        self.names = tuple(reference.parse(tag) for tag in options.tags)


def deliver(delivery: Delivery) -> BuildResult:
    """Write the outputs; without any, the image goes to the store. Raises BuilderError; what was begun is removed."""
    from builder.api.options import BuildResult

    outputs = delivery.options.outputs or (Output(type="image"),)
    if delivery.options.squash:
        _squash(delivery)
    committed: Committed | None = None
    if any(output.type in ("image", "oci", "docker") for output in outputs):
        committed = _commit(delivery, outputs)
    for output in outputs:
        _write(delivery, output, committed)
    if committed is None:
        return BuildResult()
    return BuildResult(
        image_id=committed.config_digests[0],
        digest=committed.descriptor.digest,
        media_type=committed.descriptor.media_type,
        size=committed.descriptor.size,
        names=tuple(name.familiar for name in delivery.names),
    )


def _squash(delivery: Delivery) -> None:
    """Replace the layers of every image by squashed ones; the history keeps its lines."""
    from builder.export.squash import squash_layers

    images = []
    for image in delivery.images:
        root = delivery.roots[image.node]
        base = len(image.config.rootfs.diff_ids or ()) if delivery.options.squash == "new" else 0
        if len(root.layers) - base < 2:
            images.append(image)
            continue
        with _step(delivery, "squash", f"squashing {len(root.layers) - base} layers"):
            merged = squash_layers(delivery.store, root.layers, base)
        number = max(delivery.roots) + 1
        delivery.roots[number] = Root((*root.layers[:base], merged), root.created)
        images.append(_with_one_layer(image, number, base))
    delivery.images = tuple(images)


def _with_one_layer(image: PlannedImage, node: int, base: int) -> PlannedImage:
    """The image with all its lines of history, of which only the last one bears the merged layer."""
    inherited: list[History] = list(image.config.history or ())
    if base == 0:
        inherited = [msgspec.structs.replace(line, empty_layer=True) for line in inherited]
    lines = [msgspec.structs.replace(line, node=None) for line in image.history]
    lines.append(HistoryLine("SQUASH", node))
    config = msgspec.structs.replace(image.config, history=inherited)
    return msgspec.structs.replace(image, node=node, config=config, history=tuple(lines))


def _commit(delivery: Delivery, outputs: tuple[Output, ...]) -> Committed:
    annotations = dict(delivery.options.annotations)
    for output in outputs:
        annotations.update(output.annotations)
    with _step(delivery, "export", "exporting the image"):
        return commit(
            delivery.store,
            delivery.images,
            delivery.roots,
            epoch=delivery.epoch,
            annotations=annotations,
            as_index=len(delivery.images) > 1,
        )


def _write(delivery: Delivery, output: Output, committed: Committed | None) -> None:
    if output.type == "image":
        assert committed is not None
        names = [reference.parse(name) for name in output.names] or list(delivery.names)
        delivery.store.images.tag(committed.descriptor, names)
    elif output.type in ("oci", "docker"):
        assert committed is not None
        _write_archive(delivery, output, committed)
    elif output.type == "tar":
        from builder.export.files import write_tar

        layers = delivery.roots[delivery.images[0].node].layers
        with _step(delivery, "tar", f"writing files to {output.dest}"), _destination(output.dest) as file:
            write_tar(delivery.store, layers, file.write)
    else:
        from builder.export.files import write_directory

        several = len(delivery.images) > 1
        for image in delivery.images:
            folder = str(image.platform).replace("/", "_") if several else ""
            path = os.path.join(output.dest, folder) if folder else output.dest
            with _step(delivery, "local", f"writing files to {path}"):
                write_directory(delivery.store, delivery.roots[image.node].layers, path)


def _write_archive(delivery: Delivery, output: Output, committed: Committed) -> None:
    names: tuple[Reference, ...] = tuple(reference.parse(name) for name in output.names) or delivery.names
    images = [ArchivedImage(committed.descriptor, names)]
    if not output.tar:
        from builder.export.layout import write_layout

        with _step(delivery, "layout", f"writing the layout {output.dest}"):
            write_layout(delivery.store, images, output.dest)
        return
    with _step(delivery, "archive", f"writing {output.dest}"), _destination(output.dest) as file:
        write_archive(delivery.store, images, file.write, docker=output.type == "docker")


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


@contextmanager
def _destination(path: str) -> Iterator[BinaryIO]:
    """A file that appears under its name when it is complete; `-` is standard output."""
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    temporary = f"{path}.{os.getpid()}.part"
    try:
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(f"cannot write: {error.strerror}", place=path) from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
