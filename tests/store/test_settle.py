"""Blobs that are not flushed yet: which are replaced, and what becomes of them after another boot."""

from __future__ import annotations

import hashlib
import os
import resource
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from builder.boot import current_boot
from builder.oci.spec import OCI_LAYER, Descriptor
from builder.store.records import LayerRecord
from builder.store.store import Store
from tests.support.layers import DATA, DIFF_ID, add, layer_bytes
from tests.support.together import together


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


# --- flushing


def test_more_blobs_are_flushed_than_files_can_be_open(store: Store) -> None:
    digests = [store.layout.put(str(number).encode()) for number in range(400)]
    for digest in digests:
        store.database.add_unsettled_layer(LayerRecord(digest, digest, OCI_LAYER, 1), current_boot())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 150, hard))
    try:
        store.layers.settle()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert store.database.unsettled() == []


# --- after another boot


def reboot(store: Store) -> Path:
    """A store with a damaged layer that an earlier boot did not flush, opened by nobody yet; returns its blob."""
    add(store, DATA)
    (record,) = store.database.layers(DIFF_ID)
    store.database.add_unsettled_layer(record, "an earlier one")
    blob = Path(store.layout.blob_path(record.digest))
    blob.write_bytes(bytes(record.size))
    return blob


def while_hashed(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Let something happen when a blob was read, and its digest is about to be told."""

    class Hash:
        def __init__(self) -> None:
            self._hash = original()
            self.update = self._hash.update

        def hexdigest(self) -> str:
            happens()
            return str(self._hash.hexdigest())

    original: Any = hashlib.sha256
    monkeypatch.setattr("hashlib.sha256", Hash)


def test_two_who_look_at_what_an_earlier_boot_left(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = reboot(store)
    both = threading.Barrier(2)

    def meet() -> None:
        with suppress(threading.BrokenBarrierError):
            both.wait(0.5)

    while_hashed(monkeypatch, meet)
    together(*[lambda: Store(store.root).layers.open()] * 2)
    assert not blob.exists()
    assert store.database.unsettled() == []
    assert os.listdir(store.temporary) == []


@pytest.mark.parametrize("what", ["made again", "collected"])
def test_a_blob_that_changes_while_it_is_looked_at(store: Store, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    blob = reboot(store)
    there = blob.parent / "another"
    there.write_bytes(b"good")
    while_hashed(monkeypatch, lambda: there.rename(blob) if what == "made again" else blob.unlink())
    Store(store.root).layers.open()
    assert blob.exists() == (what == "made again")
    assert store.database.unsettled() == []
