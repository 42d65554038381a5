"""Squashing: the merged layer does what the layers did, by an independent flattening of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.export.squash import squash_layers
from builder.filesystem.compression import Compression
from builder.store.store import Store
from tests.export.support import add_layer, flatten
from tests.support.layers import layer_bytes

NAMES = st.sampled_from(["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a"])
LINK = b"2"


@st.composite
def layer(draw: st.DrawFn) -> list[tuple[str, dict[str, Any]]]:
    """A layer as builders write them: directories first, nothing below a file, no whiteout of what it has."""
    chosen = draw(
        st.dictionaries(NAMES, st.sampled_from(["file", "directory", "link", "whiteout", "opaque"]), max_size=5)
    )
    entries: dict[str, dict[str, Any]] = {}
    for path, kind in sorted(chosen.items()):
        folder, _, name = path.rpartition("/")
        parts = folder.split("/") if folder else []
        above = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        if any(chosen.get(part) in ("file", "link", "whiteout") for part in above):
            continue
        for part in above:
            entries.setdefault(part, {"mode": 0o755})
        if kind == "file":
            entries[path] = {
                "data": draw(st.sampled_from([b"1", b"2"])),
                "mode": draw(st.sampled_from([0o644, 0o4755])),
            }
        elif kind == "link":
            entries[path] = {"type": LINK, "link": "a", "mode": 0o777}
        elif kind == "whiteout":
            entries[f"{folder}/.wh.{name}".lstrip("/")] = {"data": b""}
        else:
            entries.setdefault(path, {"mode": draw(st.sampled_from([0o755, 0o700]))})
            if kind == "opaque":
                entries[f"{path}/.wh..wh..opq"] = {"data": b""}
    return list(entries.items())


@settings(max_examples=60, deadline=None)
@given(st.lists(layer(), min_size=2, max_size=4), st.integers(0, 2))
def test_a_squashed_stack_comes_to_the_same(
    tmp_path_factory: pytest.TempPathFactory, layers: list[list[tuple[str, dict[str, Any]]]], keep: int
) -> None:
    store = Store(str(tmp_path_factory.mktemp("squash") / "store"))
    keep = min(keep, len(layers) - 1)
    diff_ids = [add_layer(store, *entries) for entries in layers]
    merged = squash_layers(store, diff_ids, keep, Compression())
    before = flatten([layer_bytes(store, diff_id) for diff_id in diff_ids])
    after = flatten([layer_bytes(store, diff_id) for diff_id in (*diff_ids[:keep], merged)])
    assert after == before
    store.close()


def test_equal_layers_above_a_base(tmp_path: Path) -> None:
    """Two steps that made the same layer are one directory: the base must not slip into the squashed layer."""
    store = Store(str(tmp_path / "store"))
    base = add_layer(store, ("base", {"data": b"base"}))
    one, two = add_layer(store, ("a", {"data": b"1"})), add_layer(store, ("a", {"data": b"2"}))
    merged = squash_layers(store, (base, one, two, one), 1, Compression())
    assert sorted(flatten([layer_bytes(store, merged)])) == ["a"]
    assert flatten([layer_bytes(store, merged)])["a"][5] == b"1"


def test_hard_links_owners_and_attributes_are_kept(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    layers = (
        add_layer(
            store,
            ("a", {"data": b"x", "owner": (3, 4), "mode": 0o4755}),
            ("b", {"type": b"1", "link": "a", "owner": (3, 4), "mode": 0o4755}),
        ),
        add_layer(store, ("c", {"data": b"y", "pax": {"SCHILY.xattr.user.note": "n"}})),
    )
    merged = layer_bytes(store, squash_layers(store, layers, 0, Compression()))
    found = flatten([merged])
    assert found["a"] == found["b"] == flatten([layer_bytes(store, layers[0])])["a"]
    assert found == flatten([layer_bytes(store, diff_id) for diff_id in layers])


def test_what_was_squashed_before_is_there(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    layers = (add_layer(store, ("a", {"data": b"1"})), add_layer(store, ("b", {"data": b"2"})))
    merged = squash_layers(store, layers, 0, Compression())
    assert squash_layers(store, layers, 0, Compression()) == merged
    record = store.layers.record(merged)
    assert record is not None
    Path(store.layout.blob_path(record.digest)).unlink()
    assert squash_layers(store, layers, 0, Compression()) == merged
    assert store.layers.available(merged)
