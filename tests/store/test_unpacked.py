"""Layers unpacked as a stack."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from builder.errors import Interrupted, LayerError
from builder.filesystem.compression import ZSTD, Compression
from builder.oci.spec import Descriptor
from builder.progress import unchecked
from builder.store.store import Store
from builder.store.unpacked import top_first
from tests.support.archives import archive
from tests.support.layers import DATA, DIFF_ID, ORIGIN, add, descriptor, layer_bytes


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def test_a_layer_that_is_not_what_its_diff_id_says(store: Store) -> None:
    forged = archive(("evil", {"data": b"x"}))
    store.layers.know(DIFF_ID, descriptor(forged), ORIGIN)
    store.layers.fetch = lambda origin, wanted, file: file.write(forged)  # type: ignore[assignment]
    with pytest.raises(LayerError):
        store.unpacked.tree((DIFF_ID,))
    with pytest.raises(LayerError, match="the layer's content is"):
        store.layers.ensure_form(DIFF_ID, Compression(ZSTD))


def test_what_is_noted_of_a_blob_was_read_of_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of a better one that came while it was fetched, and that a second look at the layer would find."""
    forged = archive(("evil", {"data": b"x" * 100_000}))
    looked: list[Callable[[], object]] = []

    def fetch(origin: str, wanted: Descriptor, file: BinaryIO) -> None:
        while not looked:  # at what arrives
            time.sleep(0.01)
        add(store, DATA)
        file.write(forged)

    def unsuitable(open_tar: Callable[[], object], *_: object) -> None:
        looked.append(open_tar)
        open_tar()

    monkeypatch.setattr(store.snapshots, "_write_erofs", unsuitable)
    store.layers.fetch = fetch
    store.layers.know(DIFF_ID, descriptor(forged), ORIGIN)
    with store.unpacked.tree((DIFF_ID,)) as tree:
        assert tree.lstat("d/f") is not None
    (claimed,) = [one for one in store.database.layers(DIFF_ID) if one.digest == descriptor(forged).digest]
    assert not claimed.uncompressed


def test_a_stack_is_seen_as_one_tree(store: Store) -> None:
    one = add(store, archive(("d/", {"mode": 0o700}), ("d/a", {"data": b"1"}), ("d/b", {"data": b"1"})))
    two = add(store, archive(("d/a", {"data": b"2"}), ("d/.wh.b", {"data": b""})))
    with store.unpacked.tree((one, two)) as tree:
        assert [name for name, _ in tree.scan("d")] == ["a"]
        info = tree.lstat("d")
        assert info is not None
        assert info.mode == 0o700  # the second layer has no entry for its directory
        with os.fdopen(tree.open("d/a"), "rb") as file:
            assert file.read() == b"2"


def test_what_is_known_of_directories_goes_with_their_paths(store: Store) -> None:
    """While nothing keeps a layer, it can be removed and come back otherwise: whole, where it lacked a directory."""
    layer = add(store, archive(("d/a", {"data": b"1"})))
    with store.unpacked.tree((layer,)) as tree:
        assert [name for name, _ in tree.scan("d")] == ["a"]
    files = Path(store.unpacked.directories((layer,))[0])
    (files / "d").rename(files / "e")
    with store.lease(), store.unpacked.tree((layer,)) as tree:
        assert [name for name, _ in tree.scan("e")] == ["a"]
        assert tree.lstat("d/a") is None


def test_unpacking_can_be_ended(store: Store) -> None:
    """By the build's end, in the middle; another build can unpack it then."""
    noise = random.Random(1).randbytes(1 << 20)
    layer = add(store, archive(("a", {"data": noise})))
    pieces = iter(range(3))

    def check() -> None:
        if next(pieces, None) is None:
            raise Interrupted("enough")

    store.layers.check = check
    with store.lease(), pytest.raises(Interrupted):
        store.unpacked.tree((layer,))
    with pytest.raises(Interrupted):
        layer_bytes(store, layer)
    assert os.listdir(store.layout.temporary) == []
    store.layers.check = unchecked
    with store.unpacked.tree((layer,)) as tree, os.fdopen(tree.open("a"), "rb") as file:
        assert file.read() == noise


def test_equal_layers_in_one_stack(store: Store) -> None:
    one = add(store, archive(("a", {"data": b"1"})))
    two = add(store, archive(("a", {"data": b"2"})))
    paths = store.unpacked.paths((one, two, one))
    assert len(paths) == 3
    assert paths[0] == paths[2]
    assert store.unpacked.directories((one, two, one)) == [paths[2], paths[1]] == top_first(paths)
    with store.unpacked.tree((one, two, one)) as tree, os.fdopen(tree.open("a"), "rb") as file:
        assert file.read() == b"1"


@pytest.mark.parametrize("large", [False, True], ids=["directories", "images"])
def test_what_an_opaque_root_hides_is_in_no_stack(store: Store, large: bool, request: pytest.FixtureRequest) -> None:
    """overlayfs takes no notice of the mark on a root; trees, and what copies out of them, do."""
    if large and os.geteuid() == 0:
        request.getfixturevalue("mounts_erofs")
    noise = random.Random(1).randbytes(80_000 if large else 8)
    stack = tuple(
        add(store, archive((name, {"data": noise}), *extra))
        for name, *extra in (("a",), ("b", (".wh..wh..opq", {"data": b""})), ("c",))
    )
    paths = store.unpacked.paths(stack)
    assert store.unpacked.directories(stack) == [paths[2], paths[1]]
    with store.unpacked.tree(stack) as tree:
        assert [name for name, _ in tree.scan("")] == ["b", "c"]


def test_a_steps_directory_becomes_the_layers(store: Store) -> None:
    add(store, DATA)
    with store.scratch() as scratch:
        upper = Path(scratch) / "upper"
        (upper / "d").mkdir(parents=True)
        (upper / "d/f").write_bytes(b"content")
        store.unpacked.adopt(DIFF_ID, str(upper))
        assert not upper.exists()
    with store.unpacked.tree((DIFF_ID,)) as tree:
        assert tree.lstat("d/f") is not None
    assert layer_bytes(store, DIFF_ID) == DATA
