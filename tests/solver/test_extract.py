"""ADD of archives: what is unpacked where, and that nothing in them leads out of the destination."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from pathlib import Path
from typing import Any

import pytest
import zstandard

from builder.plan.steps import CopyFiles, FromContext
from builder.store.store import Store
from tests.solver.support import base_layer, entries, environment, node, outcome, run_copy, write
from tests.support.archives import archive

SYM, LINK, FIFO, CHR = b"2", b"1", b"6", b"3"
D = "dir 755 0:0"


def add(store: Store, tmp_path: Path, data: bytes, parent: tuple[str, ...] = (), **fields: Any) -> Any:
    """ADD archive.tar /out/: the layer's entries, or the cause of the failure."""
    context = write(tmp_path / "context", {"archive.tar": data})
    made, _ = environment(store, context)
    step = node(
        CopyFiles(tree=FromContext(""), path="/archive.tar", unpack=True), to=fields.pop("to", "/out/"), **fields
    )
    result = outcome(lambda: run_copy(made, step, parent))
    return result if isinstance(result, str) else entries(store, result.diff_id)


PACKERS = {
    "plain": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}  # fmt: skip


@pytest.mark.parametrize("packer", PACKERS)
def test_compressions(tmp_path: Path, store: Store, packer: str) -> None:
    data = archive(("d/", {"mode": 0o700}), ("d/f", {"data": b"x", "owner": (3, 4)}))
    found = add(store, tmp_path, PACKERS[packer](data))  # type: ignore[operator]
    assert found == {"out": D, "out/d": "dir 700 0:0", "out/d/f": "file 644 3:4 x"}


@pytest.mark.parametrize(
    "data", [b"", b"text", b"\x1f\x8b broken", b"\0" * 1024, gzip.compress(b"text", mtime=0), b"BZh9 no"]
)
def test_what_is_no_archive_is_copied(tmp_path: Path, store: Store, data: bytes) -> None:
    found = add(store, tmp_path, data)
    assert list(found) == ["out", "out/archive.tar"]


def test_what_is_damaged_after_its_first_entry_is_refused(tmp_path: Path, store: Store) -> None:
    data = archive(("a", {"data": b"x"}), ("b", {"data": b"y" * 2000}))
    assert add(store, tmp_path, data[:2048]) == "the archive is truncated"


@pytest.mark.parametrize("packer", [name for name in PACKERS if name != "plain"])
def test_what_is_cut_short_is_refused(tmp_path: Path, store: Store, packer: str) -> None:
    data = PACKERS[packer](archive(("a", {"data": random.Random(1).randbytes(2_000_000)})))  # type: ignore[operator]
    cause = add(store, tmp_path, data[: len(data) - 1000])
    assert isinstance(cause, str), "copied as if it were no archive"
    assert "truncated" in cause


def test_everything_that_an_archive_holds(tmp_path: Path, store: Store) -> None:
    data = archive(
        ("made/on/the/way", {"data": b"x"}), ("l", {"type": SYM, "link": "/etc"}), ("p", {"type": FIFO}),
        ("c", {"type": CHR, "device": (1, 3)}), ("h", {"type": LINK, "link": "made/on/the/way"}), ("e", {}),
    )  # fmt: skip
    assert add(store, tmp_path, data) == {
        "out": D, "out/c": "type b'3' 644 0:0 1:3", "out/e": D, "out/h": "file 644 0:0 x", "out/l": "link 0:0 -> /etc",
        "out/made": D, "out/made/on": D, "out/made/on/the": D, "out/made/on/the/way": "hard => out/h",
        "out/p": "type b'6' 644 0:0 0:0",
    }  # fmt: skip


def test_the_last_entry_of_a_name_counts(tmp_path: Path, store: Store) -> None:
    data = archive(
        ("a", {"data": b"1"}), ("a", {"data": b"2"}), ("d/x", {"data": b"x"}), ("d", {"data": b"now a file"}),
        ("f", {"data": b"f"}), ("f/", {"mode": 0o700}), ("f/y", {"data": b"y"}),
    )  # fmt: skip
    assert add(store, tmp_path, data, to="/") == {
        "a": "file 644 0:0 2", "d": "file 644 0:0 now a file", "f": "dir 700 0:0", "f/y": "file 644 0:0 y",
    }  # fmt: skip


def test_owners_and_modes(tmp_path: Path, store: Store) -> None:
    data = archive(
        ("f", {"data": b"x", "owner": (3, 4), "mode": 0o4755}),
        ("h", {"type": LINK, "link": "f", "owner": (8, 9), "mode": 0o600}),
    )
    assert add(store, tmp_path, data, to="/") == {"f": "file 600 8:9 x", "h": "hard => f"}  # the link's header counts
    assert add(store, tmp_path / "b", data, to="/", chown="1:2", chmod=0o777) == {
        "f": "file 600 1:2 x",
        "h": "hard => f",
    }


def test_user_attributes_are_dropped_and_capabilities_kept(tmp_path: Path, store: Store) -> None:
    pax = {"SCHILY.xattr.user.note": "n", "SCHILY.xattr.security.capability": "cap"}
    found = add(store, tmp_path, archive(("f", {"data": b"x", "pax": pax})), to="/")
    assert found == {"f": "file 644 0:0 x SCHILY.xattr.security.capability=cap"}


def test_into_what_a_parent_has(tmp_path: Path, store: Store) -> None:
    parent = (
        base_layer(store, write(tmp_path / "p", {"dir/old": "o", "file": "f", "todir": "-> dir", "other/x": "x"})),
    )
    data = archive(("todir/new", {"data": b"n"}), ("other", {"data": b"in the place of a directory"}))
    assert add(store, tmp_path, data, parent, to="/") == {
        "dir": D, "dir/new": "file 644 0:0 n", "other": "file 644 0:0 in the place of a directory",
    }  # fmt: skip
    below = archive(("file/x", {"data": b"x"}))
    assert add(store, tmp_path / "b", below, parent, to="/") == "cannot extract 'file/x': /file is not a directory"
    linked = archive(("new", {"type": LINK, "link": "file"}))
    assert "which an earlier layer holds" in add(store, tmp_path / "c", linked, parent, to="/")


HOSTILE: dict[str, tuple[list[tuple[str, dict[str, Any]]], Any]] = {
    "climbing": ([("../../evil", {"data": b"x"})], {"out": D, "out/evil": "file 644 0:0 x"}),
    "absolute": ([("/evil", {"data": b"x"})], {"out": D, "out/evil": "file 644 0:0 x"}),
    "through a link": (
        [("up", {"type": SYM, "link": "../../etc"}), ("up/evil", {"data": b"x"})],
        "cannot extract 'up/evil': /up is not a directory",
    ),
    "through an absolute link": (
        [("up", {"type": SYM, "link": "/etc"}), ("up/evil", {"data": b"x"})],
        "cannot extract 'up/evil': /up is not a directory",
    ),
    "through a link that ends inside": (
        [("d", {}), ("l", {"type": SYM, "link": "/../d"}), ("l/x", {"data": b"x"})],
        {"out": D, "out/d": D, "out/d/x": "file 644 0:0 x", "out/l": "link 0:0 -> /../d"},
    ),
    "a loop": (
        [("a", {"type": SYM, "link": "b"}), ("b", {"type": SYM, "link": "a"}), ("a/x", {"data": b"x"})],
        "too many levels of symbolic links",
    ),
    "a hard link to nothing": ([("h", {"type": LINK, "link": "none"})], "cannot extract 'h': its hard link's target"),
    "a hard link to a directory": ([("d", {}), ("h", {"type": LINK, "link": "d"})], "cannot extract 'h'"),
    "a hard link to itself": (
        [("f", {"data": b"x"}), ("f", {"type": LINK, "link": "f", "mode": 0o600})],
        {"out": D, "out/f": "file 600 0:0 x"},
    ),
    "a hard link in the place of its target's directory": (
        [("d/f", {"data": b"x"}), ("d", {"type": LINK, "link": "d/f"})],
        "/out/d cannot be a hard link to /out/d/f",
    ),
    "a hard link whose target is replaced": (
        [
            ("f", {"data": b"x"}),
            ("h", {"type": LINK, "link": "f"}),
            ("i", {"type": LINK, "link": "h"}),
            ("f", {"data": b"y"}),
        ],
        {"out": D, "out/f": "file 644 0:0 y", "out/h": "file 644 0:0 x", "out/i": "hard => out/h"},
    ),
    "the root": ([("./", {"mode": 0o700}), ("f", {"data": b"x"})], {"out": D, "out/f": "file 644 0:0 x"}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_and_odd_archives(tmp_path: Path, store: Store, name: str) -> None:
    members, expected = HOSTILE[name]
    found = add(store, tmp_path, archive(*members))
    if isinstance(expected, str):
        assert str(found).startswith(expected)
    else:
        assert found == expected
    assert not any(path.name == "evil" for path in tmp_path.rglob("*"))


def test_an_unpacked_archive_is_cached(tmp_path: Path, store: Store) -> None:
    context = write(tmp_path / "context", {"archive.tar": archive(("f", {"data": b"x"}))})
    made, _ = environment(store, context)
    unpacked = node(CopyFiles(tree=FromContext(""), path="/archive.tar", unpack=True))
    first = run_copy(made, unpacked)
    assert not first.cached
    assert run_copy(made, unpacked).cached
    assert not run_copy(made, node("archive.tar")).cached
