"""The file system that a step builds up over its parent, and the facts that it asks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import StepFailed
from builder.filesystem import kinds
from builder.filesystem.tree import FileInfo
from builder.solver.inline import MemoryTree
from builder.solver.staging import Fact, Staged, Staging

DIRECTORY = FileInfo(kinds.DIRECTORY, 0o755)
FILE = FileInfo(kinds.FILE, 0o644, size=1)


class Parent:
    """A parent that remembers what it was asked."""

    def __init__(self, **known: FileInfo) -> None:
        self.known = {name.replace("__", "/"): info for name, info in known.items()}
        self.asked: list[str] = []

    def lstat(self, path: str) -> FileInfo | None:
        self.asked.append(path)
        return DIRECTORY if not path else self.known.get(path)

    def scan(self, path: str) -> list[tuple[str, FileInfo]]:
        raise AssertionError("a parent is not listed")

    def open(self, path: str) -> int:
        raise AssertionError("a parent is not read")

    def xattrs(self, path: str) -> dict[str, bytes]:
        raise AssertionError("a parent's attributes are no fact")


def paths(staging: Staging) -> list[str]:
    return [entry.path for entry in staging.entries()]


def test_a_parent_is_asked_once_and_only_where_it_can_be_seen() -> None:
    parent = Parent(d=DIRECTORY, d__f=FILE)
    staging = Staging(parent)
    assert staging.lstat("d/f") == FILE
    assert staging.lstat("d/f") == FILE
    staging.put(Staged("new", DIRECTORY))
    assert staging.lstat("new/x") is None  # a new directory hides what a parent could have there
    staging.put(Staged("d", FILE, b"x"))
    assert staging.lstat("d/g") is None
    assert parent.asked == ["d/f", "new", "d"]
    assert staging.facts() == (Fact("d", 1, 0o755), Fact("d/f", 0, 0o644), Fact("new"))


def test_facts_have_owners_modes_and_links_but_no_times() -> None:
    link = FileInfo(kinds.SYMLINK, 0o777, 1, 2, 0, 99, "target")
    staging = Staging(Parent(l=link))
    staging.lstat("l")
    assert staging.facts() == (Fact("l", 2, 0o777, 1, 2, "target"),)


def test_directories_of_the_parent_above_new_entries_are_stated() -> None:
    staging = Staging(Parent(a=DIRECTORY, a__b=DIRECTORY))
    staging.put(Staged("a/b/f", FILE, b"x"))
    assert paths(staging) == ["a", "a/b", "a/b/f"]
    assert [fact.path for fact in staging.facts()] == ["a", "a/b", "a/b/f"]


def test_entries_come_after_their_directories() -> None:
    staging = Staging(Parent())
    for path in ("a-b", "a/c", "a", "b/x", "b", "a/b"):
        staging.put(Staged(path, DIRECTORY if path in ("a", "b") else FILE, b"x"))
    assert paths(staging) == ["a", "a/b", "a/c", "a-b", "b", "b/x"]


NAMES = st.lists(st.sampled_from(["a", "b", "a.b", "a-", "a\x7f", "é", "\udcfe", "\uff00"]), min_size=1, max_size=4)


@given(st.lists(NAMES.map("/".join), unique=True, max_size=12), st.booleans())
def test_entries_come_in_the_order_of_their_components(names: list[str], walked: bool) -> None:
    """Whether they were put in that order or in another."""
    wanted = sorted(names, key=lambda path: path.split("/"))
    staging = Staging(Parent())
    for path in wanted if walked else names:
        staging.put_new(Staged(path, DIRECTORY))
    assert paths(staging) == wanted


class Below:
    """A run: files and directories below a directory."""

    def __init__(self, directory: str, names: list[str]) -> None:
        self.directory = directory
        self.staged = [Staged(f"{directory}/{name}", DIRECTORY if name == "a" else FILE, b"x") for name in names]

    def entries(self) -> Iterator[Staged]:
        yield from self.staged

    def stated(self) -> Iterator[tuple[str, FileInfo]]:
        for staged in self.staged:
            yield staged.path, staged.info


def put_below(staging: Staging, below: Below, *, whole: bool) -> None:
    """Put a directory with what is below it."""
    if staging.lstat(below.directory) is None:
        staging.put(Staged(below.directory, DIRECTORY))
        if whole:
            staging.put_run(below)
            return
        for staged in below.staged:
            staging.put_new(staged)


PLACES = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
CHANGES: st.SearchStrategy[tuple[str, str, list[str]]] = st.one_of(
    st.tuples(st.just("run"), PLACES, st.sampled_from([["a", "a/b", "b"], ["b", "c"], ["a"], ["b"]])),
    st.tuples(st.sampled_from(["file", "directory", "look"]), PLACES, st.just([])),
    st.tuples(st.just("link"), PLACES, PLACES.map(lambda path: [path])),
)


def change(staging: Staging, kind: str, path: str, more: list[str], *, whole: bool) -> object:
    """Make one change as a COPY may make it; what is seen of it."""
    above = path.rpartition("/")[0]
    while above:
        info = staging.lstat(above)
        if info is None or info.kind != kinds.DIRECTORY:
            return None  # nothing is put below what is no directory
        above = above.rpartition("/")[0]
    if kind == "run":
        put_below(staging, Below(path, more), whole=whole)
    elif kind == "link":
        if staging.staged(more[0]) not in (None, staging.staged(path)) and staging.lstat(more[0]) == FILE:
            try:
                staging.put(Staged(path, FILE, hardlink=more[0]))
            except StepFailed as error:
                return str(error)
    elif kind != "look":
        staging.put(Staged(path, FILE if kind == "file" else DIRECTORY, b"y" if kind == "file" else None))
    return staging.lstat(path)


@given(st.lists(CHANGES, max_size=8), st.booleans())
def test_a_run_is_the_same_as_its_entries(changes: list[tuple[str, str, list[str]]], known: bool) -> None:
    """Whatever comes between it, into its place or into that of a directory above."""
    parents = [Parent(**({"a": DIRECTORY, "a__c": FILE} if known else {})) for _ in range(2)]
    one, other = Staging(parents[0]), Staging(parents[1])
    for kind, path, more in changes:
        assert change(one, kind, path, more, whole=True) == change(other, kind, path, more, whole=False)
    assert list(one.entries()) == list(other.entries())
    assert sorted(one.stated()) == sorted(other.stated())
    assert one.facts() == other.facts()
    assert parents[0].asked == parents[1].asked


def test_a_run_keeps_no_entries() -> None:
    staging = Staging(Parent())
    put_below(staging, Below("d", ["a", "b"]), whole=True)
    staging.put(Staged("e", FILE, b"x"))
    assert paths(staging) == ["d", "d/a", "d/b", "e"]
    assert len(staging._entries) == 2
    staging.clear()
    assert paths(staging) == []


def test_hard_links_go_to_the_name_that_comes_first() -> None:
    staging = Staging(Parent())
    staging.put(Staged("z", FILE, b"x"))
    staging.put(Staged("a", FILE, hardlink="z"))
    staging.put(Staged("m", FILE, hardlink="z"))
    assert [(e.path, e.hardlink, e.content) for e in staging.entries()] == [
        ("a", None, b"x"), ("m", "a", None), ("z", "a", None),
    ]  # fmt: skip


def test_a_replaced_file_leaves_its_content_to_its_hard_links() -> None:
    staging = Staging(Parent())
    staging.put(Staged("a", FILE, b"x"))
    staging.put(Staged("b", FILE, hardlink="a"))
    staging.put(Staged("c", FILE, hardlink="a"))
    staging.put(Staged("a", FILE, b"y"))
    staging.put(Staged("b", FILE, b"z"))
    assert [(e.path, e.hardlink, e.content) for e in staging.entries()] == [
        ("a", None, b"y"), ("b", None, b"z"), ("c", None, b"x"),
    ]  # fmt: skip


def test_what_stood_below_a_directory_goes_with_it() -> None:
    staging = Staging(Parent())
    staging.put(Staged("d", DIRECTORY))
    staging.put(Staged("d/f", FILE, b"x"))
    staging.put(Staged("h", FILE, hardlink="d/f"))
    staging.put(Staged("d", FILE, b"y"))
    assert [(e.path, e.hardlink, e.content) for e in staging.entries()] == [("d", None, b"y"), ("h", None, b"x")]


def test_a_hard_link_cannot_replace_its_target() -> None:
    staging = Staging(Parent())
    staging.put(Staged("d", DIRECTORY))
    staging.put(Staged("d/f", FILE, b"x"))
    with pytest.raises(StepFailed, match="cannot be a hard link to /d/f"):
        staging.put(Staged("d", FILE, hardlink="d/f"))


def test_a_tree_in_memory() -> None:
    tree = MemoryTree({"b": (FILE, b"x"), "a": (FILE, b"y")})
    assert [name for name, _ in tree.scan("")] == ["a", "b"]
    assert tree.lstat("c") is None
    assert tree.lstat("") == DIRECTORY
