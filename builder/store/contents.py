"""The contents of an image in the store, whole or after one of its layers, streamed from its blobs.

How a step of an image is named: `IMAGE@N` is what there is after layer N, counted from 1 as `builder layers` does, and
`IMAGE~N` the image without its last N layers. Neither can be part of a reference: a digest there has an algorithm and a
colon (`name@sha256:…`), and no name or tag has a `~`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec

from builder.errors import LayerError, StoreError
from builder.filesystem.archive import Content
from builder.filesystem.contents import Contents, Stored, read_files
from builder.filesystem.decompress import Reader, decompressor
from builder.oci.spec import Descriptor, Manifest, Platform
from builder.store.describe import Describer, PlatformImage
from builder.store.store import Store

_STEP = re.compile(r"(.+)(@|~)([0-9]{1,6})", re.DOTALL)


class Selected(msgspec.Struct, frozen=True):
    """An image, or what it was after its first `count` layers; `name` is how it was asked for."""

    name: str
    image: PlatformImage
    count: int

    @property
    def manifest(self) -> Manifest:
        assert self.image.manifest is not None
        return self.image.manifest

    @property
    def is_whole(self) -> bool:
        """Whether this is the image itself: only of that it keeps the configuration."""
        return self.count == len(self.manifest.layers)

    @property
    def layers(self) -> list[Descriptor]:
        return self.manifest.layers[: self.count]

    @property
    def diff_ids(self) -> list[str]:
        assert self.image.config is not None
        return (self.image.config.rootfs.diff_ids or [])[: self.count]

    @property
    def instructions(self) -> list[str]:
        """What made each layer, '' where the history does not say."""
        assert self.image.config is not None
        lines = [line.created_by for line in self.image.config.history or () if not line.empty_layer]
        return [*lines, *[""] * self.count][: self.count]


def select(store: Store, text: str, platform: Platform | None = None) -> Selected:
    """The image, or the step of one, that `text` names; of an index the variant for `platform`, or this machine's.
    Raises NoSuchImage, StoreError."""
    match = _STEP.fullmatch(text)
    name = match[1] if match is not None else text
    image = Describer(store).choose(store.images.find(name), platform)
    assert image.manifest is not None
    layers = len(image.manifest.layers)
    count = layers
    if match is not None:
        count = int(match[3]) if match[2] == "@" else layers - int(match[3])
    if not 0 <= count <= layers:
        raise StoreError(
            f"the image has {layers} layer{'' if layers == 1 else 's'}",
            place=text,
            remedy=f"'builder layers {name}' shows them; {name}@N is what there is after layer N, {name}~N before the"
            " last N",
        )
    return Selected(text, image, count)


@contextmanager
def open_layer(store: Store, layer: Descriptor) -> Iterator[Reader]:
    """A layer's uncompressed tar stream. Raises StoreError, Unsupported; LayerErrors of the block name the layer."""
    with decompressor(store.layout.open(layer.digest), layer.media_type) as stream:
        try:
            yield stream
        except LayerError as error:
            error.cause = f"{error.place}: {error.cause}" if error.place else error.cause
            error.place = f"layer {layer.digest}"
            raise


def read_contents(
    store: Store, selected: Selected, *, digests: bool = False, shared: Contents | None = None
) -> Contents:
    """The files that show. `shared` are the contents of the image's lowest layers, if they were read before; they stay
    as they are. Raises StoreError, LayerError, also for layers that are not what the image's configuration says."""
    contents = shared.copy() if shared is not None else Contents()
    diff_ids = selected.diff_ids
    for position, layer in enumerate(selected.layers):
        if position < contents.layers:
            continue
        with open_layer(store, layer) as stream:
            applied = contents.apply(stream, digests=digests)
        check_layer(layer, applied.diff_id, diff_ids[position] if position < len(diff_ids) else "")
    return contents


def check_layer(layer: Descriptor, found: str, expected: str) -> None:
    """Raises LayerError if a layer's diff ID is not the one that its image states ('': none)."""
    if expected and found != expected:
        raise LayerError(
            f"is {found} without compression; the image says {expected}",
            place=f"layer {layer.digest}",
            remedy="run 'builder fsck'",
        )


def read_stored(store: Store, selected: Selected, wanted: Iterable[Stored]) -> Iterator[tuple[Stored, Content]]:
    """The content of files, read layer by layer, from each no further than needed. Each is good until the next is asked
    for."""
    by_layer: dict[int, list[Stored]] = {}
    for stored in wanted:
        by_layer.setdefault(stored.layer, []).append(stored)
    for position, files in sorted(by_layer.items()):
        with open_layer(store, selected.layers[position]) as stream:
            yield from read_files(stream, files)
