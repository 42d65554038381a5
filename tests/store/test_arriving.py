"""Layers that are unpacked while they arrive, and fetched side by side."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from builder.errors import LayerError, RegistryError
from builder.filesystem import erofs_mount
from builder.filesystem.readable import Readable
from builder.oci.spec import OCI_LAYER, Descriptor
from builder.store.arriving import JOBS, Arriving, Following
from builder.store.layers import CACHE, MissingLayer
from builder.store.records import LayerRecord
from builder.store.store import Store
from tests.support.archives import archive

LARGE = archive(*((f"f{number:03}", {"data": bytes([number]) * 50_000}) for number in range(80)))
PATIENCE = 20  # seconds


def know(store: Store, data: bytes) -> str:
    """A layer that is known and has to be fetched; its diff ID is its digest."""
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    store.layers.know(digest, Descriptor(OCI_LAYER, digest, len(data)), "docker.io/library/x:latest")
    return digest


@pytest.fixture(params=["directory", "image"])
def store(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Store:
    """What is unpacked becomes either, where there are images."""
    if request.param == "directory":
        monkeypatch.setattr(erofs_mount, "is_able", lambda directory: False)
    elif not erofs_mount.is_able(str(tmp_path)):
        pytest.skip("this kernel mounts no images from files")
    return Store(str(tmp_path / "store"))


def unpacked(store: Store) -> int:
    """How much there is of the layer that is being unpacked."""
    files = [path for path in Path(store.root).glob("snapshots/tmp-*/**/*") if path.is_file()]
    return sum(path.stat().st_size for path in files)


def test_a_layer_is_unpacked_while_it_arrives(store: Store) -> None:
    seen = 0

    def fetch(origin: str, wanted: Descriptor, file: BinaryIO) -> None:
        nonlocal seen
        file.write(LARGE[: len(LARGE) // 2])
        file.flush()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not seen:
            seen = unpacked(store)
            time.sleep(0.01)
        file.write(LARGE[len(LARGE) // 2 :])

    store.layers.fetch = fetch
    diff_id = know(store, LARGE)
    (path,) = store.unpacked.paths((diff_id,))
    assert 0 < seen < len(LARGE) // 2
    assert len(os.listdir(path)) == 80
    assert store.layout.has(diff_id)
    assert os.listdir(store.partial) == []


def test_the_layers_of_a_stack_are_fetched_side_by_side(store: Store) -> None:
    layers = {data: know(store, data) for data in (archive((f"a{n}", {"data": b"%d" % n})) for n in range(JOBS + 2))}
    contents = {digest: data for data, digest in layers.items()}
    together = threading.Barrier(JOBS, timeout=PATIENCE)
    fetched: list[str] = []

    def fetch(origin: str, wanted: Descriptor, file: BinaryIO) -> None:
        fetched.append(wanted.digest)
        if len(fetched) <= JOBS:
            together.wait()
        file.write(contents[wanted.digest])

    store.layers.fetch = fetch
    with store.unpacked.tree(tuple(contents)) as tree:
        assert [name for name, _ in tree.scan("")] == [f"a{n}" for n in range(JOBS + 2)]
    assert sorted(fetched) == sorted(contents)
    assert set(fetched[:JOBS]) == set([*contents][:JOBS])  # the lowest first


def test_what_is_here_or_unpacked_is_not_fetched(store: Store) -> None:
    first, second = archive(("a", {"data": b"1"})), archive(("b", {"data": b"2"}))
    contents = {know(store, first): first, know(store, second): second}
    one, two = contents
    fetched: list[str] = []

    def fetch(origin: str, wanted: Descriptor, file: BinaryIO) -> None:
        fetched.append(wanted.digest)
        file.write(contents[wanted.digest])

    store.layers.fetch = fetch
    store.layers.ensure_blob(two)
    store.unpacked.paths((one, two))
    store.unpacked.forget_paths()
    store.unpacked.paths((two, one))
    assert fetched == [two, one]


def test_a_fetch_that_breaks_off_fails_the_unpacking(store: Store) -> None:
    def fail(origin: str, wanted: Descriptor, file: BinaryIO) -> None:
        file.write(LARGE[:200_000])
        file.flush()
        raise RegistryError("gone")

    store.layers.fetch = fail
    diff_id = know(store, LARGE)
    with pytest.raises(RegistryError, match="gone"):
        store.unpacked.paths((diff_id,))
    assert unpacked(store) == 0
    store.layers.fetch = lambda origin, wanted, file: file.write(LARGE[file.seek(0, os.SEEK_END) :])  # type: ignore[assignment]
    (path,) = store.unpacked.paths((diff_id,))
    assert len(os.listdir(path)) == 80


def test_a_beginning_that_turns_out_wrong(store: Store) -> None:
    """What an earlier transfer left was no good: the fetch throws it away, and so does the unpacking."""

    def fetch(origin: str, wanted: Descriptor, file: BinaryIO) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not list(Path(store.root).glob("snapshots/tmp-*")):
            time.sleep(0.01)
        file.truncate(0)
        file.seek(0)
        file.write(LARGE)

    diff_id = know(store, LARGE)
    os.makedirs(store.partial)
    Path(store.partial, diff_id.partition(":")[2]).write_bytes(b"nonsense" * 50_000)
    store.layers.fetch = fetch
    (path,) = store.unpacked.paths((diff_id,))
    assert len(os.listdir(path)) == 80


def test_a_layer_that_is_not_what_its_diff_id_says(store: Store) -> None:
    store.layers.know("sha256:" + "0" * 64, Descriptor(OCI_LAYER, know(store, LARGE), len(LARGE)), "docker.io/x:1")
    store.layers.fetch = lambda origin, wanted, file: file.write(LARGE)  # type: ignore[assignment]
    with pytest.raises(LayerError, match="the layer's content is"):
        store.unpacked.paths(("sha256:" + "0" * 64,))


def test_an_interrupt_does_not_wait_for_a_server_that_stalls(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stalled = threading.Event()

    def fetch(origin: str, wanted: Descriptor, file: BinaryIO) -> None:
        file.write(LARGE[: len(LARGE) // 2])
        file.flush()
        stalled.wait(PATIENCE)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    store.layers.fetch = fetch
    diff_id = know(store, LARGE)
    monkeypatch.setattr("builder.filesystem.unpack.Unpacker._file", interrupt)
    monkeypatch.setattr("builder.filesystem.erofs_writer.ErofsWriter.add_file", interrupt)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        store.unpacked.paths((diff_id,))
    stalled.set()
    assert time.monotonic() - started < PATIENCE / 2
    assert unpacked(store) == 0


def test_a_cache_that_is_gone_leaves_the_layer_missing(store: Store) -> None:
    """The layer came from a build cache, was looked at and removed: whoever knows how it was made makes it again."""

    def refuse(origin: str, wanted: Descriptor, file: BinaryIO) -> None:
        raise RegistryError("connection refused")

    store.layers.fetch = refuse
    digest = "sha256:" + hashlib.sha256(LARGE).hexdigest()
    for ask in (store.layers.ensure_blob, lambda diff_id: store.unpacked.paths((diff_id,))):
        store.database.add_layer(
            LayerRecord(digest, digest, OCI_LAYER, len(LARGE), f"{CACHE}reg.example/x:c", uncompressed=len(LARGE))
        )
        with pytest.raises(MissingLayer) as caught:
            ask(digest)
        assert isinstance(caught.value.failure, RegistryError)


def test_what_another_process_unpacks_meanwhile_leaves_nothing_open(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = threading.Event()

    def fetch(origin: str, wanted: Descriptor, file: BinaryIO) -> None:
        file.write(LARGE[: len(LARGE) // 2])
        file.flush()
        assert unpacked.wait(PATIENCE)
        file.write(LARGE[len(LARGE) // 2 :])

    snapshots = store.unpacked._snapshots
    unpack = snapshots.unpack

    def later(diff_id: str, open_tar: Callable[[], Readable], below: Sequence[str] = (), **limits: Any) -> str:
        path = unpack(diff_id, lambda: io.BytesIO(LARGE), below)  # as somebody else does
        assert unpack(diff_id, open_tar, below, **limits) == path
        unpacked.set()
        return path

    monkeypatch.setattr(snapshots, "unpack", later)
    store.layers.fetch = fetch
    diff_id = know(store, LARGE)
    store.unpacked.paths((diff_id,))
    files = {os.path.realpath(f"/proc/self/fd/{descriptor}") for descriptor in os.listdir("/proc/self/fd")}
    assert not [path for path in files if path.startswith((store.partial, store.layout.path + "/blobs"))]


def test_a_layer_is_noted_in_the_form_that_arrived(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another form that came meanwhile was not looked at, and is believed no more than before."""
    raw = archive(("f", {"data": b"1" * 100_000}))
    diff_id = "sha256:" + hashlib.sha256(raw).hexdigest()
    forms = {"sha256:" + hashlib.sha256(data).hexdigest(): data for data in (gzip.compress(raw, 1), b"not this layer")}
    wanted, other = forms
    begun = threading.Event()
    stream = Arriving.stream

    def stream_late(arriving: Arriving, diff_id: str) -> Following | None:
        found = stream(arriving, diff_id)
        store.layers.know(diff_id, Descriptor(OCI_LAYER, store.layout.put(forms[other]), 14), "docker.io/library/y:1")
        begun.set()
        return found

    def fetch(origin: str, descriptor: Descriptor, file: BinaryIO) -> None:
        assert begun.wait(PATIENCE)
        file.write(forms[descriptor.digest])

    monkeypatch.setattr(Arriving, "stream", stream_late)
    store.layers.fetch = fetch
    store.layers.know(diff_id, Descriptor(OCI_LAYER, wanted, len(forms[wanted])), "docker.io/library/x:latest")
    store.unpacked.paths((diff_id,))
    assert {one.digest: one.uncompressed for one in store.database.layers(diff_id)} == {wanted: len(raw), other: 0}
