"""From solved layers to an image: its configuration, its manifest, and the index over several platforms.

Times: a layer's line of history bears the time at which the layer was made (cached or not, so that a rebuild that
changes nothing gives the same image), a line without a layer that of the line before it. The lines before the build's
first layer bear that layer's time, not one of the base, as in BuildKit (normalizeLayersAndHistory); without a layer it
is the base's last. SOURCE_DATE_EPOCH replaces them all, except those of the base image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from builder.errors import UsageError
from builder.filesystem.compression import UNCOMPRESSED, ZSTD, Compression, kind_of
from builder.oci.spec import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    History,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    PlatformRecord,
    RootFS,
    digest_of,
    encode,
    without_empty,
)
from builder.plan.steps import ImageKey, PlannedImage
from builder.solver.annotations import Annotation, chosen
from builder.solver.solve import Root
from builder.store.records import LayerRecord
from builder.store.store import Store

COMMENT = "builder.dockerfile.v1"
_UNKNOWN = "layer of the base image"
"""What a line of history says of a layer that the base's own history does not tell of."""


class Committed(msgspec.Struct, frozen=True):
    """An image in the store: the descriptor of its manifest or index, and the digest of each configuration."""

    descriptor: Descriptor
    config_digests: tuple[str, ...]


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """How an image is written: `compression` of the layers that this build made (None: as they are; with `force` of all
    layers), OCI's or Docker's media types, annotations, an index even over one manifest."""

    compression: Compression | None = None
    force: bool = False
    docker_types: bool = False
    annotations: tuple[Annotation, ...] = ()
    index: bool = False


Stated = Callable[[ImageKey], Sequence[LayerRecord]]
"""The blobs that a base image names, lowest layer first."""


Attest = Callable[[int, Descriptor, Manifest], Descriptor]
"""Writes what is said of an image: from its position, and its manifest's descriptor and content, to the entry that
stands for it in the index."""


def commit(
    store: Store,
    images: tuple[PlannedImage, ...],
    roots: Mapping[int, Root],
    *,
    epoch: int | None,
    form: Form,
    attest: Attest | None = None,
    stated: Stated = lambda _: (),
) -> Committed:
    """Write the images' configurations and manifests, and over several of them an index, into the store. With `attest`
    there is an index in any case, and in it, behind the images, what `attest` says of each.

    Every layer is here afterwards: those of base images that nobody needed before are fetched now. `stated` says which
    they are: what another image says of the same layer may be a lie.
    """
    for_index = form.index or any(annotation.place == "index" for annotation in form.annotations)
    manifests = [_commit_one(store, image, roots, epoch, form, stated) for image in images]
    configs = tuple(manifest.config.digest for _, manifest in manifests)
    said = [attest(number, *made) for number, made in enumerate(manifests)] if attest is not None else []
    outer = chosen(form.annotations, "index-descriptor")
    if len(images) == 1 and not for_index and not said:
        descriptor, _ = manifests[0]
        if outer:
            descriptor = msgspec.structs.replace(descriptor, annotations={**(descriptor.annotations or {}), **outer})
        return Committed(descriptor, configs)
    index = Index(
        schema_version=2,
        media_type=DOCKER_INDEX if form.docker_types else OCI_INDEX,
        manifests=[*(descriptor for descriptor, _ in manifests), *said],
        annotations=chosen(form.annotations, "index"),
    )
    data = encode(index)
    return Committed(Descriptor(index.media_type, store.layout.put(data), len(data), annotations=outer), configs)


def _commit_one(
    store: Store, image: PlannedImage, roots: Mapping[int, Root], epoch: int | None, form: Form, stated: Stated
) -> tuple[Descriptor, Manifest]:
    layers = roots[image.node].layers
    inherited = len(image.config.rootfs.diff_ids or ())
    base = stated(image.base)[:inherited] if image.base is not None else ()
    config = encode(image_config(image, roots, epoch))
    descriptors = []
    for position, diff_id in enumerate(layers):
        own = position >= inherited or form.force
        said = base[position] if position < len(base) else None
        record = store.layers.ensure_form(diff_id, form.compression if own else None, said)
        descriptors.append(Descriptor(layer_type(record.media_type, form.docker_types), record.digest, record.size))
    manifest = Manifest(
        schema_version=2,
        media_type=DOCKER_MANIFEST if form.docker_types else OCI_MANIFEST,
        config=Descriptor(DOCKER_CONFIG if form.docker_types else OCI_CONFIG, digest_of(config), len(config)),
        layers=descriptors,
        annotations=chosen(form.annotations, "manifest", image.platform),
    )
    data = encode(manifest)
    _, digest = store.layout.put_all((config, data))
    descriptor = Descriptor(
        manifest.media_type,
        digest,
        len(data),
        annotations=chosen(form.annotations, "manifest-descriptor", image.platform),
        platform=_platform(image.platform),
    )
    return descriptor, manifest


def image_config(image: PlannedImage, roots: Mapping[int, Root], epoch: int | None) -> ImageConfig:
    """The complete configuration of a planned image."""
    history = _accounted(image.config)
    made = [roots[line.node].created if line.node is not None and epoch is None else None for line in image.history]
    first = next((created for created in made if created is not None), epoch)
    moment = _timestamp(first) if first is not None else _latest(history)
    for line, created in zip(image.history, made, strict=True):
        if created is not None:
            moment = _timestamp(created)
        history.append(
            History(created=moment, created_by=line.created_by, comment=COMMENT, empty_layer=line.node is None)
        )
    return msgspec.structs.replace(
        image.config,
        created=moment,
        history=history or None,
        config=without_empty(image.config.config),
        rootfs=RootFS(diff_ids=list(roots[image.node].layers)),
    )


def _accounted(base: ImageConfig) -> list[History]:
    """The history of the base with one line for each of its layers: what is too much counts as empty, and what is
    missing is filled in, as in BuildKit (`normalizeLayersAndHistory`), though before the lines of this build."""
    missing = len(base.rootfs.diff_ids or ())
    history = []
    for line in base.history or ():
        if not line.empty_layer and not missing:
            line = msgspec.structs.replace(line, empty_layer=True)
        missing -= not line.empty_layer
        history.append(line)
    return history + [History(created=_latest(history), created_by=_UNKNOWN, comment=COMMENT)] * missing


def _latest(history: list[History]) -> str | None:
    return next((line.created for line in reversed(history) if line.created), None)


def _timestamp(seconds: float) -> str:
    whole = int(seconds)
    more, microseconds = divmod(round((seconds - whole) * 1_000_000), 1_000_000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole + more))  # `datetime` takes a millisecond to load
    return moment + (f".{microseconds:06d}".rstrip("0") if microseconds else "") + "Z"


def layer_type(media_type: str, docker: bool) -> str:
    """A layer's media type by its OCI or its Docker name (`…tar+gzip` is `…diff.tar.gzip`)."""
    kind = kind_of(media_type)
    suffix = "" if kind == UNCOMPRESSED else kind
    if not docker:
        return f"{OCI_LAYER}+{suffix}" if suffix else OCI_LAYER
    if kind == ZSTD:
        raise docker_zstd()
    return f"{DOCKER_LAYER}.{suffix}" if suffix else DOCKER_LAYER


def docker_zstd() -> UsageError:
    """What is said to whoever wants layers in zstd by Docker's names."""
    return UsageError("Docker's media types have no zstd layers", remedy="leave out oci-mediatypes=false")


def _platform(platform: Platform) -> PlatformRecord:
    return PlatformRecord(platform.architecture, platform.os, variant=platform.variant)
