"""Layouts: what is written is whole or not there, and nobody's change is lost."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from builder.errors import StoreError
from builder.oci.layout import LAYOUT_FILE, Layout
from builder.oci.spec import OCI_MANIFEST, Descriptor, digest_of
from tests.support.together import together

ONE = Descriptor(OCI_MANIFEST, digest_of(b"one"), 3)
TWO = Descriptor(OCI_MANIFEST, digest_of(b"two"), 3)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path / "store"))
    made.create()
    return made


def files(layout: Layout) -> set[str]:
    return {str(path.relative_to(layout.path)) for path in Path(layout.path).rglob("*") if path.is_file()}


def test_a_new_layout(layout: Layout) -> None:
    assert (Path(layout.path) / "oci-layout").read_bytes() == LAYOUT_FILE
    assert (Path(layout.path) / "index.json").read_bytes() == b'{"schemaVersion":2,"manifests":[]}'
    assert files(layout) == {"oci-layout", "index.json"}
    with layout.changing() as manifests:
        manifests.append(ONE)
    layout.create()
    assert layout.index().manifests == [ONE]


def test_blobs(layout: Layout) -> None:
    digest = layout.put(b"hello")
    assert digest == digest_of(b"hello")
    assert layout.put(b"hello") == digest
    assert layout.has(digest)
    assert layout.read(digest) == b"hello"
    assert os.stat(layout.blob_path(digest)).st_mode & 0o777 == 0o644
    assert files(layout) == {"oci-layout", "index.json", f"blobs/sha256/{digest[7:]}"}


def test_a_blob_from_elsewhere(layout: Layout) -> None:
    data = os.urandom(3 << 20)
    layout.receive(io.BytesIO(data), digest_of(data))
    assert layout.read(digest_of(data)) == data
    assert os.stat(layout.blob_path(digest_of(data))).st_mode & 0o777 == 0o644
    assert os.listdir(layout.temporary) == []


class Failing(io.BytesIO):
    """What can be read for a while only."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().read(5)


@pytest.mark.parametrize("fails", ["copying", "naming"])
def test_what_is_copied_in_part_goes(layout: Layout, fails: str) -> None:
    """With the directory for it, which no layout that is written for others has at the end."""
    source = Failing(b"longer than that") if fails == "copying" else io.BytesIO(b"hello")
    digest = digest_of(b"hello") if fails == "copying" else "sha256:none"
    with pytest.raises((OSError, StoreError)), layout.writing():
        layout.receive(source, digest)
    assert files(layout) == {"oci-layout", "index.json"}
    assert not os.path.exists(layout.temporary)


def test_a_finished_file_becomes_a_blob(layout: Layout) -> None:
    temporary = Path(layout.temporary) / "x"
    temporary.write_bytes(b"hello")
    temporary.chmod(0o600)
    layout.adopt(str(temporary), digest_of(b"hello"))
    assert not temporary.exists()
    assert layout.read(digest_of(b"hello")) == b"hello"
    with pytest.raises(StoreError, match="cannot store blob"):
        layout.adopt(str(temporary), digest_of(b"hello"))


@pytest.mark.parametrize("digest", ["", "sha256:", "sha512:" + "0" * 64, "sha256:" + "A" * 64, "sha256:../" + "0" * 61])
def test_digests_that_are_none(layout: Layout, digest: str) -> None:
    with pytest.raises(StoreError, match="unsupported digest"):
        layout.blob_path(digest)


def test_a_missing_and_a_damaged_blob(layout: Layout) -> None:
    digest = layout.put(b"hello")
    Path(layout.blob_path(digest)).write_bytes(b"hellO")
    with pytest.raises(StoreError, match="damaged") as caught:
        layout.read(digest)
    assert caught.value.place == layout.blob_path(digest)
    os.unlink(layout.blob_path(digest))
    with pytest.raises(StoreError, match="missing"):
        layout.read(digest)
    assert not layout.has(digest)


def test_several_blobs_wait_for_the_disk_together(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.put(b"old")
    calls: list[str] = []

    def noting(name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*given: object) -> None:
            calls.append(name)
            real(*given)

        return call

    for name in ("fsync", "rename"):
        monkeypatch.setattr(os, name, noting(name, getattr(os, name)))
    digests = layout.put_all((b"one", b"old", b"two"))
    assert digests == [digest_of(b"one"), digest_of(b"old"), digest_of(b"two")]
    assert [layout.read(digest) for digest in digests] == [b"one", b"old", b"two"]
    assert calls == ["fsync", "fsync", "rename", "rename", "fsync"]  # the last is the directory's
    assert layout.put_all((b"one", b"one")) == [digest_of(b"one")] * 2
    assert len(calls) == 5


def test_nothing_is_left_of_blobs_of_which_one_cannot_be_written(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, descriptors = files(layout), len(os.listdir("/proc/self/fd"))
    real = os.write

    def write(descriptor: int, data: memoryview) -> int:
        if bytes(data) == b"two":
            raise OSError(errno.ENOSPC, "no space")
        return real(descriptor, data)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        with pytest.raises(StoreError, match="the disk is full"):
            layout.put_all((b"one", b"two", b"three"))
    assert files(layout) == before
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_crash_between_writing_and_renaming_leaves_the_old_state(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    with layout.changing() as manifests:
        manifests.append(ONE)
    before = files(layout)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            layout.put(b"lost")
        with pytest.raises(KeyboardInterrupt), layout.changing() as manifests:
            manifests.append(TWO)
    assert layout.index().manifests == [ONE]
    assert files(layout) == before
    with layout.changing() as manifests:  # and the lock is free
        manifests.append(TWO)
    assert layout.index().manifests == [ONE, TWO]


def _killed(path: str, ready: multiprocessing.synchronize.Event) -> None:
    """Dies, as if by SIGKILL, with everything written but nothing renamed."""

    def die(*_: object) -> None:
        ready.set()
        os._exit(9)

    os.rename = die  # type: ignore[assignment]
    layout = Layout(path)
    with layout.changing() as manifests:
        manifests.append(TWO)


def test_a_killed_process_leaves_the_old_state(layout: Layout) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_killed, args=(layout.path, ready))
    process.start()
    process.join(30)
    assert ready.is_set()
    assert process.exitcode == 9
    assert layout.index().manifests == []
    with layout.changing() as manifests:
        manifests.append(ONE)
    assert layout.index().manifests == [ONE]


def test_a_change_that_fails_is_not_written(layout: Layout) -> None:
    def fail() -> None:
        with layout.changing() as manifests:
            manifests.append(ONE)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert layout.index().manifests == []


def _create(path: str, number: int) -> None:
    layout = Layout(path)
    layout.create()
    _add(path, number, 1)


def test_two_processes_that_create_the_layout_lose_nothing(tmp_path: Path) -> None:
    for turn in range(5):
        path = str(tmp_path / str(turn))
        together(processes=[partial(_create, path, number) for number in range(4)], method="fork")
        assert len(Layout(path).index().manifests) == 4


def _add(path: str, number: int, count: int) -> None:
    layout = Layout(path)
    for turn in range(count):
        with layout.changing() as manifests:
            manifests.append(Descriptor(OCI_MANIFEST, digest_of(f"{number} {turn}".encode()), number))


def test_two_processes_and_two_threads_lose_nothing(layout: Layout) -> None:
    adding = [partial(_add, layout.path, number, 15) for number in range(4)]
    together(*adding[2:], processes=adding[:2])
    found = layout.index().manifests
    assert len(found) == 60
    assert len({descriptor.digest for descriptor in found}) == 60


def test_annotations_of_an_index_stay(layout: Layout) -> None:
    index = Path(layout.path) / "index.json"
    index.write_text('{"schemaVersion":2,"manifests":[],"annotations":{"who":"else"}}')
    with layout.changing() as manifests:
        manifests.append(ONE)
    assert layout.index().annotations == {"who": "else"}


def test_what_is_no_layout(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not an OCI image layout"):
        Layout(str(tmp_path)).index()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot create the store") as caught:
        Layout(str(tmp_path / "file" / "store")).create()
    assert caught.value.remedy


def test_nothing_is_put_into_a_layout_without_an_index(tmp_path: Path) -> None:
    (tmp_path / "oci-layout").write_bytes(LAYOUT_FILE)
    with pytest.raises(StoreError, match="not an OCI image layout"):
        Layout(str(tmp_path)).create()
    assert os.listdir(tmp_path) == ["oci-layout"]


def test_a_layout_that_another_tool_made_can_be_changed(tmp_path: Path) -> None:
    """Others leave no directory for temporary files, and with an empty layout no blobs either."""
    (tmp_path / "oci-layout").write_bytes(LAYOUT_FILE)
    (tmp_path / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')
    layout = Layout(str(tmp_path))
    layout.create()
    layout.put(b"hello")
    with layout.changing() as manifests:
        manifests.append(ONE)
    assert layout.index().manifests == [ONE]


def test_the_directory_for_unfinished_files_stays_until_the_last_writer_ends(tmp_path: Path) -> None:
    one, other = Layout(str(tmp_path / "out")), Layout(str(tmp_path / "out"))
    with one.writing() as is_alone:
        with other.writing() as other_is_alone:
            assert not other_is_alone()
        digest = one.put(b"hello")
        assert is_alone()
    assert files(one) == {"oci-layout", "index.json", f"blobs/sha256/{digest[7:]}"}
    assert not os.path.exists(one.temporary)


def test_writers_that_come_and_go_disturb_nobody(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for turn in range(30):
            layout = Layout(str(tmp_path / "out"))
            with layout.writing():
                layout.put(f"{number} {turn}".encode())

    together(*(partial(write, number) for number in range(4)))
    assert len(Layout(str(tmp_path / "out")).digests()) == 120
