"""Layers as EROFS images: mounted, they are what `unpack` makes of the same archive."""

from __future__ import annotations

import errno
import io
import os
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import BuilderError, LayerError, lacks_room
from builder.filesystem.erofs_format import Unsuitable
from builder.filesystem.erofs_layer import write_erofs
from builder.filesystem.erofs_mount import is_able, mount_erofs
from builder.filesystem.unpack import unpack
from tests.support.archives import archive

Describe = Callable[[Path], dict[str, Any]]
Entry = tuple[str, dict[str, Any]]
FILE = {"data": b"x"}
LINK, SYMLINK = tarfile.LNKTYPE, tarfile.SYMTYPE
CAPABILITY = "\x01\0\0\x02\0\x04" + "\0" * 14

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")


def xattrs(**values: str) -> dict[str, str]:
    return {f"SCHILY.xattr.{name.replace('__', '.')}": value for name, value in values.items()}


PLAIN: dict[str, list[Entry]] = {
    "nothing": [],
    "the root": [("", {"mode": 0o1777, "owner": (3, 4), "pax": {"mtime": "12.345678901"}})],
    "the root's attributes": [("", {"pax": xattrs(user__a="b" * 1500)}), ("f", FILE)],
    "kinds": [
        ("d", {"mode": 0o1777, "owner": (5, 6)}),
        ("d/f", {"data": b"content" * 1000, "mode": 0o6755, "owner": (1000, 2**32 - 2)}),
        ("d/empty", {"data": b"", "mode": 0}),
        ("link", {"type": SYMLINK, "link": "/nowhere", "mode": 0o777, "owner": (7, 7)}),
        ("null", {"type": tarfile.CHRTYPE, "device": (1, 3), "mode": 0o666}),
        ("far", {"type": tarfile.CHRTYPE, "device": (259, 0x12345), "mode": 0o666}),
        ("loop", {"type": tarfile.BLKTYPE, "device": (7, 0), "mode": 0o660}),
        ("fifo", {"type": tarfile.FIFOTYPE, "mode": 0o600, "owner": (1, 2)}),
    ],
    "sizes": [(f"f{n}", {"data": bytes(range(256)) * (n // 256) + b"e" * (n % 256)})
              for n in (1, 4031, 4032, 4033, 4095, 4096, 4097, 8127, 8128, 8129, 12288, (1 << 20) + 5, 3 << 20)],
    "many inodes": [(f"f{n:05}", {"data": b"%d" % n * (n % 700)}) for n in range(3000)],
    "large after small": [(f"f{n:03}", {"data": b"s" * 100 if n % 3 else b"l" * 50_000}) for n in range(300)],
    "symbolic links": [(f"l{n}", {"type": SYMLINK, "link": "t" * n}) for n in (1, 59, 60, 4000, 4032, 4033, 4095)],
    "names": [(name, FILE) for name in
              ("-", "!", "..a", ".b", "...", "a", "B", "ä", "\udcff", "n" * 255, "new\nline", "a b", "\x01")],
    "names of a block": [("d", {})] + [(f"d/{n:04}" + "x" * (n % 200), FILE) for n in range(500)],
    "directories": [
        ("a", {}), ("a/b", {"mode": 0o700}), ("a/b/c", {}), ("a/d", {}), ("z", {}), ("a/b/late", FILE),
        ("a", {"mode": 0o710, "owner": (1, 2), "mtime": 77}),
    ],
    "times": [(f"t{n}", {"data": b"x", "pax": {"mtime": time}})
              for n, time in enumerate(("12.345678901", "0", "-1", "-1.25", "4294967296", "20000000000.5"))],
    "attributes": [
        ("f", {"data": b"x", "mode": 0o4711, "owner": (1, 1),
               "pax": xattrs(security__capability=CAPABILITY, user__note="hi", user__empty="")}),
        ("long", {"data": b"l" * 3000, "pax": {f"SCHILY.xattr.user.{'n' * 100}": "v" * 1500}}),
        ("d", {"pax": xattrs(user__of="a directory", trusted__mine="1")}),
        ("forged", {"pax": xattrs(trusted__overlay__opaque="y", user__overlay__redirect="/x")}),
        ("unknown", {"data": b"x", "pax": xattrs(strange__name="1")}),
    ],
    "hard links": [
        ("d", {}), ("d/one", {"data": b"content", "owner": (1, 2), "mode": 0o640}),
        ("two", {"type": LINK, "link": "d/one", "owner": (1, 2), "mode": 0o640}),
        ("d/three", {"type": LINK, "link": "two", "owner": (1, 2), "mode": 0o640}),
        ("s", {"type": SYMLINK, "link": "two", "mode": 0o777}), ("t", {"type": LINK, "link": "s"}),
        *((f"d/link{n}", {"type": LINK, "link": "d/one", "owner": (1, 2), "mode": 0o640}) for n in range(300)),
    ],
    "a whiteout": [("d", {}), ("d/.wh.gone", {"data": b""}), (".wh.top", {"data": b""}), ("f", FILE)],
    "an opaque directory": [
        ("o", {"pax": xattrs(user__note="hi")}), ("o/.wh..wh..opq", {"data": b""}), ("o/new", FILE),
        ("p", {}), ("p/.wh..wh..opq", {"data": b""}), ("p", {"mode": 0o711}),
        ("q", {"pax": {f"SCHILY.xattr.user.{'n' * 100}": "v" * 1500}}), ("q/.wh..wh..opq", {"data": b""}),
    ],
    "the root is opaque": [("f", FILE), (".wh..wh..opq", {"data": b""})],
    "AUFS": [(".wh..wh.plnk", {}), (".wh..wh.aufs", {"data": b""}), ("f", FILE)],
}  # fmt: skip

UNSUITABLE: dict[str, list[Entry]] = {
    "a directory that is left out": [("d/f", FILE)],
    "a parent that is a link": [("d", {}), ("l", {"type": SYMLINK, "link": "d"}), ("l/f", FILE)],
    "a name twice": [("a", FILE), ("b", FILE), ("a", {"data": b"2"})],
    "a file in place of a directory": [("a", {}), ("a/f", FILE), ("a", FILE)],
    "a directory in place of a file": [("a", FILE), ("a", {})],
    "a file below a file": [("a", FILE), ("a/b", FILE)],
    "a whiteout of its own layer": [("a", FILE), (".wh.a", {"data": b""})],
    "a whiteout of its own directory": [(".wh.a", {"data": b""}), ("a", {})],
    "a whiteout with content": [(".wh.a", FILE), ("b", FILE)],
    "a whiteout of a dot": [(".wh..", {"data": b""})],
    "a link to a name that is there twice": [("a", FILE), ("a", FILE), ("b", {"type": LINK, "link": "a"})],
    "a link to nothing": [("a", {"type": LINK, "link": "b"})],
    "a link to itself": [("a", {"type": LINK, "link": "a"})],
    "a link to a directory": [("a", {}), ("b", {"type": LINK, "link": "a"})],
    "a link to a whiteout": [(".wh.a", {"data": b""}), ("b", {"type": LINK, "link": "a"})],
    "a link with another mode": [("a", FILE), ("b", {"type": LINK, "link": "a", "mode": 0o600})],
    "a link with another time": [("a", FILE), ("b", {"type": LINK, "link": "a", "mtime": 1})],
    "access rights": [("a", {"data": b"x", "pax": xattrs(system__posix_acl_access="\x02\0\0\0")})],
    "long attributes": [("a", {"data": b"x", "pax": xattrs(user__a="v" * 3000)})],
    "a directory with more attributes": [("a", {}), ("a", {"pax": xattrs(user__a="v" * 500)})],
    "a name that is too long": [("n" * 256, FILE)],
    "a link that leads too far": [("l", {"type": SYMLINK, "link": "t" * 4096})],
    "a link that leads nowhere": [("l", {"type": SYMLINK, "link": ""})],
}


def write(raw: bytes, path: Path) -> Path:
    done = write_erofs(io.BytesIO(raw), str(path))
    beside = path.parent / "unpacked"
    beside.mkdir()
    assert done == unpack(io.BytesIO(raw), beside, layer=True)
    return beside


@pytest.fixture
def mounted(mounts_erofs: None) -> Iterator[Callable[[Path], Path]]:
    """Mounts an image."""
    descriptors = []

    def mount(path: Path) -> Path:
        descriptors.append(mount_erofs(str(path)))
        return Path(f"/proc/self/fd/{descriptors[-1]}")

    yield mount
    for descriptor in descriptors:
        os.close(descriptor)


def assert_same(image: Path, unpacked: Path, describe: Describe) -> None:
    found, wanted = describe(image), describe(unpacked)
    assert sorted(found) == sorted(wanted)
    for path, entry in wanted.items():
        if entry.get("device") == 0:  # of a whiteout nothing else counts
            assert (found[path]["type"], found[path].get("device")) == (entry["type"], 0), path
            continue
        assert found[path] == entry, path
    for path in ("", *wanted):
        if path and wanted[path].get("device") == 0:
            continue
        ours, theirs = os.lstat(f"{image}/{path}"), os.lstat(f"{unpacked}/{path}")
        assert (ours.st_nlink, ours.st_mode, ours.st_uid) == (theirs.st_nlink, theirs.st_mode, theirs.st_uid), path
        if path:  # the root's is when it was made, if the archive does not say it
            assert ours.st_mtime_ns == theirs.st_mtime_ns, path


@pytest.mark.parametrize("name", PLAIN)
def test_an_image_is_what_would_have_been_unpacked(
    name: str, tmp_path: Path, mounted: Callable[[Path], Path], describe: Describe
) -> None:
    beside = write(archive(*PLAIN[name]), tmp_path / "image")
    assert_same(mounted(tmp_path / "image"), beside, describe)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.skipif(shutil.which("fsck.erofs") is None, reason="erofs-utils is not installed")
def test_the_formats_own_tools_find_nothing_wrong(name: str, tmp_path: Path) -> None:
    write(archive(*PLAIN[name]), tmp_path / "image")
    done = subprocess.run(["fsck.erofs", tmp_path / "image"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", UNSUITABLE)
def test_what_has_no_place_in_an_image(name: str, tmp_path: Path) -> None:
    with pytest.raises(Unsuitable):
        write_erofs(io.BytesIO(archive(*UNSUITABLE[name])), str(tmp_path / "image"))


def test_the_number_of_links_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.filesystem.erofs_format._INODE", struct.Struct("<HHHHQIIIIqIB19x"))
    links: list[Entry] = [(f"l{n}", {"type": LINK, "link": "f"}) for n in range(255)]
    with pytest.raises(Unsuitable):
        write_erofs(io.BytesIO(archive(("f", FILE), *links)), str(tmp_path / "image"))


def test_a_directory_of_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.filesystem.erofs_writer._MOST_NAMES", 3)
    for number, names in enumerate(("abc", "abcd")):
        raw = archive(*((name, FILE) for name in names))
        if number:
            with pytest.raises(Unsuitable):
                write_erofs(io.BytesIO(raw), str(tmp_path / "more"))
        else:
            write_erofs(io.BytesIO(raw), str(tmp_path / "most"))


@pytest.mark.parametrize("room", [0, 2, 4])
def test_a_full_disk(room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    pwrite = os.pwrite

    def full(descriptor: int, data: bytes, at: int) -> int:
        if len(written) >= room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(at)
        return pwrite(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", full)
    raw = archive(*((f"f{number}", {"data": b"x" * (1 << 19)}) for number in range(9)))
    with pytest.raises(BuilderError) as caught:
        write_erofs(io.BytesIO(raw), str(tmp_path / "image"))
    assert lacks_room(caught.value)
    assert "No space left" in str(caught.value)


def test_the_limit_of_entries(tmp_path: Path) -> None:
    raw = archive(("a", FILE), ("b", FILE))
    with pytest.raises(LayerError, match="more than 1"):
        write_erofs(io.BytesIO(raw), str(tmp_path / "image"), max_entries=1)


def test_a_damaged_archive_is_no_layer(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="truncated"):
        write_erofs(io.BytesIO(archive(("a", {"data": b"x" * 5000}))[:3000]), str(tmp_path / "image"))


NAMES = st.sampled_from(["a", "b", "d", "d/a", "d/b", "d/e", "d/e/f", ".wh.a", "d/.wh.b", "d/.wh..wh..opq", ""])
SPECS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(dict, data=st.binary(max_size=40) | st.integers(0, 9000).map(bytes), mode=st.integers(0, 0o7777)),
    st.builds(dict, mode=st.integers(0, 0o7777), owner=st.tuples(st.integers(0, 9), st.integers(0, 9))),
    st.builds(dict, type=st.just(SYMLINK), link=st.text("ab/.", max_size=6)),
    st.builds(dict, type=st.just(LINK), link=NAMES),
)


@given(st.lists(st.tuples(NAMES, SPECS), max_size=8))
def test_any_archive_is_the_same_or_unsuitable(
    tmp_path_factory: pytest.TempPathFactory, describe: Describe, entries: list[Entry]
) -> None:
    raw = archive(*entries)
    place = tmp_path_factory.mktemp("any")
    if not is_able(str(place)):
        pytest.skip("this kernel mounts no images from files")
    try:
        write_erofs(io.BytesIO(raw), str(place / "image"))
    except Unsuitable:
        return
    (place / "unpacked").mkdir()
    unpack(io.BytesIO(raw), place / "unpacked", layer=True)
    root = mount_erofs(str(place / "image"))
    try:
        assert_same(Path(f"/proc/self/fd/{root}"), place / "unpacked", describe)
    finally:
        os.close(root)


def test_overlays_take_it_as_a_layer(tmp_path: Path, mounted: Callable[[Path], Path], overlays: Any) -> None:
    """Whiteouts and opaque directories hide what lies below them."""
    below = tmp_path / "below"
    below.mkdir()
    files = [(name, FILE) for name in ("d/gone", "d/kept", "o/old", "top")]
    unpack(io.BytesIO(archive(*files)), below, layer=True)
    write(archive(*PLAIN["a whiteout"], ("o", {}), ("o/.wh..wh..opq", {"data": b""}), ("o/new", FILE)), tmp_path / "i")
    root = mounted(tmp_path / "i")
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    merged = overlays.mount(tmp_path / "merged", [root, below], tmp_path / "upper", tmp_path / "work")
    assert sorted(str(path.relative_to(merged)) for path in merged.rglob("*")) == ["d", "d/kept", "f", "o", "o/new"]
    (merged / "f").write_bytes(b"changed")
    assert (root / "f").read_bytes() == b"x"
