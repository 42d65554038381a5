"""The snapshot cache: complete or absent, whoever asks, and whoever was killed."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.errors import LayerError, StoreError
from builder.filesystem.layered import LayeredTree
from builder.filesystem.snapshots import Snapshots
from tests.filesystem.conftest import leftovers
from tests.support.archives import diff_id
from tests.support.together import together

Archive = Callable[..., bytes]
FILE = {"data": b"x"}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and attributes need root")


@pytest.mark.parametrize("large", [False, True])
def test_the_mode_of_the_root_whatever_the_umask(snapshots: Snapshots, archive: Archive, large: bool) -> None:
    raw = archive(("f", FILE))
    before = os.umask(0o077)
    try:
        path = snapshots.unpack(diff_id(raw), lambda: io.BytesIO(raw), large=large)
    finally:
        os.umask(before)
    assert os.stat(path).st_mode & 0o7777 == 0o755


def test_unpack_once(snapshots: Snapshots, archive: Archive) -> None:
    raw = archive(("d", {}), ("d/f", FILE))
    assert snapshots.path(diff_id(raw)) is None
    path = snapshots.unpack(diff_id(raw), lambda: io.BytesIO(raw))
    assert path == os.path.join(snapshots.entries.directory, diff_id(raw)[7:], "fs")
    assert Path(path, "d/f").read_bytes() == b"x"
    assert snapshots.path(diff_id(raw)) == path
    assert snapshots.unpack(diff_id(raw), lambda: pytest.fail("unpacked twice")) == path
    assert snapshots.entries.diff_ids() == [diff_id(raw)]
    snapshots.entries.remove(diff_id(raw))
    snapshots.entries.remove(diff_id(raw))
    assert snapshots.path(diff_id(raw)) is None
    assert leftovers(snapshots) == []


def test_the_digest_is_verified(snapshots: Snapshots, archive: Archive) -> None:
    raw = archive(("f", FILE))
    wrong = diff_id(b"something else")
    with pytest.raises(LayerError, match=diff_id(raw)):
        snapshots.unpack(wrong, lambda: io.BytesIO(raw))
    with pytest.raises(LayerError, match="truncated"):
        snapshots.unpack(diff_id(raw[:700]), lambda: io.BytesIO(raw[:700]))
    assert snapshots.path(wrong) is None
    assert leftovers(snapshots) == []
    with pytest.raises(StoreError, match="no diff ID"):
        snapshots.path("sha256:../../etc")


def test_adopt(snapshots: Snapshots, archive: Archive, tmp_path: Path) -> None:
    for _ in range(2):
        (tmp_path / "upper").mkdir()
        (tmp_path / "upper/f").write_text("x")
        path = snapshots.adopt(diff_id(b"1"), tmp_path / "upper")
        assert path == snapshots.path(diff_id(b"1"))
        assert not (tmp_path / "upper").exists()
        assert os.listdir(path) == ["f"]
    with pytest.raises(StoreError, match="cannot become a snapshot"):
        snapshots.adopt(diff_id(b"2"), tmp_path / "missing")
    assert leftovers(snapshots) == []


def test_a_layer_that_is_not_complete_in_itself(snapshots: Snapshots, archive: Archive) -> None:
    bases = []
    for mode in (0o700, 0o1777):
        raw = archive(("d", {"mode": mode}))
        bases.append(snapshots.unpack(diff_id(raw), lambda raw=raw: io.BytesIO(raw)))  # type: ignore[misc]
    raw = archive(("d/f", FILE))
    opened = []

    def open_tar() -> io.BytesIO:
        opened.append(1)
        return io.BytesIO(raw)

    paths = [snapshots.unpack(diff_id(raw), open_tar, below) for below in ([], bases[:1], bases[1:], bases[:1])]
    assert len(opened) == 3
    assert [Path(path, "d").stat().st_mode & 0o7777 for path in paths] == [0o755, 0o700, 0o1777, 0o700]
    assert [snapshots.path(diff_id(raw), below) for below in ([], bases[:1], bases[1:], bases[:1])] == paths
    assert snapshots.path(diff_id(raw), bases) is None
    snapshots.entries.remove(diff_id(raw))
    assert snapshots.path(diff_id(raw), bases[:1]) is None
    assert len(snapshots.entries.diff_ids()) == 2


def test_a_complete_layer_serves_over_any_base(snapshots: Snapshots, archive: Archive) -> None:
    base, raw = archive(("d", {"mode": 0o700})), archive(("d", {}), ("d/f", FILE))
    below = [snapshots.unpack(diff_id(base), lambda: io.BytesIO(base))]
    path = snapshots.unpack(diff_id(raw), lambda: io.BytesIO(raw), below)
    assert snapshots.path(diff_id(raw)) == path
    with LayeredTree([path, *below]) as tree:
        assert [name for name, _ in tree.scan("d")] == ["f"]


def test_many_threads_unpack_once(snapshots: Snapshots, archive: Archive) -> None:
    raw = archive(*((str(number), FILE) for number in range(200)))
    opened: list[int] = []
    paths: list[str] = []

    def open_tar() -> io.BytesIO:
        opened.append(1)
        return io.BytesIO(raw)

    def work() -> None:
        paths.append(Snapshots(os.path.dirname(snapshots.entries.directory)).unpack(diff_id(raw), open_tar))

    together(*[work] * 8)
    assert (len(opened), len(paths), len(set(paths))) == (1, 8, 1)
