"""From solved layers to an image: its configuration, its manifest, and the index over several platforms.

Times: a layer's line of history bears the time at which the layer was made (cached or not, so that a rebuild that
changes nothing gives the same image), a line without a layer that of the line before it. SOURCE_DATE_EPOCH replaces
them all, except those of the base image.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from builder.oci.spec import (
    DOCKER_LAYER,
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
    encode,
)
from builder.plan.steps import PlannedImage
from builder.solver.solve import Root
from builder.store.store import Store

COMMENT = "builder.dockerfile.v1"


class Committed(msgspec.Struct, frozen=True):
    """An image in the store: the descriptor of its manifest or index, and the digest of each configuration."""

    descriptor: Descriptor
    config_digests: tuple[str, ...]


def commit(
    store: Store,
    images: tuple[PlannedImage, ...],
    roots: Mapping[int, Root],
    *,
    epoch: int | None,
    annotations: Mapping[str, str],
    as_index: bool,
) -> Committed:
    """Write the images' configurations and manifests (and with `as_index` one index over them) into the store.

    Every layer is here afterwards: those of base images that nobody needed before are fetched now.
    """
    manifests = [_commit_one(store, image, roots, epoch, annotations) for image in images]
    configs = tuple(config for _, config in manifests)
    if not as_index:
        return Committed(manifests[0][0], configs)
    index = Index(schema_version=2, media_type=OCI_INDEX, manifests=[descriptor for descriptor, _ in manifests])
    data = encode(index)
    return Committed(Descriptor(OCI_INDEX, store.layout.put(data), len(data)), configs)


def _commit_one(
    store: Store, image: PlannedImage, roots: Mapping[int, Root], epoch: int | None, annotations: Mapping[str, str]
) -> tuple[Descriptor, str]:
    layers = roots[image.node].layers
    config = encode(image_config(image, roots, epoch))
    config_digest = store.layout.put(config)
    descriptors = []
    for diff_id in layers:
        record = store.layers.ensure_blob(diff_id)
        descriptors.append(Descriptor(_oci_type(record.media_type), record.digest, record.size))
    manifest = encode(
        Manifest(
            schema_version=2,
            media_type=OCI_MANIFEST,
            config=Descriptor(OCI_CONFIG, config_digest, len(config)),
            layers=descriptors,
            annotations=dict(annotations) or None,
        )
    )
    digest = store.layout.put(manifest)
    return Descriptor(OCI_MANIFEST, digest, len(manifest), platform=_platform(image.platform)), config_digest


def image_config(image: PlannedImage, roots: Mapping[int, Root], epoch: int | None) -> ImageConfig:
    """The complete configuration of a planned image."""
    history = list(image.config.history or ())
    moment = _latest(history)
    if epoch is not None:
        moment = _timestamp(epoch)
    for line in image.history:
        created = roots[line.node].created if line.node is not None else None
        if created is not None and epoch is None:
            moment = _timestamp(created)
        history.append(
            History(created=moment, created_by=line.created_by, comment=COMMENT, empty_layer=line.node is None)
        )
    return msgspec.structs.replace(
        image.config,
        created=moment,
        history=history or None,
        rootfs=RootFS(diff_ids=list(roots[image.node].layers)),
    )


def _latest(history: list[History]) -> str | None:
    return next((line.created for line in reversed(history) if line.created), None)


def _timestamp(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return (
        moment.strftime("%Y-%m-%dT%H:%M:%S")
        + (f".{moment.microsecond:06d}".rstrip("0") if moment.microsecond else "")
        + "Z"
    )


def _oci_type(media_type: str) -> str:
    """Docker's layer types by their OCI names (`…diff.tar.gzip` is `…tar+gzip`)."""
    return media_type.replace(DOCKER_LAYER + ".", OCI_LAYER + "+").replace(DOCKER_LAYER, OCI_LAYER)


def _platform(platform: Platform) -> PlatformRecord:
    return PlatformRecord(platform.architecture, platform.os, variant=platform.variant)
