"""Files that are recognised without being read, and those that must not be."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from builder.context.local import LocalTree
from builder.filesystem import moments
from builder.filesystem.moments import Moment
from builder.plan.steps import CopyFiles, FromContext
from builder.solver import assemble, gather
from builder.solver.fingerprints import Fingerprints
from builder.solver.select import Match, select
from builder.store.store import Store
from tests.solver.support import entries, environment, node, run_copy, write

A, B = b"\xaa" * 32, b"\xbb" * 32
"""Digests."""


def fingerprints(store: Store, context: Path) -> Fingerprints:
    return Fingerprints(store.database, str(context), ("/",), Moment())


def matches(context: Path) -> list[Match]:
    return select(LocalTree(str(context)), CopyFiles(tree=FromContext(""), path="/"), ())


@pytest.mark.usefixtures("settled")
def test_an_unchanged_context_is_not_read_again(tmp_path: Path, store: Store, reads: list[str]) -> None:
    context = write(tmp_path / "context", {"a": "1", "d/b": "2", "l": "-> a"})
    made, _ = environment(store, context)
    first = run_copy(made, node("/", to="/n"))
    assert sorted(reads) == ["a", "d/b"]
    reads.clear()
    again = run_copy(made, node("/", to="/n"))
    assert (again.diff_id, again.cached) == (first.diff_id, True)
    assert run_copy(made, node("/", to="/elsewhere")).cached is False  # files are known, but have to be put elsewhere
    reads.clear()
    (context / "a").write_text("3")
    changed = run_copy(made, node("/", to="/n"))
    assert not changed.cached
    assert entries(store, changed.diff_id)["n/a"].endswith(" 3")


@pytest.mark.usefixtures("settled")
def test_one_changed_file_leaves_the_others_recognised(tmp_path: Path, store: Store) -> None:
    context = write(tmp_path / "context", {"a": "1", "d/b": "2"})
    prints = fingerprints(store, context)
    prints.learn(matches(context), {"a": A, "d/b": B})
    prints.keep(matches(context), "all")
    assert prints.unchanged(matches(context)) == "all"
    assert prints.known(matches(context)) == {"a": A, "d/b": B}
    (context / "a").write_text("3")
    assert prints.unchanged(matches(context)) is None
    assert prints.known(matches(context)) == {"d/b": B}


@pytest.mark.usefixtures("settled")
def test_few_files_that_changed_are_kept_for_themselves(tmp_path: Path, store: Store) -> None:
    context = write(tmp_path / "context", {f"f{number:02}": "1" for number in range(40)})
    every = {f"f{number:02}": A for number in range(40)}

    def opened() -> Fingerprints:
        return fingerprints(store, context)

    def learn(*changed: str) -> int:
        """Change files, and learn what they are then; returns how many are kept for themselves."""
        for name in changed:
            (context / name).write_text("changed")
        prints = opened()
        known = prints.known(matches(context))
        assert known.keys() == every.keys() - set(changed)
        every.update(dict.fromkeys(changed, B))
        prints.learn(matches(context), every, set(changed))
        assert opened().known(matches(context)) == every
        later = opened()._kept("files-3-later")
        assert later is not None
        return len(later)

    opened().learn(matches(context), every, set(every))
    assert opened().known(matches(context)) == every
    assert [learn(), learn("f01"), learn("f01", "f02"), learn("f03")] == [0, 1, 2, 3]
    assert learn(*(f"f{number:02}" for number in range(4, 9))) == 0  # no longer few: all are written
    assert learn("f01") == 1
    (context / "f02").unlink()
    del every["f02"]
    assert learn("f05") == 2


def _same_content_later(path: Path) -> None:
    os.utime(path, ns=(path.stat().st_mtime_ns + 1, path.stat().st_mtime_ns + 1))


def _replaced(path: Path) -> None:
    status = path.stat()
    (path.parent / "new").write_text("X")
    os.utime(path.parent / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.rename(path.parent / "new", path)


def _same_size_and_time(path: Path) -> None:
    status = path.stat()
    path.write_text("X")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES = {
    "time": _same_content_later,
    "another file with the same size and time": _replaced,
    "the same file with the same size and time": _same_size_and_time,
    "size": lambda path: path.write_text("longer"),
    "mode": lambda path: path.chmod(0o600),
    "gone": lambda path: path.unlink(),
    "a link": lambda path: (path.unlink(), path.symlink_to("b")),
    "a file more": lambda path: (path.parent / "c").write_text(""),
    "another name": lambda path: path.rename(path.parent / "z"),
}


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_not_taken_for_the_same(tmp_path: Path, store: Store, change: str) -> None:
    context = write(tmp_path / "context", {"a": "1", "b": "2"})
    prints = fingerprints(store, context)
    prints.keep(matches(context), "all")
    prints.learn(matches(context), {"a": A, "b": B})
    assert prints.unchanged(matches(context)) == "all"
    CHANGES[change](context / "a")  # type: ignore[no-untyped-call]
    assert prints.unchanged(matches(context)) is None
    if change != "a file more":
        assert "a" not in prints.known(matches(context))


def test_a_change_within_the_same_second_and_size_is_noticed(tmp_path: Path, store: Store) -> None:
    """Right after it was written a file is read at every build, since its times do not tell."""
    change_often(tmp_path, store)


def test_no_change_is_missed_by_the_clock_of_files(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a margin, too: what is past by the kernel's clock bears another time when it changes."""
    monkeypatch.setattr(moments, "_UNSTAMPED", 0)
    change_often(tmp_path, store)


def change_often(tmp_path: Path, store: Store) -> None:
    """Build with a file that changes between builds and keeps its size and time of modification."""
    context = write(tmp_path / "context", {})
    for turn in range(40):
        (context / "f").write_text(f"{turn:04}")
        os.utime(context / "f", (1, 1))
        time.sleep(turn / 10_000)  # some builds begin in the tick of the clock that the change was in, some later
        made, _ = environment(store, context)
        done = run_copy(made, node("f"))
        assert entries(store, done.diff_id)["f"].endswith(f"{turn:04}")


def test_young_files_are_not_trusted_until_they_are_read_again(
    tmp_path: Path, store: Store, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = write(tmp_path / "context", {"a": "1"})
    written = (context / "a").stat().st_ctime_ns
    monkeypatch.setattr(moments, "now", lambda: written + 1_000_000)

    def cached() -> bool:
        return run_copy(environment(store, context)[0], node("a")).cached

    assert not cached()
    assert cached()
    assert len(reads) == 2
    monkeypatch.setattr(moments, "now", lambda: written + 3_000_000_000)
    assert cached()
    assert len(reads) == 3
    assert cached()
    assert len(reads) == 3


@pytest.mark.usefixtures("settled")
def test_selections_of_one_directory_do_not_disturb_each_other(tmp_path: Path, store: Store, reads: list[str]) -> None:
    context = write(tmp_path / "context", {"a": "1", "b": "2"})
    made, _ = environment(store, context)
    steps = [node("/", to="/x"), node("/", to="/x", excludes=("b",)), node("/", to="/x", excludes=("a",))]
    for step in steps:
        run_copy(made, step)
    reads.clear()
    assert all(run_copy(made, step).cached for step in steps)
    assert reads == []


@pytest.mark.usefixtures("settled")
def test_names_that_are_not_utf8(tmp_path: Path, store: Store) -> None:
    context = write(tmp_path / "context", {})
    with open(os.fsencode(context) + b"/\xff", "w") as file:
        file.write("x")
    made, _ = environment(store, context)
    first = run_copy(made, node("/"))
    assert run_copy(made, node("/")).diff_id == first.diff_id


@pytest.mark.usefixtures("settled")
def test_contexts_below_the_store_leave_nothing(tmp_path: Path, store: Store) -> None:
    """A context that was fetched is unpacked there, under a name that never comes again."""
    with store.scratch() as scratch:
        made, _ = environment(store, write(Path(scratch) / "context", {"a": "1"}))
        assert not run_copy(made, node("a")).cached
        assert run_copy(made, node("a")).cached
    with store.database._cursor() as connection:
        assert connection.execute("SELECT DISTINCT kind FROM memos").fetchall() == [("outline-1",)]


@pytest.mark.usefixtures("settled")
def test_a_damaged_record_is_no_record(tmp_path: Path, store: Store) -> None:
    context = write(tmp_path / "context", {"a": "1"})
    prints = fingerprints(store, context)
    prints.learn(matches(context), {"a": A})
    prints.keep(matches(context), "all")
    store.database.add_memo("files-3-later", prints._key, b"\xc1 nonsense")
    assert prints.known(matches(context)) == {"a": A}
    for kind in ("files-3", "selection-3"):
        store.database.add_memo(kind, prints._key, b"\xc1 nonsense")
    assert prints.known(matches(context)) == {}
    assert prints.unchanged(matches(context)) is None


@pytest.mark.usefixtures("settled")
def test_a_file_that_changes_while_the_layer_is_written(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is what was read: the result is remembered under the content that is in the layer."""
    context = write(tmp_path / "context", {"a": "1"})
    made, _ = environment(store, context)
    original = assemble.write_layer

    def change(*arguments: object, **named: object) -> object:
        (context / "a").write_text("2")
        return original(*arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr("builder.solver.make_copy.write_layer", change)
        first = run_copy(made, node("a"))
    assert entries(store, first.diff_id)["a"].endswith(" 2")
    (context / "a").write_text("1")
    second = run_copy(made, node("a"))
    assert entries(store, second.diff_id)["a"].endswith(" 1")


def test_the_identity_of_a_source_says_what_its_content_does(tmp_path: Path, store: Store) -> None:
    context = write(tmp_path / "context", {"a": "1"})
    tree = LocalTree(str(context))
    source = gather.FilesSource(CopyFiles(tree=FromContext(""), path="/a"), lambda: tree, ())
    assert source.identity() is None
    source.content()
    one = source.identity()
    source.observe("a", bytes(32))
    source.content()
    assert source.identity() != one
