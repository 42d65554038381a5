"""Layers applied from their streams, compared with tarfile and a dictionary; and cases that have names."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import LayerError
from builder.filesystem import kinds
from builder.filesystem.compare import compare
from builder.filesystem.contents import Applied, Contents, Entry, difference, read_files
from tests.support.archives import TIME, archive
from tests.support.builds import Entry as Flat
from tests.support.builds import flatten

Spec = dict[str, Any]
KINDS = {
    tarfile.REGTYPE: kinds.FILE,
    tarfile.DIRTYPE: kinds.DIRECTORY,
    tarfile.SYMTYPE: kinds.SYMLINK,
    tarfile.FIFOTYPE: kinds.FIFO,
}
DIRECTORY: Spec = {}
LINK: Spec = {"type": tarfile.SYMTYPE, "link": "nowhere"}


def file(data: bytes, **extra: Any) -> Spec:
    return {"data": data, **extra}


def hardlink(target: str) -> Spec:
    return {"type": tarfile.LNKTYPE, "link": target}


def symlink(target: str) -> Spec:
    return {"type": tarfile.SYMTYPE, "link": target}


def stack(*layers: bytes) -> tuple[Contents, list[Applied]]:
    contents = Contents()
    return contents, [contents.apply(io.BytesIO(layer), digests=True) for layer in layers]


def paths(contents: Contents) -> list[str]:
    return [path for path, _ in contents.walk()]


def text(contents: Contents, layers: list[bytes], path: str) -> bytes:
    """A file's content, read from the layer that has it."""
    entry = contents.entry(path)
    assert entry is not None
    assert entry.stored is not None
    ((_, content),) = (
        (stored, found.read()) for stored, found in read_files(io.BytesIO(layers[entry.stored.layer]), [entry.stored])
    )
    return content


# --- against an independent opinion

NAMES = st.sampled_from("abc")
SPECS = st.one_of(
    st.just(DIRECTORY),
    st.sampled_from([b"", b"one", b"two"]).map(file),
    st.just(LINK),
    st.builds(file, st.just(b"one"), mode=st.just(0o600), owner=st.just((5, 6))),
)


@st.composite
def layers(draw: st.DrawFn) -> list[tuple[str, Spec]]:
    """A layer as writers make them: each entry's directories before it, whiteouts anywhere."""
    entries: dict[str, Spec] = {}
    chosen: list[list[str]] = draw(st.lists(st.lists(NAMES, min_size=1, max_size=3), max_size=5))
    for parts in chosen:
        for end in range(1, len(parts)):
            above = "/".join(parts[:end])
            if entries.setdefault(above, DIRECTORY) is not DIRECTORY:
                break
        else:
            path = "/".join(parts)
            if path not in entries or not any(other.startswith(f"{path}/") for other in entries):
                entries[path] = draw(SPECS)
    files = [path for path, spec in entries.items() if spec.get("data") is not None]
    listed = sorted(entries.items())
    directories = ["", *(f"{path}/" for path, spec in listed if spec is DIRECTORY)]
    names = st.tuples(st.sampled_from(directories), st.sampled_from([".wh.a", ".wh.b", ".wh..wh..opq"]))
    # `flatten` knows no opaque root, which has a case of its own
    whiteouts = draw(st.lists(names.filter(lambda name: name != ("", ".wh..wh..opq")), max_size=3))
    for directory, name in whiteouts:
        position = draw(st.integers(0, len(listed)))
        listed.insert(position, (directory + name, file(b"")))
    if draw(st.booleans()) and files:
        listed.append((f"{files[0]}-link", hardlink(files[0])))
    return listed


def check(contents: Contents, flat: dict[str, Flat], layer_bytes: list[bytes]) -> None:
    found = dict(contents.walk())
    implied = {path for path in found if path not in flat}
    assert flat.keys() <= found.keys()
    for path in implied:  # nothing but the directories that entries lie in
        assert found[path].info.kind == kinds.DIRECTORY
        assert any(other.startswith(f"{path}/") for other in flat)
    for path, expected in flat.items():
        info = found[path].info
        assert info.kind is KINDS[expected.type], path
        assert (info.mode, info.uid, info.gid) == (expected.mode, expected.uid, expected.gid), path
        assert (info.link or None) == expected.link
        if expected.content is not None:
            assert text(contents, layer_bytes, path) == expected.content


@given(st.lists(layers(), min_size=1, max_size=4))
def test_layers_are_applied_as_the_specification_says(drawn: list[list[tuple[str, Spec]]]) -> None:
    contents = Contents()
    stacked = [archive(*entries) for entries in drawn]
    for count, layer in enumerate(stacked, 1):
        before = contents.copy()
        applied = contents.apply(io.BytesIO(layer), digests=True)
        check(contents, flatten(stacked[:count]), stacked)
        # what the layer touched is what differs, with what was there
        changes = {change.path: change for change in compare(before, contents)}
        assert changes.keys() <= applied.before.keys()
        for path, old in applied.before.items():
            assert old == before.entry(path)
            new = contents.entry(path)
            if old is None:
                assert (path in changes) == (new is not None)
            elif new is None:
                assert changes[path].after is None
            else:
                assert (path in changes) == bool(difference(old, new))


@given(st.lists(layers(), min_size=1, max_size=3), layers())
def test_removed_is_what_only_the_layers_below_have(
    drawn: list[list[tuple[str, Spec]]], last: list[tuple[str, Spec]]
) -> None:
    below, top = [archive(*entries) for entries in drawn], archive(*last)
    contents, _ = stack(*below)
    applied = contents.apply(io.BytesIO(top))
    removed = {path for path, old in applied.before.items() if old is not None and contents.entry(path) is None}
    old, new = flatten(below), flatten([*below, top])
    # a directory that only whiteouts leave with something in it stays, implied
    assert removed & old.keys() == {path for path in old if path not in new and contents.entry(path) is None}
    assert not removed & new.keys()


# --- cases

BASE = archive(("etc/", DIRECTORY), ("etc/a", file(b"a")), ("etc/d/", DIRECTORY), ("etc/d/x", file(b"x")))


@pytest.mark.parametrize(
    ("top", "left"),
    [
        pytest.param([("etc/.wh.a", file(b""))], ["etc", "etc/d", "etc/d/x"], id="file"),
        pytest.param([("etc/.wh.d", file(b""))], ["etc", "etc/a"], id="directory"),
        pytest.param([("etc/.wh.nothing", file(b""))], ["etc", "etc/a", "etc/d", "etc/d/x"], id="nothing"),
        pytest.param([("etc/.wh..wh..opq", file(b""))], ["etc"], id="opaque"),
        pytest.param([(".wh..wh..opq", file(b"")), ("n", file(b""))], ["n"], id="opaque-root"),
        pytest.param([("etc/n", file(b"")), ("etc/.wh..wh..opq", file(b""))], ["etc", "etc/n"], id="opaque-after"),
        pytest.param(
            [("etc/d/n", file(b"")), ("etc/.wh..wh..opq", file(b""))],
            ["etc", "etc/d", "etc/d/n"],
            id="opaque-keeps-own",
        ),
        pytest.param(
            [("etc/d/n", file(b"")), ("etc/.wh.d", file(b""))], ["etc", "etc/a", "etc/d", "etc/d/n"], id="own"
        ),
        pytest.param([("etc/.wh..wh.plnk", file(b""))], ["etc", "etc/a", "etc/d", "etc/d/x"], id="aufs"),
        pytest.param([("etc", file(b""))], ["etc"], id="file-over-directory"),
        pytest.param([("etc/a", symlink("d"))], ["etc", "etc/a", "etc/d", "etc/d/x"], id="link-over-file"),
        pytest.param([("etc/a/b", file(b"")), ("etc/.wh.a", file(b""))], None, id="below-a-file"),
        pytest.param([("etc/.wh...", file(b""))], None, id="whiteout-of-dots"),
        pytest.param([("etc/l", hardlink("etc/none"))], None, id="hard-link-to-nothing"),
        pytest.param([("", file(b""))], None, id="root-is-a-file"),
    ],
)
def test_whiteouts_and_replacements(top: list[tuple[str, Spec]], left: list[str] | None) -> None:
    if left is None:
        with pytest.raises(LayerError):
            stack(BASE, archive(*top))
        return
    contents, _ = stack(BASE, archive(*top))
    assert paths(contents) == left


def test_many_whiteouts_of_one_directory_cost_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cleared: list[str] = []
    original = Contents._clear

    def clear(self: Contents, top: str, keep: int) -> None:
        cleared.append(top)
        original(self, top, keep)

    monkeypatch.setattr(Contents, "_clear", clear)
    markers = [("d/.wh..wh..opq", file(b"")), ("d/new", file(b""))] * 50
    contents, _ = stack(archive(("d/old", file(b""))), archive(*markers))
    assert paths(contents) == ["d", "d/new"]
    assert cleared == ["d"]


def test_entries_below_a_link_go_where_it_leads() -> None:
    layers = [
        archive(("usr/", DIRECTORY), ("usr/lib/", DIRECTORY), ("usr/lib/old", file(b"")), ("lib", symlink("usr/lib"))),
        archive(("lib/new", file(b"new")), ("lib/.wh.old", file(b""))),
    ]
    contents, _ = stack(*layers)
    assert paths(contents) == ["lib", "usr", "usr/lib", "usr/lib/new"]
    assert text(contents, layers, "usr/lib/new") == b"new"


def test_a_link_out_of_the_root_stays_inside() -> None:
    contents, _ = stack(archive(("l", symlink("../../x"))), archive(("l/f", file(b""))))
    assert paths(contents) == ["l", "x", "x/f"]


def test_hard_links_share_their_content_over_layers() -> None:
    layers = [archive(("a", file(b"data", mode=0o640))), archive(("b", hardlink("/a")), (".wh.a", file(b"")))]
    contents, applied = stack(*layers)
    assert paths(contents) == ["b"]
    assert text(contents, layers, "b") == b"data"
    entry = contents.entry("b")
    assert entry is not None
    assert (entry.layer, entry.info.mode) == (1, 0o640)
    assert applied[1].stored == []


def test_a_copy_is_independent() -> None:
    contents, _ = stack(BASE)
    other = contents.copy()
    other.apply(io.BytesIO(archive(("etc", file(b"")))))
    assert paths(contents) == ["etc", "etc/a", "etc/d", "etc/d/x"]
    assert paths(other) == ["etc"]


def test_names_that_are_not_utf8_are_kept_and_sorted_by_bytes() -> None:
    contents, _ = stack(archive(("é", file(b"")), ("\udcff", file(b"")), ("z", file(b""))))
    assert paths(contents) == ["z", "é", "\udcff"]


def test_the_stream_is_read_to_its_end_and_hashed() -> None:
    import hashlib

    data = BASE + bytes(3000)
    _, (applied,) = stack(data)
    assert (applied.size, applied.diff_id) == (len(data), f"sha256:{hashlib.sha256(data).hexdigest()}")
    with pytest.raises(LayerError):
        stack(BASE[:600])


def test_reading_stops_behind_the_last_file() -> None:
    large = archive(("a", file(b"1")), ("b", file(b"2")), ("z", file(bytes(5_000_000))))
    contents, _ = stack(large)
    stream = io.BytesIO(large)
    wanted = [entry.stored for entry in map(contents.entry, ("b", "a")) if entry is not None and entry.stored]
    assert [content.read() for _, content in read_files(stream, wanted)] == [b"1", b"2"]
    assert stream.tell() <= 1 << 20


def entry_of(name: str, **spec: Any) -> Entry:
    contents, _ = stack(archive((name, spec)))
    found = contents.entry(name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"data": b"a"}, {"data": b"a", "mtime": TIME + 1}, []),
        ({"data": b"a"}, {"data": b"b"}, ["content"]),
        ({"data": b"a"}, {"data": b"a", "mode": 0o4755, "owner": (1, 0)}, ["mode", "owner"]),
        ({"data": b"a"}, {}, ["type"]),
        ({"data": b"a"}, {"data": b"a", "pax": {"SCHILY.xattr.security.capability": "x"}}, ["xattrs"]),
        (symlink("a"), symlink("b"), ["link"]),
        (symlink("a"), {**symlink("a"), "mode": 0o600}, []),
        ({"type": tarfile.CHRTYPE, "device": (1, 3)}, {"type": tarfile.CHRTYPE, "device": (1, 5)}, ["device"]),
        ({}, {"mtime": 0}, []),
        ({}, {"mode": 0o700}, ["mode"]),
    ],
)
def test_differences(old: Spec, new: Spec, expected: list[str]) -> None:
    assert list(difference(entry_of("f", **old), entry_of("f", **new))) == expected
