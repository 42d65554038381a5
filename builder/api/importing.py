"""An image made of a file system's archive, as `docker import` does: one layer, and a configuration from changes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from builder.api.special import parse_epoch
from builder.dockerfile import instructions as df
from builder.errors import BuilderError, LayerError, PlanError
from builder.filesystem.archive import TarReader
from builder.filesystem.readable import Readable
from builder.oci.platform import host_platform
from builder.oci.reference import Reference
from builder.oci.spec import OCI_CONFIG, OCI_MANIFEST, Descriptor, History, ImageConfig, Manifest, Platform, RootFS
from builder.oci.spec import encode as encode_json
from builder.store.store import Store

_ALLOWED = (
    df.Cmd, df.Entrypoint, df.Env, df.Expose, df.HealthCheck, df.Label, df.OnBuild, df.Shell, df.StopSignal, df.User,
    df.Volume, df.Workdir,
)  # fmt: skip


def import_image(
    store: Store,
    source: str,
    stream: Readable | None,
    *,
    name: Reference | None = None,
    changes: Sequence[str] = (),
    message: str = "",
    platform: Platform | None = None,
    environ: Mapping[str, str] | None = None,
) -> str:
    """Make an image of a tar archive, compressed or not, and return its ID.

    `source` is what errors call the archive; without a `stream` it is a URL that is fetched. The image's history tells
    such a URL, and `-` of anything else, as docker's client does it. SOURCE_DATE_EPOCH in `environ` sets the image's
    time. Raises UsageError, LayerError, ContextError, DockerfileError, PlanError, StoreError.
    """
    config = _configuration(changes, platform or host_platform())
    created = _now(environ or {})
    with store.lease(), store.scratch() as scratch:
        if stream is None:
            shown = _redacted(source)
            layer, diff_id = _from_url(store, source, scratch, environ)
        else:
            shown = "-"
            layer, diff_id = _add_layer(store, stream, scratch, source)
        config = msgspec.structs.replace(
            config,
            created=created,
            history=[History(created=created, comment=message or f"Imported from {shown}")],
            rootfs=RootFS(diff_ids=[diff_id]),
        )
        data = encode_json(config)
        image_id = store.layout.put(data)
        manifest = encode_json(
            Manifest(
                schema_version=2,
                media_type=OCI_MANIFEST,
                config=Descriptor(OCI_CONFIG, image_id, len(data)),
                layers=[layer],
            )
        )
        descriptor = Descriptor(OCI_MANIFEST, store.layout.put(manifest), len(manifest))
        store.images.tag(descriptor, [name] if name else [])
    return image_id


def _configuration(changes: Sequence[str], platform: Platform) -> ImageConfig:
    """What changes make of nothing: as docker does it, they are read as the lines of one Dockerfile."""
    config = ImageConfig(architecture=platform.architecture, os=platform.os, variant=platform.variant)
    if not any(changes):
        return config
    from builder.dockerfile.parser import change_place, parse_changes
    from builder.plan.dispatch import dispatch
    from builder.plan.image import ImageState
    from builder.plan.options import PlanOptions
    from builder.plan.scope import Scope
    from builder.plan.stages import StageEntry
    from builder.plan.state import StageState

    entry = StageEntry(None, "import", "", platform, 0)
    state = StageState(entry, ImageState(config), Scope(), 0, platform, PlanOptions(host=host_platform()))
    state.add_node = lambda node: 0  # WORKDIR's directory is not made: there is no build
    for instruction in parse_changes("\n".join(changes)):
        try:
            if not isinstance(instruction, _ALLOWED):
                raise PlanError(
                    f"{instruction.keyword.upper()} cannot be a change",
                    remedy="allowed are CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL,"
                    " USER, VOLUME and WORKDIR",
                )
            dispatch(state, instruction)
        except BuilderError as error:
            error.place = change_place(instruction.source)
            raise
    return state.image.image


def _redacted(url: str) -> str:
    """A URL without credentials."""
    from builder.context.http import redacted

    return redacted(url)


def _from_url(store: Store, url: str, scratch: str, environ: Mapping[str, str] | None) -> tuple[Descriptor, str]:
    from builder.context.http import fetch

    with open(os.path.join(scratch, "download"), "w+b") as file:
        fetch(url, file, environ=environ)
        file.seek(0)
        return _add_layer(store, file, scratch, _redacted(url))


def _add_layer(store: Store, stream: Readable, scratch: str, place: str) -> tuple[Descriptor, str]:
    """Compress the archive as a layer, once it is known to be a good one; its bytes stay as they are."""
    from builder.filesystem.compress import LayerSink
    from builder.filesystem.decompress import decompressor

    limits = store.limits
    reader = decompressor(stream, limits=limits, place=place)
    with LayerSink(scratch, sync=False) as sink:

        def copied() -> Iterator[bytes]:
            while piece := reader.read(1 << 20):
                sink.write(piece)
                yield piece

        try:
            archive = TarReader(copied(), max_entries=limits.entries or None)
            for _ in archive:
                pass
            archive.drain()
        except LayerError as error:
            if error.place not in (None, "", place):
                error.cause = f"{error.place}: {error.cause}"
            error.place = place
            raise
        blob = sink.finish()
    store.layers.add(blob)
    return Descriptor(blob.media_type, blob.digest, blob.size), blob.diff_id


def _now(environ: Mapping[str, str]) -> str:
    epoch = parse_epoch(environ.get("SOURCE_DATE_EPOCH", ""))
    moment = datetime.fromtimestamp(epoch, UTC) if epoch is not None else datetime.now(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
