"""Collections: what is needed stays, also what a running build will need in a moment; the rest goes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.errors import StoreError
from builder.filesystem.compress import LayerSink
from builder.oci import reference
from builder.oci.spec import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    RootFS,
    encode,
)
from builder.store import collect as collections
from builder.store.collect import collect
from builder.store.leases import held
from builder.store.record_names import REPEATS
from builder.store.records import LayerRecord, StepRecord
from builder.store.remove import in_use
from builder.store.store import Store
from tests.support.archives import archive


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(str(tmp_path / "store"))
    yield made
    made.close()


def add_layer(store: Store, content: bytes) -> str:
    """A layer with one file; returns its diff ID."""
    with LayerSink(store.temporary) as sink:
        sink.write(archive(("file", {"data": content})))
        blob = sink.finish()
    store.layers.add(blob)
    return blob.diff_id


def add_image(store: Store, *diff_ids: str, name: str = "", before: bytes = b"") -> Descriptor:
    """An image of layers; its documents begin with `before`."""
    config = before + encode(ImageConfig(architecture="amd64", os="linux", rootfs=RootFS(diff_ids=list(diff_ids))))
    layers = []
    for diff_id in diff_ids:
        record = store.layers.ensure_blob(diff_id)
        layers.append(Descriptor(record.media_type, record.digest, record.size))
    manifest = before + encode(
        Manifest(
            schema_version=2,
            media_type=OCI_MANIFEST,
            config=Descriptor(OCI_CONFIG, store.layout.put(config), len(config)),
            layers=layers,
        )
    )
    descriptor = Descriptor(OCI_MANIFEST, store.layout.put(manifest), len(manifest))
    if name:
        store.images.tag(descriptor, [reference.parse(name)])
    return descriptor


def here(store: Store, diff_id: str) -> bool:
    record = store.layers.record(diff_id)
    return record is not None and store.layout.has(record.digest)


def test_images_steps_and_memos_keep_what_they_need(store: Store) -> None:
    image, step, memo, base, lost = (add_layer(store, name) for name in (b"image", b"step", b"memo", b"base", b"lost"))
    add_image(store, image, name="app")
    store.database.add_step(StepRecord("key", step, b"{}", "", 0.0))
    store.database.add_memo("squash", "key", b"", holds=memo)
    manifest = add_image(store, base)
    store.database.add_memo("image", "key", b"", holds=manifest.digest)
    collected = collect(store)
    assert collected.blobs == 1
    assert collected.size > 0
    assert all(here(store, diff_id) for diff_id in (image, step, memo, base))
    assert not here(store, lost)
    assert store.database.layers(lost) == []


def test_an_index_keeps_all_of_its_manifests(store: Store) -> None:
    layers = [add_layer(store, name) for name in (b"one", b"two")]
    manifests = [add_image(store, layer) for layer in layers]
    index = encode(Index(schema_version=2, media_type=OCI_INDEX, manifests=manifests))
    store.images.tag(Descriptor(OCI_INDEX, store.layout.put(index), len(index)), [reference.parse("multi")])
    assert collect(store).blobs == 0
    assert store.images.untag(reference.parse("multi"))
    assert collect(store).blobs == 7
    assert store.layout.digests() == []


def test_documents_may_begin_with_white_space(store: Store) -> None:
    add_image(store, add_layer(store, b"content"), name="app", before=b" \r\n\t")
    assert collect(store).blobs == 0


def test_a_manifest_that_cannot_be_read_ends_a_collection(store: Store) -> None:
    """What it needs is not known, so that nothing may go."""
    manifest = add_image(store, add_layer(store, b"content"), name="app")
    path = store.layout.blob_path(manifest.digest)
    os.rename(path, f"{path}.away")
    os.mkdir(path)
    before = store.layout.digests()
    with pytest.raises(StoreError, match="cannot read") as caught:
        collect(store)
    assert caught.value.place == path
    assert store.layout.digests() == before
    os.rmdir(path)
    os.rename(f"{path}.away", path)
    assert collect(store).blobs == 0


def test_snapshots_go_with_their_layers(store: Store) -> None:
    kept, gone = add_layer(store, b"kept"), add_layer(store, b"gone" * 1000)
    add_image(store, kept, name="app")
    for diff_id in (kept, gone):
        store.unpacked.directories([diff_id])
    collected = collect(store)
    assert collected.snapshots == 1
    assert collected.size > 4000
    assert store.snapshots.entries.diff_ids() == [kept]


def test_a_layer_that_can_be_fetched_again_is_remembered_while_it_is_needed(store: Store) -> None:
    store.layers.know("sha256:" + "1" * 64, Descriptor("type", "sha256:" + "2" * 64, 1), "docker.io/library/base:1")
    store.database.add_step(StepRecord("key", "sha256:" + "1" * 64, b"", "", 0.0))
    collect(store)
    assert store.layers.available("sha256:" + "1" * 64)
    store.database.clear()
    collect(store)
    assert not store.layers.available("sha256:" + "1" * 64)


def test_a_layer_that_a_build_learns_of_meanwhile_is_remembered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the collection has seen that nobody needs it, before it forgets where it can be fetched from."""
    diff_id, form = "sha256:" + "1" * 64, Descriptor("type", "sha256:" + "2" * 64, 1)
    store.layers.know(diff_id, form, "docker.io/library/base:1")
    building, forget = Store(store.root), collections._forget

    def learn_first(store: Store, gone: list[LayerRecord]) -> None:
        building.layers.know(diff_id, form, "docker.io/library/base:1")
        forget(store, gone)

    monkeypatch.setattr(collections, "_forget", learn_first)
    with building.lease():
        collect(store)
        assert building.layers.available(diff_id)
    building.close()


def test_what_a_lease_holds_stays_until_it_ends(store: Store) -> None:
    working = Store(store.root)
    with working.lease():
        layer = add_layer(working, b"made just now")
        working.unpacked.directories([layer])
        descriptor = add_image(working, layer)
        lost = add_layer(store, b"nobody's")
        assert collect(store).blobs == 1
        assert not here(store, lost)
        assert here(store, layer)
        assert store.snapshots.entries.diff_ids() == [layer]
        assert in_use(store, descriptor)
        assert layer in held(store.leases)
    assert held(store.leases) == frozenset()
    assert collect(store).blobs == 3
    working.close()


def test_looking_for_a_blob_is_enough_to_keep_it(store: Store) -> None:
    layer = add_layer(store, b"found")
    working = Store(store.root)
    with working.lease():
        assert working.layers.available(layer)
        collect(store)
        assert working.layers.ensure_blob(layer)
    working.close()


def test_the_lease_of_a_killed_process_holds_nothing(store: Store) -> None:
    layer = add_layer(store, b"left behind")
    code = (
        "import os, sys; from builder.store.store import Store; s = Store(sys.argv[1]); c = s.lease(); c.__enter__();"
        "s.layers.available(sys.argv[2]); print('ready', flush=True); os.kill(os.getpid(), 9)"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code, store.root, layer], capture_output=True, env=environ, timeout=60)
    assert done.stdout == b"ready\n", done.stderr
    assert len(os.listdir(store.leases)) == 2
    assert held(store.leases) == frozenset()
    assert collect(store).blobs == 1
    assert os.listdir(store.leases) == ["gate"]


def test_collections_and_builds_at_once_lose_nothing(store: Store) -> None:
    """Builders add layers and name them at the end, while another thread collects without a pause."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def build(number: int) -> None:
        try:
            own = Store(store.root)
            for turn in range(8):
                with own.lease():
                    layers = [add_layer(own, f"{turn} {part}".encode()) for part in range(3)]  # the same for all
                    own.unpacked.directories(layers)
                    add_image(own, *layers, name=f"app{number}:{turn}")
                    for layer in layers:
                        own.layers.open_tar(layer).read(1)
                if turn % 2:
                    own.images.untag(reference.parse(f"app{number}:{turn}"))
            own.close()
        except BaseException as error:
            failures.append(error)

    def clean() -> None:
        try:
            own = Store(store.root)
            while not stop.is_set():
                collect(own)
            own.close()
        except BaseException as error:
            failures.append(error)

    builders = [threading.Thread(target=build, args=(number,)) for number in range(3)]
    cleaner = threading.Thread(target=clean)
    for thread in (cleaner, *builders):
        thread.start()
    for thread in builders:
        thread.join()
    stop.set()
    cleaner.join()
    assert failures == []
    assert len(store.images.all()) == 12
    for entry in store.images.all():
        for layer in store.images.manifest(entry.descriptor).layers:
            assert store.layout.has(layer.digest)
        assert store.images.config(entry.descriptor).rootfs.diff_ids


def test_a_build_leaves_a_note_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes of earlier builds go; that another comes stops nothing."""
    notes = Path(store.root, REPEATS)
    notes.mkdir()
    (notes / "early").touch()
    original: Callable[..., None] = os.rmdir

    def rmdir(path: str, **options: Any) -> None:
        (notes / "late").touch()
        original(path, **options)

    monkeypatch.setattr("os.rmdir", rmdir)
    store.layout.put(b"nobody's")
    assert collect(store).blobs == 1
    assert not (notes / "early").exists()
