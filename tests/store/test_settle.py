"""Blobs that are not flushed yet: which are replaced, and what becomes of them after another boot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.oci.spec import Descriptor
from builder.store.records import LayerRecord
from builder.store.store import Store
from tests.support.layers import DATA, DIFF_ID, add, layer_bytes


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def made(store: Store) -> tuple[LayerRecord, Path]:
    """A layer that is on the disk: its record and its blob."""
    add(store, DATA)
    store.layers.settle()
    (record,) = store.database.layers(DIFF_ID)
    return record, Path(store.layout.blob_path(record.digest))


# --- a layer that is made again


def test_a_layer_that_is_on_the_disk_keeps_its_file(store: Store) -> None:
    """A power failure could make holes in another in its place, which an image may name."""
    record, blob = made(store)
    before = blob.stat().st_ino
    store.database.forget_blobs([record])
    store.layers.know(DIFF_ID, Descriptor(record.media_type, record.digest, record.size))
    add(store, DATA)
    assert blob.stat().st_ino == before
    assert store.database.unsettled() == []
    assert store.database.layers(DIFF_ID) == [record]
    assert os.listdir(store.temporary) == []


@pytest.mark.parametrize("why", ["another size", "not known"])
def test_another_file_is_on_the_disk_before_it_takes_the_place(
    store: Store, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """What is there is damaged, or nobody knows whether it was flushed: an image may name it all the same."""
    record, blob = made(store)
    if why == "another size":
        os.truncate(blob, 5)
    else:
        store.database.forget_blobs([record])
    before = blob.stat().st_ino
    flushed: list[int] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    add(store, DATA)
    assert blob.stat().st_ino != before
    assert blob.stat().st_ino in flushed
    assert store.database.unsettled() == []
    assert layer_bytes(store, DIFF_ID) == DATA
