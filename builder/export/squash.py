"""`--squash`: several layers made into one when the result is committed. The step cache keeps them as they were."""

from __future__ import annotations

from collections.abc import Sequence

from builder.errors import StoreError
from builder.filesystem.compress import LayerSink
from builder.filesystem.compression import Compression
from builder.filesystem.diff import write_changes
from builder.filesystem.layered import LayeredTree
from builder.filesystem.squash import squash
from builder.filesystem.tar import TarWriter
from builder.solver.keys import Recipe, key_of
from builder.store.store import Store
from builder.store.unpacked import top_first

_KIND = "squash-1"


def squash_layers(store: Store, layers: Sequence[str], keep: int, compression: Compression) -> str:
    """One layer in the place of all above the lowest `keep`; returns its diff ID. Squashed before, it is there."""
    recipe: Recipe = {"step": "squash", "layers": list(layers), "keep": keep}
    key = key_of(recipe)
    known = store.database.memo(_KIND, key)
    if known is not None and store.layers.available(known.decode()):
        return known.decode()
    paths = store.unpacked.paths(layers)
    above = top_first(paths[keep:])
    below = LayeredTree(top_first(paths[:keep])) if keep else None
    with store.scratch() as scratch:
        try:
            with LayerSink(scratch, compression=compression.kind, level=compression.level, sync=False) as sink:
                writer = TarWriter(sink.write)
                write_changes(squash(above, below=below), writer)
                writer.close()
                blob = sink.finish()
        except OSError as error:
            raise StoreError(f"cannot squash: {error.strerror}", place=scratch) from error
        store.layers.add(blob)
    store.database.add_memo(_KIND, key, blob.diff_id.encode(), holds=blob.diff_id)
    return blob.diff_id
