"""What an image's layers cost, with the instructions that made them."""

from __future__ import annotations

import msgspec

from builder.filesystem.analysis import Analyser, Analysis, LayerChanges
from builder.store.contents import Selected, check_layer, open_layer
from builder.store.store import Store


class ImageLayer(msgspec.Struct, frozen=True):
    """A layer of an image: its blob and the blob's size, what it does, and the instruction that made it ('' where the
    history does not say)."""

    digest: str
    stored: int
    created_by: str
    changes: LayerChanges


class ImageAnalysis(msgspec.Struct, frozen=True):
    """An image's layers, lowest first, and what was found over all of them."""

    layers: tuple[ImageLayer, ...]
    stored: int
    found: Analysis


def analyse_image(store: Store, selected: Selected, top: int) -> ImageAnalysis:
    """Read the layers of an image once; each list has at most `top` entries. Raises StoreError, LayerError."""
    analyser = Analyser(top)
    for layer in selected.layers:
        with open_layer(store, layer) as stream:
            analyser.add(stream)
    found = analyser.finish()
    layers = []
    expected = [*selected.diff_ids, *[""] * selected.count]
    for layer, created_by, changes, diff_id in zip(
        selected.layers, selected.instructions, found.layers, expected, strict=False
    ):
        check_layer(layer, changes.diff_id, diff_id)
        layers.append(ImageLayer(layer.digest, layer.size, created_by, changes))
    return ImageAnalysis(tuple(layers), sum(layer.stored for layer in layers), found)
