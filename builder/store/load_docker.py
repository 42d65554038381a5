"""The older form of image archives, Docker's: a `manifest.json` with the paths of configurations and layers."""

from __future__ import annotations

import msgspec

from builder.errors import LayerError
from builder.oci import reference as references
from builder.oci.reference import Reference
from builder.oci.spec import (
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Manifest,
    Platform,
    decode,
    digest_of,
    encode,
)
from builder.store.archive import Contents
from builder.store.load_blobs import Blobs


class Saved(msgspec.Struct, rename="pascal"):
    """An entry of Docker's `manifest.json`: paths in the archive."""

    config: str
    layers: list[str] | None = None
    repo_tags: list[str] | None = None

    def names(self) -> list[Reference]:
        """Raises InvalidReference."""
        return [references.parse(name) for name in self.repo_tags or ()]


def read_saved(contents: Contents) -> list[Saved]:
    """What the archive's `manifest.json` lists, if it has one. Raises LayerError."""
    piece = contents.find("manifest.json")
    if piece is None:
        return []
    try:
        return msgspec.json.decode(contents.document("manifest.json", piece), type=list[Saved])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LayerError(f"manifest.json is malformed: {error}", place=contents.place) from error


def make_manifest(saved: Saved, contents: Contents, blobs: Blobs, platform: Platform | None) -> Descriptor | None:
    """Gather the parts of an image, and make it a manifest, which it has none of; None for one of another platform.
    Raises LayerError."""
    data = contents.document(saved.config, contents.find(saved.config))
    config = decode(data, ImageConfig, saved.config)
    diff_ids = config.rootfs.diff_ids or []
    paths = saved.layers or []
    if platform is not None and config.platform() != platform:
        return None
    if len(diff_ids) != len(paths):
        raise LayerError(
            f"manifest.json has {len(paths)} layers, the configuration {len(diff_ids)}", place=contents.place
        )
    manifest = encode(
        Manifest(
            schema_version=2,
            media_type=OCI_MANIFEST,
            config=Descriptor(OCI_CONFIG, digest_of(data), len(data)),
            layers=[blobs.add_layer(diff_id, path) for diff_id, path in zip(diff_ids, paths, strict=True)],
        )
    )
    blobs.add(data)
    blobs.add(manifest)
    return Descriptor(OCI_MANIFEST, digest_of(manifest), len(manifest))
