"""Layers: kept, fetched once however many ask, in the form asked for."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import BinaryIO

import pytest

from builder.errors import LayerError, RegistryError, StoreError
from builder.filesystem.compression import GZIP, UNCOMPRESSED, ZSTD, Compression, kind_of
from builder.oci.spec import Descriptor
from builder.store.collect import collect
from builder.store.layers import MissingLayer
from builder.store.records import LayerRecord
from builder.store.store import Store
from tests.support.archives import archive
from tests.support.layers import DATA, DIFF_ID, ORIGIN, add, descriptor, layer_bytes
from tests.support.together import together


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.mark.parametrize("kind", [GZIP, ZSTD, UNCOMPRESSED])
def test_a_layer_is_kept(store: Store, kind: str) -> None:
    assert add(store, DATA, kind) == DIFF_ID
    assert store.layers.available(DIFF_ID)
    record = store.layers.ensure_blob(DIFF_ID)
    assert kind_of(record.media_type) == kind
    assert os.path.getsize(store.layout.blob_path(record.digest)) == record.size
    assert layer_bytes(store, DIFF_ID) == DATA
    assert os.listdir(store.temporary) == []


def test_another_form_is_made_once(store: Store) -> None:
    add(store, DATA)
    made = store.layers.ensure_form(DIFF_ID, Compression(ZSTD))
    assert made.media_type.endswith("+zstd")
    assert store.layers.ensure_form(DIFF_ID, Compression(ZSTD)).digest == made.digest
    assert store.layers.ensure_form(DIFF_ID, Compression(GZIP)).digest == store.layers.ensure_form(DIFF_ID, None).digest
    assert len(store.database.layers(DIFF_ID)) == 2


def test_another_form_is_made_once_by_threads(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, DATA)
    made: list[str] = []
    looked = threading.Barrier(2, timeout=10)
    compress, once = store.layers._compress, store.layers._once

    def spy(diff_id: str, compression: Compression) -> LayerRecord:
        made.append(diff_id)
        return compress(diff_id, compression)

    @contextmanager
    def meet(name: str) -> Iterator[None]:
        looked.wait()
        with once(name):
            yield

    monkeypatch.setattr(store.layers, "_compress", spy)
    monkeypatch.setattr(store.layers, "_once", meet)
    together(*[partial(store.layers.ensure_form, DIFF_ID, Compression(ZSTD))] * 2)
    assert made == [DIFF_ID]


def test_what_is_not_there(store: Store) -> None:
    assert not store.layers.available(DIFF_ID)
    for ask in (store.layers.ensure_blob, store.layers.open_tar, lambda diff_id: store.unpacked.tree((diff_id,))):
        with pytest.raises(StoreError, match="is missing from the store") as caught:
            ask(DIFF_ID)
        assert caught.value.remedy
    store.layers.know(DIFF_ID, descriptor())
    assert not store.layers.available(DIFF_ID)  # known, but neither here nor anywhere else
    store.layers.know(DIFF_ID, descriptor(), ORIGIN)
    assert store.layers.available(DIFF_ID)
    with pytest.raises(StoreError, match="nothing was set up to fetch it"):
        store.layers.ensure_blob(DIFF_ID)


def test_a_layer_is_fetched_by_one_of_many_threads(store: Store) -> None:
    asked: list[str] = []
    begun = threading.Event()

    def fetch(origin: str, wanted: Descriptor, file: BinaryIO) -> None:
        asked.append(f"{origin} {wanted.digest}")
        begun.wait(0.2)
        file.write(DATA)

    store.layers.fetch = fetch
    store.layers.know(DIFF_ID, descriptor(), ORIGIN)
    together(*[partial(store.layers.ensure_blob, DIFF_ID)] * 6)
    assert asked == [f"{ORIGIN} {DIFF_ID}"]
    assert layer_bytes(store, DIFF_ID) == DATA
    assert os.listdir(store.temporary) == []


def _fetch_in_process(root: str, log: str, meeting: Barrier) -> None:
    store = Store(root)

    def fetch(origin: str, wanted: Descriptor, file: BinaryIO) -> None:
        with open(log, "a") as lines:
            lines.write("fetched\n")
        time.sleep(0.3)  # time for the other to ask, too
        file.write(DATA)

    store.layers.fetch = fetch
    store.layers.know(DIFF_ID, descriptor(), ORIGIN)
    meeting.wait(60)
    store.unpacked.tree((DIFF_ID,)).lstat("d/f")


def test_a_layer_is_fetched_by_one_of_two_processes(store: Store, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    arguments = (store.root, str(log), context.Barrier(2))
    together(processes=[partial(_fetch_in_process, *arguments)] * 2)
    assert log.read_text() == "fetched\n"
    assert layer_bytes(store, DIFF_ID) == DATA


def test_a_fetch_that_fails_leaves_nothing_and_can_be_repeated(store: Store) -> None:
    def fail(origin: str, wanted: Descriptor, file: BinaryIO) -> None:
        file.write(DATA[:10])
        raise RegistryError("gone")

    store.layers.fetch = fail
    store.layers.know(DIFF_ID, descriptor(), ORIGIN)
    with pytest.raises(RegistryError):
        store.layers.ensure_blob(DIFF_ID)
    assert os.listdir(store.temporary) == []
    assert not store.layout.has(DIFF_ID)
    store.layers.fetch = lambda origin, wanted, file: file.write(DATA)  # type: ignore[assignment]
    assert store.layers.ensure_blob(DIFF_ID).digest == DIFF_ID


def test_a_fetch_goes_on_where_the_last_one_left_off(store: Store) -> None:
    def fail(origin: str, wanted: Descriptor, file: BinaryIO) -> None:
        file.write(DATA[:10])
        raise RegistryError("gone")

    def go_on(origin: str, wanted: Descriptor, file: BinaryIO) -> None:
        assert file.read() == DATA[:10]
        file.write(DATA[10:])

    store.layers.know(DIFF_ID, descriptor(), ORIGIN)
    store.layers.fetch = fail
    with pytest.raises(RegistryError):
        store.layers.ensure_blob(DIFF_ID)
    store.layers.fetch = go_on
    store.layers.ensure_blob(DIFF_ID)
    assert layer_bytes(store, DIFF_ID) == DATA
    assert os.listdir(store.partial) == []


def test_a_full_disk_keeps_no_beginning(store: Store) -> None:
    def fail(origin: str, wanted: Descriptor, file: BinaryIO) -> None:
        file.write(DATA[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store.layers.know(DIFF_ID, descriptor(), ORIGIN)
    store.layers.fetch = fail
    with pytest.raises(StoreError, match="the disk is full"):
        store.layers.ensure_blob(DIFF_ID)
    assert os.listdir(store.partial) == []


def test_beginnings_are_collected_unless_somebody_needs_them(store: Store) -> None:
    os.mkdir(store.partial)
    for name in ("a" * 64, "b" * 64):
        (Path(store.partial) / name).write_bytes(b"x")
    other = Store(store.root)
    with other.lease():
        other.layout.pin("sha256:" + "a" * 64)
        assert collect(store).blobs == 1
        assert os.listdir(store.partial) == ["a" * 64]
    collect(store)
    assert os.listdir(store.partial) == []


def test_a_claim_is_believed_only_by_its_content(store: Store) -> None:
    """What a cache says of a layer gives way to what an image says, and a blob that is here proves nothing."""
    layer, other = add(store, archive(("a", {"data": b"a"}))), add(store, archive(("b", {"data": b"b"})))
    record, second = store.layers.record(layer), store.layers.record(other)
    assert record is not None
    assert second is not None
    blob = Descriptor(second.media_type, second.digest, second.size)
    store.database.forget_blobs([record])
    store.layers.offer(layer, blob, "reg/cache:1")
    claimed = store.layers.record(layer)
    assert claimed is not None
    assert store.layers.is_claim(claimed)
    with pytest.raises(MissingLayer) as caught:
        store.layers.ensure_blob(layer)
    assert "gives blob" in str(caught.value.failure)
    assert store.layers.record(layer) is None
    assert store.layout.has(second.digest)

    store.layers.offer(layer, Descriptor(record.media_type, record.digest, record.size), "reg/cache:1")
    assert store.layers.ensure_blob(layer).digest == record.digest
    proved = store.layers.record(layer)
    assert proved is not None
    assert not store.layers.is_claim(proved)

    store.database.forget_blobs([proved])
    store.layers.offer(layer, blob, "reg/cache:1")
    store.layers.know(layer, blob, "reg/image:1")
    (known,) = store.database.layers(layer)
    assert known.origin == "reg/image:1"


def opened(store: Store) -> bool:
    return os.path.exists(os.path.join(store.root, "cache.db"))


def test_a_layer_that_an_image_here_names_needs_no_database(store: Store) -> None:
    store.layout.put(DATA)
    stated = store.layers.know(DIFF_ID, descriptor())
    for found in (
        store.layers.record(DIFF_ID),
        store.layers.ensure_form(DIFF_ID, None, stated),
        store.layers.ensure_form(DIFF_ID, Compression(UNCOMPRESSED), stated),
    ):
        assert found is not None
        assert found.digest == descriptor().digest
    assert not opened(store)
    assert store.layers.ensure_form(DIFF_ID, Compression(ZSTD)).media_type.endswith("+zstd")
    assert {record.digest for record in store.database.layers(DIFF_ID)} > {descriptor().digest}


def test_a_layer_that_an_image_names_and_that_is_not_here(store: Store) -> None:
    store.layers.know(DIFF_ID, descriptor())
    assert not store.layers.available(DIFF_ID)
    with pytest.raises(MissingLayer):
        store.layers.ensure_blob(DIFF_ID)


def test_of_two_forms_of_a_layer_the_one_that_was_seen_is_taken(store: Store) -> None:
    """An image may give any blob as the layer of another."""
    seen = add(store, DATA)
    true = store.layers.ensure_blob(seen)
    lie = b"something else"
    store.layout.put(lie)
    again = Store(store.root)
    again.layers.know(seen, Descriptor(true.media_type, true.digest, true.size))
    again.layers.know(seen, descriptor(lie))
    assert again.layers.ensure_blob(seen).digest == true.digest
    again = Store(store.root)
    again.layers.know(seen, descriptor(lie))
    again.layers.know(seen, Descriptor(true.media_type, true.digest, true.size))
    assert again.layers.ensure_blob(seen).digest == true.digest


@pytest.mark.parametrize("number", range(4))
def test_a_form_that_nobody_has_read_gives_way_to_one_that_was_read(store: Store, number: int) -> None:
    """Whatever the digests are: what an image says of its blob may be a lie."""
    seen = add(store, DATA)
    lie = f"something else {number}".encode()
    store.layout.put(lie)
    store.layers.know(seen, descriptor(lie))
    for _ in range(2):
        made = store.layers.ensure_form(seen, Compression(UNCOMPRESSED))
        assert made.digest == seen
    assert store.layers.ensure_form(seen, Compression(GZIP)).uncompressed == len(DATA)


def test_what_an_image_says_serves_that_image_alone(store: Store) -> None:
    lie = archive(("evil", {"data": b"x"}))
    for blob in (lie, DATA):
        store.layout.put(blob)
    store.layers.know(DIFF_ID, descriptor(lie))
    stated = store.layers.know(DIFF_ID, descriptor())
    assert store.layers.ensure_form(DIFF_ID, None, stated) == stated
    assert not opened(store)  # and nothing had to be asked
    again = Store(store.root)
    again.layers.know(DIFF_ID, descriptor(lie))
    assert again.database.layers(DIFF_ID) == []
    with pytest.raises(LayerError, match="gives blob"):
        again.layers.ensure_form(DIFF_ID, None)
    again.layers.know(DIFF_ID, descriptor())
    assert again.layers.ensure_form(DIFF_ID, None).digest == DIFF_ID  # which was read for it


def test_a_claim_that_is_none_is_forgotten(store: Store) -> None:
    """By whoever needs the layer, after the image that said so."""
    lie = archive(("evil", {"data": b"x"}))
    store.layout.put(lie)
    store.layers.know(DIFF_ID, descriptor(lie), ORIGIN)
    again = Store(store.root)
    with pytest.raises(MissingLayer) as caught:
        again.layers.ensure_blob(DIFF_ID)
    assert f"{ORIGIN} gives blob" in str(caught.value.failure)
    assert not again.layers.available(DIFF_ID)
