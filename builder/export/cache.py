"""Writes the steps of a build as a cache for other machines: to a registry, to a directory, or into the image itself.

What travels are the records of every step that the build found or made, and of layers those of the result (mode=min)
or all (mode=max): base images' are in their own registries. A layer that only another cache holds is fetched when it
has to be sent, and not at all where it is there already.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress

import msgspec

from builder.errors import BuilderError, Interrupted, StoreError
from builder.export.cache_blobs import CacheBlobs
from builder.export.cache_options import CacheTarget
from builder.export.cache_steps import SolvedSteps, gather
from builder.oci.layout import Layout
from builder.oci.spec import DOCKER_MANIFEST, OCI_MANIFEST, REF_NAME, Descriptor, Manifest, encode
from builder.progress import StepDone, StepStarted, Warned
from builder.solver.annotations import Annotation
from builder.solver.cache_records import ANNOTATION, CONFIG, Document, encode_cache, is_text
from builder.store.collect import Needed, Walker

_LARGEST_ANNOTATION = 2 << 20  # bytes; registries take manifests of 4 MiB


def export_cache(target: CacheTarget, steps: SolvedSteps) -> None:
    """Write one cache, which is not an inline one. Raises BuilderError, unless the target wants that to be a
    warning."""
    label = f"exporting cache to {target}"
    steps.report(StepStarted(label, label))
    started = time.monotonic()
    try:
        with steps.store.scratch() as scratch:
            _write(target, steps, scratch)
    except BuilderError as error:
        steps.report(StepDone(label, label, seconds=time.monotonic() - started, error=error.cause))
        if isinstance(error, Interrupted) or not target.ignore_error:
            raise
        steps.report(Warned(f"the cache was not written to {target}: {error}"))
    else:
        steps.report(StepDone(label, label, seconds=time.monotonic() - started))


def inline_annotation(steps: SolvedSteps) -> Annotation:
    """The cache as an annotation of the image's manifest: keys and diff IDs, no recipes. Nothing else of the image
    changes, its ID neither."""
    records, free = gather(steps)
    data = encode_cache(Document((), tuple(records), free), recipes=False)
    if len(data) > _LARGEST_ANNOTATION:
        raise StoreError(
            f"the inline cache has {len(data)} bytes, more than a manifest can hold", remedy="use type=registry,ref=…"
        )
    return Annotation("manifest", ANNOTATION, data.decode())


def _write(target: CacheTarget, steps: SolvedSteps, scratch: str) -> None:
    records, free = gather(steps)
    blobs = CacheBlobs(steps, scratch)
    wanted: Iterable[str] = dict.fromkeys(record.diff_id for record in sorted(records, key=lambda one: one.key))
    if not target.everything:
        wanted = [diff_id for diff_id in wanted if diff_id in steps.results]
    layers = [diff_id for diff_id in wanted if blobs.add_layer(diff_id, target)]
    mounts = []
    for mount_id in target.mounts:
        found = blobs.add_mounts(mount_id) if is_text(mount_id) else []
        if not found:
            steps.report(Warned(f"there is no cache mount {mount_id!r}, so none travels in {target}"))
        mounts += found
    document = Document(tuple(layers), tuple(records), free, tuple(mounts), steps.steps)
    config = blobs.add_document(encode_cache(document, recipes=target.recipes), CONFIG)
    manifest = Manifest(
        schema_version=2,
        media_type=DOCKER_MANIFEST if target.docker_types else OCI_MANIFEST,
        config=config,
        layers=blobs.layers,
    )
    descriptor = blobs.add_document(encode(manifest), manifest.media_type)
    if target.reference is not None:
        from builder.registry.push import push

        push(
            steps.session(),
            target.reference,
            descriptor,
            blobs.open,
            origins=lambda: blobs.origins,
            reporter=steps.report,
        )
    else:
        _write_layout(target, descriptor, [*blobs.layers, config], blobs)


def _write_layout(target: CacheTarget, manifest: Descriptor, parts: list[Descriptor], blobs: CacheBlobs) -> None:
    """Add the cache to the layout, in the place of the one with its tag; the tag changes last."""
    layout = Layout(target.path)
    with layout.writing() as is_alone:
        for descriptor in (*parts, manifest):
            if not layout.has(descriptor.digest):
                _copy(layout, descriptor, blobs)
        with layout.changing() as entries:
            entries[:] = [entry for entry in entries if (entry.annotations or {}).get(REF_NAME) != target.tag]
            entries.append(msgspec.structs.replace(manifest, annotations={REF_NAME: target.tag}))
        if target.reset and is_alone():  # what others write may have no name yet: then the next reset removes the rest
            _remove_unneeded(layout)


def _remove_unneeded(layout: Layout) -> None:
    """Remove the blobs that no entry of the layout refers to."""
    needed = Needed()
    Walker(layout).reach([entry.digest for entry in layout.index().manifests], needed)
    for digest in layout.digests():
        if digest not in needed.blobs:
            with suppress(FileNotFoundError):
                os.unlink(layout.blob_path(digest))


def _copy(layout: Layout, descriptor: Descriptor, blobs: CacheBlobs) -> None:
    try:
        with blobs.open(descriptor.digest) as source:
            layout.receive(source, descriptor.digest)
    except OSError as error:
        raise StoreError(f"cannot write the cache: {error.strerror}", place=layout.path) from error
