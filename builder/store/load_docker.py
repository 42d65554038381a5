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
    encode,
)
from builder.store.archive import Contents, Piece
from builder.store.load_blobs import Blobs

_MOST_SAVED = 10_000  # entries of a manifest.json, which has one for each image


class Saved(msgspec.Struct, rename="pascal"):
    """An entry of Docker's `manifest.json`: paths in the archive."""

    config: str
    layers: list[str] | None = None
    repo_tags: list[str] | None = None

    def names(self) -> list[Reference]:
        """Raises InvalidReference."""
        return [references.parse(name) for name in self.repo_tags or ()]


def read_saved(contents: Contents) -> list[Saved]:
    """What the archive's `manifest.json` lists, if it has one. Raises LayerError, for more than _MOST_SAVED, too."""
    piece = contents.find("manifest.json")
    if piece is None:
        return []
    try:
        saved = msgspec.json.decode(contents.document("manifest.json", piece), type=list[Saved])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LayerError(f"manifest.json is malformed: {error}", place=contents.place) from error
    if len(saved) > _MOST_SAVED:
        raise LayerError(
            f"manifest.json has {len(saved)} images, more than the {_MOST_SAVED} that are read", place=contents.place,
            remedy="save fewer images in one archive",
        )  # fmt: skip
    return saved


class DockerImages:
    """Makes manifests for the images of an archive, which has none of them; `blobs` gathers their parts."""

    def __init__(self, contents: Contents, blobs: Blobs, platform: Platform | None) -> None:
        self._contents = contents
        self._blobs = blobs
        self._platform = platform
        self._configurations: dict[str, tuple[list[str], Platform]] = {}  # diff IDs and platform, by digest

    def make(self, saved: Saved) -> Descriptor | None:
        """The manifest of one image; None for an image of another platform than the one asked for. Raises
        LayerError."""
        piece = self._contents.find(saved.config)
        diff_ids, platform = self._configuration(saved.config, piece)
        paths = saved.layers or []
        if self._platform is not None and platform != self._platform:
            return None
        if len(diff_ids) != len(paths):
            raise LayerError(
                f"manifest.json has {len(paths)} layers, the configuration {len(diff_ids)}", place=self._contents.place
            )
        assert piece is not None
        self._blobs.take_piece(piece)
        config = Descriptor(OCI_CONFIG, piece.digest, piece.size)
        layers = [self._blobs.add_layer(diff_id, path) for diff_id, path in zip(diff_ids, paths, strict=True)]
        manifest = encode(Manifest(schema_version=2, media_type=OCI_MANIFEST, config=config, layers=layers))
        return Descriptor(OCI_MANIFEST, self._blobs.add(manifest), len(manifest))

    def _configuration(self, name: str, piece: Piece | None) -> tuple[list[str], Platform]:
        """What a configuration states: read once, though many images may have it."""
        if piece is None or piece.digest not in self._configurations:
            config = decode(self._contents.document(name, piece), ImageConfig, name)
            assert piece is not None
            self._configurations[piece.digest] = config.rootfs.diff_ids or [], config.platform()
        return self._configurations[piece.digest]
