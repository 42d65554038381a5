"""unpack: what tar and Docker make of an archive, and what a hostile one must not be able to do."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.errors import LayerError
from builder.filesystem import placement, syscalls
from builder.filesystem.decompress import decompressor
from builder.filesystem.layered import LayeredTree
from builder.filesystem.unpack import Unpacked, unpack

Archive = Callable[..., bytes]
Describe = Callable[[Path], dict[str, Any]]
Factory = pytest.TempPathFactory
FILE = {"data": b"x"}
CAPABILITY = "\x01\0\0\x02\0\x04" + "\0" * 14

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")


@pytest.fixture(params=["openat2", "walk", "elsewhere"], autouse=True)
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is tried with openat2 and with what replaces it, and with all made where it is not slow to be made."""
    if request.param == "walk":
        monkeypatch.setattr(syscalls, "_openat2", lambda: None)
    if request.param == "elsewhere":
        monkeypatch.setattr(placement, "_SLOW", 0)
        monkeypatch.setattr(placement, "_ENOUGH", 1)
        monkeypatch.setattr(placement, "_QUICK", 1)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty directory beside a file that nothing may touch."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def run(raw: bytes, target: Path, *, layer: bool = True, **more: Any) -> Unpacked:
    return unpack(io.BytesIO(raw), target, layer=layer, beside=str(target.parent), **more)


@pytest.fixture(autouse=True)
def nothing_outside(target: Path, describe: Describe) -> Any:
    before = describe(target.parent / "outside")
    yield
    assert describe(target.parent / "outside") == before
    assert sorted(os.listdir(target.parent)) == ["outside", "root"]


def test_as_gnu_tar_does(archive: Archive, target: Path, describe: Describe, tmp_path_factory: Factory) -> None:
    raw = archive(
        ("d", {"mode": 0o1777, "owner": (5, 6)}),
        ("d/f", {"data": b"content" * 1000, "mode": 0o6755, "owner": (1000, 50)}),
        ("d/empty", {"data": b"", "mode": 0}),
        ("d/hard", {"type": tarfile.LNKTYPE, "link": "d/f", "mode": 0o6755, "owner": (1000, 50)}),
        ("link", {"type": tarfile.SYMTYPE, "link": "/nowhere", "mode": 0o777, "owner": (7, 7)}),
        ("null", {"type": tarfile.CHRTYPE, "device": (1, 3), "mode": 0o666}),
        ("loop", {"type": tarfile.BLKTYPE, "device": (7, 0), "mode": 0o660}),
        ("fifo", {"type": tarfile.FIFOTYPE, "mode": 0o600, "owner": (1, 2)}),
        ("deep/er", {"mode": 0o700}),
        ("n" * 120 + "/\udcff", FILE),
    )
    done = run(raw, target)
    assert done == Unpacked("sha256:" + hashlib.sha256(raw).hexdigest(), 10, len(raw), ("deep", "n" * 120))
    theirs = tmp_path_factory.mktemp("gnu")
    subprocess.run(["tar", "-xp", "--same-owner", "--numeric-owner", "-C", str(theirs)], input=raw, check=True)
    assert describe(target) == describe(theirs)
    assert (target / "d").stat().st_mtime == 1_577_836_800


def test_capabilities_and_setuid_survive_the_change_of_owner(archive: Archive, target: Path) -> None:
    pax = {"SCHILY.xattr.security.capability": CAPABILITY, "SCHILY.xattr.user.note": "hi", "mtime": "12.345678901"}
    run(archive(("f", {"data": b"x", "mode": 0o4711, "owner": (1, 1), "pax": pax})), target)
    assert os.getxattr(target / "f", "security.capability") == CAPABILITY.encode()
    assert os.getxattr(target / "f", "user.note") == b"hi"
    assert (target / "f").stat().st_mode & 0o7777 == 0o4711
    assert (target / "f").stat().st_mtime_ns == 12_345_678_901


def test_the_attributes_of_overlayfs_are_not_the_archives_to_set(archive: Archive, target: Path) -> None:
    names = [f"{space}.overlay.{name}" for space in ("trusted", "user") for name in ("opaque", "redirect")]
    pax = {f"SCHILY.xattr.{name}": "y" for name in names}
    run(archive(("d", {"pax": pax})), target)
    assert os.listxattr(target / "d") == []


def test_whiteouts_become_overlayfs_ones(archive: Archive, target: Path) -> None:
    raw = archive(
        ("d/.wh.gone", {"data": b""}), (".wh.top", {"data": b""}), ("o", {}), ("o/.wh..wh..opq", {"data": b""}),
        ("o/new", FILE), (".wh..wh.plnk", {}), (".wh..wh.aufs", {"data": b""}),
    )  # fmt: skip
    run(raw, target)
    for name in ("d/gone", "top"):
        status = (target / name).lstat()
        assert stat.S_ISCHR(status.st_mode)
        assert status.st_rdev == 0
    assert os.getxattr(target / "o", "trusted.overlay.opaque") == b"y"
    assert sorted(os.listdir(target)) == ["d", "o", "top"]


def test_a_whiteout_never_hides_its_own_layer(archive: Archive, target: Path) -> None:
    first = [("a", FILE), (".wh.a", {"data": b""}), (".wh.b", {"data": b""}), ("b", FILE)]
    second = [("c/f", FILE), (".wh.c", {"data": b""}), (".wh.e", {"data": b""}), ("e/f", FILE)]
    run(archive(*first, *second), target)
    assert (target / "a").read_bytes() == (target / "b").read_bytes() == b"x"
    for name in ("c", "e"):
        assert (target / name / "f").read_bytes() == b"x"
        assert os.getxattr(target / name, "trusted.overlay.opaque") == b"y"


def test_user_namespaces_use_user_attributes(archive: Archive, target: Path) -> None:
    run(archive(("o/.wh..wh..opq", {"data": b""})), target, userxattr=True)
    assert os.getxattr(target / "o", "user.overlay.opaque") == b"y"


def test_in_other_archives_whiteouts_are_ordinary(archive: Archive, target: Path) -> None:
    run(archive((".wh.a", FILE), (".wh..wh..opq", FILE)), target, layer=False)
    assert sorted(os.listdir(target)) == [".wh..wh..opq", ".wh.a"]


@pytest.mark.parametrize("name", [".wh..", ".wh...", ".wh.", "a/.wh..."])
def test_whiteouts_of_dots_are_refused(archive: Archive, target: Path, name: str) -> None:
    with pytest.raises(LayerError, match="whiteout of"):
        run(archive(("a", {}), (name, {"data": b""})), target)


SECRET = "../outside/secret"


@pytest.mark.parametrize(
    ("entries", "inside"),
    [
        ([("/abs/f", FILE)], "abs/f"),
        ([("../../outside/secret", FILE)], "outside/secret"),
        ([("a/../../outside/secret", FILE)], "outside/secret"),
        ([("l", {"type": tarfile.SYMTYPE, "link": "../outside"}), ("l/secret", FILE)], "outside/secret"),
        ([("l", {"type": tarfile.SYMTYPE, "link": "/outside"}), ("l/secret", FILE)], "outside/secret"),
        ([("l", {"type": tarfile.SYMTYPE, "link": "../../.."}), ("l/outside/secret", FILE)], "outside/secret"),
        ([("l", {"type": tarfile.SYMTYPE, "link": SECRET}), ("l", FILE)], "l"),
        ([("l", {"type": tarfile.SYMTYPE, "link": "../outside"}), ("l", {}), ("l/secret", FILE)], "l/secret"),
        ([("d", {}), ("d", {"type": tarfile.SYMTYPE, "link": "../outside"}), ("d/secret", FILE)], "outside/secret"),
        ([("a", {"type": tarfile.SYMTYPE, "link": "b"}), ("b", {"type": tarfile.SYMTYPE, "link": "../../outside"}),
          ("a/x/secret", FILE)], "outside/x/secret"),
        ([("l", {"type": tarfile.SYMTYPE, "link": "../outside"}), ("l/.wh.secret", {"data": b""})], None),
        ([("l", {"type": tarfile.SYMTYPE, "link": "../outside"}), ("l/.wh..wh..opq", {"data": b""})], None),
        ([("l", {"type": tarfile.SYMTYPE, "link": SECRET}),
          ("h", {"type": tarfile.LNKTYPE, "link": "l"})], None),
        ([("p/f", FILE), ("l", {"type": tarfile.SYMTYPE, "link": "/p"}), ("l/f", {"data": b"y"}),
          ("l/f", FILE)], "p/f"),
    ],
)  # fmt: skip
def test_everything_stays_inside(archive: Archive, target: Path, entries: list[Any], inside: str | None) -> None:
    run(archive(*entries), target)
    if inside is not None:
        assert (target / inside).read_bytes() == b"x"
        assert not (target / inside).is_symlink()


@pytest.mark.parametrize("link", [SECRET, "/etc/passwd", "missing", "l/secret", ".", "d"])
def test_hard_links_that_lead_nowhere(archive: Archive, target: Path, link: str) -> None:
    symlink = {"type": tarfile.SYMTYPE, "link": "../outside"}
    raw = archive(("d", {}), ("l", symlink), ("h", {"type": tarfile.LNKTYPE, "link": link}))
    with pytest.raises(LayerError, match="h: "):
        run(raw, target)
    assert not (target / "h").exists()


def test_hard_links_through_links_and_over_entries(archive: Archive, target: Path) -> None:
    raw = archive(
        ("usr/bin/f", FILE), ("bin", {"type": tarfile.SYMTYPE, "link": "usr/bin"}), ("d/e/f", FILE),
        ("bin/g", {"type": tarfile.LNKTYPE, "link": "bin/f", "mode": 0o600, "owner": (3, 4)}),
        ("d", {"type": tarfile.LNKTYPE, "link": "/bin/g", "mode": 0o600, "owner": (3, 4)}),
        ("d", {"type": tarfile.LNKTYPE, "link": "d", "mode": 0o600}),
    )  # fmt: skip
    run(raw, target)
    status = (target / "usr/bin/f").stat()
    assert (status.st_nlink, status.st_mode & 0o7777, status.st_uid, status.st_gid) == (3, 0o600, 3, 4)


def test_the_last_of_duplicates_wins(archive: Archive, target: Path) -> None:
    symlink, fifo = {"type": tarfile.SYMTYPE, "link": "z"}, {"type": tarfile.FIFOTYPE}
    kinds: list[dict[str, Any]] = [{"data": b"old"}, {}, symlink, fifo]
    entries = []
    for first, one in enumerate(kinds):
        for second, other in enumerate([FILE, {"mode": 0o700}, symlink, fifo]):
            entries += [(f"{first}{second}", one), (f"{first}{second}", other)]
    entries += [("tree/a/b", FILE), ("tree/a/c", {}), ("tree", FILE), ("kept/f", FILE), ("kept", {"mode": 0o711})]
    run(archive(*entries), target)
    checks: list[Callable[[Path], bool]] = [Path.is_file, Path.is_dir, Path.is_symlink, Path.is_fifo]
    for first in range(4):
        for second, check in enumerate(checks):
            assert check(target / f"{first}{second}")
    assert (target / "tree").read_bytes() == (target / "kept/f").read_bytes() == b"x"
    assert (target / "kept").stat().st_mode & 0o7777 == 0o711


def test_an_entry_below_a_file_is_refused(archive: Archive, target: Path) -> None:
    with pytest.raises(LayerError, match="f: an entry lies below it"):
        run(archive(("f", FILE), ("f/g", FILE)), target)


def test_a_loop_of_links_is_refused(archive: Archive, target: Path) -> None:
    a, b = {"type": tarfile.SYMTYPE, "link": "b"}, {"type": tarfile.SYMTYPE, "link": "a"}
    with pytest.raises(LayerError, match="too many levels"):
        run(archive(("a", a), ("b", b), ("a/f", FILE)), target)


@pytest.mark.parametrize("cut", [100, 600, 1500])
def test_truncation_names_the_entry(archive: Archive, target: Path, cut: int) -> None:
    with pytest.raises(LayerError, match="truncated"):
        run(archive(("f", {"data": b"y" * 2000}))[:cut], target)


def test_the_limit_of_entries(archive: Archive, target: Path) -> None:
    raw = archive(*((str(number), FILE) for number in range(20)))
    with pytest.raises(LayerError, match="more than 10 entries"):
        run(raw, target, max_entries=10)


def test_very_many_directories_and_depth(archive: Archive, target: Path) -> None:
    deep = "/".join(["d"] * 800)
    wide = [(f"{number}/x/f", FILE) for number in range(300)]
    run(archive((deep, {}), *wide, *((name + "2", FILE) for name, _ in wide)), target)
    assert (target / deep).is_dir()
    assert (target / "299/x/f2").read_bytes() == b"x"


def test_large_streams_are_read_ahead(archive: Archive, target: Path) -> None:
    data = os.urandom(3 << 20)
    raw = archive(*((str(number), {"data": data}) for number in range(3)))
    done = unpack(decompressor(io.BytesIO(gzip.compress(raw, 1))), target, layer=True)
    assert done.diff_id == "sha256:" + hashlib.sha256(raw).hexdigest()
    assert (target / "2").read_bytes() == data
    with pytest.raises(LayerError, match="gzip stream is truncated"):
        unpack(decompressor(io.BytesIO(gzip.compress(raw, 1)[:-100])), target, layer=True)
    with pytest.raises(LayerError, match="entries"):
        unpack(decompressor(io.BytesIO(gzip.compress(raw, 1))), target, layer=True, max_entries=1)


def test_what_a_layer_leaves_out_comes_from_below(archive: Archive, target: Path, tmp_path_factory: Factory) -> None:
    base = tmp_path_factory.mktemp("base")
    old = archive(
        ("tmp", {"mode": 0o1777, "owner": (1, 2)}), ("run", {}), ("secret", {"mode": 0o700}),
        ("var/run", {"type": tarfile.SYMTYPE, "link": "../run"}), ("secret/d", {"mode": 0o711}),
        ("bin/sh", {"data": b"shell", "mode": 0o4755, "owner": (8, 9)}),
    )  # fmt: skip
    run(old, base)
    raw = archive(
        ("tmp/f", FILE), ("var/run/pid", FILE), ("new/f", FILE), (".wh.secret", {"data": b""}), ("secret/d/f", FILE),
        ("bash", {"type": tarfile.LNKTYPE, "link": "bin/sh", "mode": 0o4755, "owner": (8, 9)}),
    )  # fmt: skip
    with LayeredTree([base]) as below:
        done = run(raw, target, below=below)
    assert done.implicit == ("bin", "bin/sh", "new", "run", "secret", "secret/d", "tmp", "var", "var/run")
    status = (target / "tmp").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o1777, 1, 2)
    assert (target / "run/pid").read_bytes() == b"x"
    assert not (target / "var/run").exists()
    assert (target / "bash").read_bytes() == b"shell"
    assert (target / "bin/sh").stat().st_mode & 0o7777 == 0o4755
    assert (target / "secret").stat().st_mode & 0o7777 == 0o755
    assert (target / "secret/d").stat().st_mode & 0o7777 == 0o755
