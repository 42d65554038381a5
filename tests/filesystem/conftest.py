"""What the tests of layers share: archives by Python's tarfile, trees described as dictionaries, overlay mounts."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.filesystem.snapshots import Snapshots
from tests.support.archives import TIME, Archive, Entry, archive

__all__ = ["TIME", "Archive", "Entry"]

Describe = Callable[[Path], dict[str, Any]]


@pytest.fixture(name="archive", scope="session")
def archive_fixture() -> Archive:
    """Makes a tar archive of (name, {data, type, mode, owner, mtime, link, device, pax}) with Python's tarfile."""
    return archive


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path)


def leftovers(snapshots: Snapshots) -> list[str]:
    """What nobody calls a snapshot."""
    return [name for name in os.listdir(snapshots.entries.directory) if name.startswith(("tmp-", "gone-"))]


def _describe(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    first: dict[tuple[int, int], str] = {}
    paths = [Path(top, name) for top, directories, files in os.walk(root) for name in directories + files]
    for path in sorted(paths):
        status = path.lstat()
        name = str(path.relative_to(root))
        kind = stat.S_IFMT(status.st_mode)
        entry: dict[str, Any] = {"type": kind, "mode": status.st_mode & 0o7777, "owner": (status.st_uid, status.st_gid)}
        if kind != stat.S_IFDIR:
            entry["mtime"] = int(status.st_mtime)
            if status.st_nlink > 1:
                entry["link of"] = first.setdefault((status.st_dev, status.st_ino), name)
        if kind == stat.S_IFREG:
            entry["data"] = path.read_bytes()
        elif kind == stat.S_IFLNK:
            entry["target"] = os.readlink(path)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            entry["device"] = status.st_rdev
        names = os.listxattr(path, follow_symlinks=False)
        entry["xattrs"] = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
        found[name] = entry
    return found


@pytest.fixture(name="describe", scope="session")
def describe_fixture() -> Describe:
    """Everything about a directory that a layer keeps, by path."""
    return _describe


class Overlays:
    """Mounts overlays for one test and unmounts them afterwards."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._mounted: list[Path] = []

    def mount(self, target: Path, lowers: list[Path], upper: Path | None = None, work: Path | None = None) -> Path:
        target.mkdir()
        options = "lowerdir=" + ":".join(map(str, lowers)) + ",redirect_dir=off,metacopy=off,index=off"
        if upper is not None:
            options += f",upperdir={upper},workdir={work}"
        if self._libc.mount(b"overlay", os.fsencode(target), b"overlay", 0, options.encode()):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._mounted.append(target)
        return target

    def unmount(self) -> None:
        while self._mounted:
            self._libc.umount2(os.fsencode(self._mounted.pop()), 2)


@pytest.fixture
def overlays(tmp_path: Path) -> Iterator[Overlays]:
    """Real overlay mounts; skips where they are not possible."""
    if os.geteuid() != 0:
        pytest.skip("overlay mounts need root")
    mounts = Overlays()
    try:
        for name in ("probe-lower", "probe-upper", "probe-work"):
            (tmp_path / name).mkdir()
        try:
            probe = tmp_path / "probe-upper", tmp_path / "probe-work"
            mounts.mount(tmp_path / "probe", [tmp_path / "probe-lower"], *probe)
        except OSError as error:
            pytest.skip(f"no overlay mounts here: {error}")
        yield mounts
    finally:
        mounts.unmount()
