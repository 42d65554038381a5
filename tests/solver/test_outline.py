"""Outlines of layers: a COPY over a COPY asks them, and is told what the unpacked layers would tell."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from builder.errors import StepFailed
from builder.filesystem import kinds
from builder.filesystem.tree import FileInfo
from builder.plan.steps import WorkdirNode
from builder.solver.copy import workdir
from builder.solver.environment import Environment
from builder.solver.outline import OutlinedTree, outline_of, seen_tree
from builder.solver.roots import EmptyTree
from builder.solver.staging import Staged, Staging
from builder.solver.trace import Trace
from builder.store.collect import collect
from builder.store.store import Store
from tests.solver.support import HOST, Layers, base_layer, entries, environment, node, run_copy, write


def unpacked(store: Store) -> list[str]:
    return store.snapshots.entries.diff_ids()


def add(made: Environment, layers: Layers, *sources: str, to: str, **fields: Any) -> Layers:
    return (*layers, run_copy(made, node(*sources, to=to, **fields), layers).diff_id)


def told(info: FileInfo | None) -> object:
    """What may reach a layer of what is told of a path; of other things than directories the kind is enough."""
    if info is None or info.kind != kinds.DIRECTORY:
        return info and info.kind
    return info.mode, info.uid, info.gid, info.mtime_ns, info.link


def test_a_copy_over_copies_unpacks_none_of_them(tmp_path: Path, store: Store) -> None:
    made, _ = environment(store, write(tmp_path / "context", {"d/a": "1", "d/b/c": "2", "e/f": "3"}))
    layers = add(made, (), "d", to="/app/d")
    layers = add(made, layers, "e", to="/app/")
    layers = add(made, layers, "e/f", to="/app/d/b/")
    layers = add(made, layers, "e/f", to="/app/d/b/other")
    assert unpacked(store) == []
    assert entries(store, layers[-1]) == {
        "app": "dir 755 0:0", "app/d": "dir 755 0:0", "app/d/b": "dir 755 0:0", "app/d/b/other": "file 644 0:0 3",
    }  # fmt: skip
    (tmp_path / "context/e/f").write_text("4")
    again, _ = environment(Store(store.root), tmp_path / "context")  # another build knows of them, too
    add(again, layers[:3], "e/f", to="/app/d/b/other")
    assert unpacked(store) == []


def test_what_is_in_the_way_is_seen(tmp_path: Path, store: Store) -> None:
    """Files and links are not in an outline: the layers are unpacked."""
    context = write(tmp_path / "context", {"d/a": "1", "l/to": "-> /x/y", "x/y/z": "2"})
    made, _ = environment(store, context)
    layers = add(made, (), "d", to="/d")
    layers = add(made, layers, "l", "x", to="/")
    assert unpacked(store) == []
    with pytest.raises(StepFailed, match="is not a directory"):
        add(made, layers, "x/y/z", to="/d/a/")
    layers = add(made, layers, "x/y/z", to="/to/")
    assert "x/y/z" in entries(store, layers[-1]), "the link leads there"


def test_owners_are_looked_up_where_they_are(tmp_path: Path, store: Store) -> None:
    base = base_layer(store, write(tmp_path / "base", {"etc/passwd": "app:x:5:6:::\n"}))
    with store.database._cursor() as connection:
        connection.execute("DELETE FROM memos")  # it stands for an image's
    made, _ = environment(store, write(tmp_path / "context", {"a": "1", "passwd": "app:x:7:8:::\n"}))
    layers = add(made, (base,), "a", to="/b/")
    layers = add(made, layers, "a", to="/c", chown="app")
    assert entries(store, layers[-1])["c"] == "file 644 5:6 1"
    assert unpacked(store) == [base]
    layers = add(made, layers, "passwd", to="/etc/")
    layers = add(made, layers, "a", to="/d", chown="app")
    assert entries(store, layers[-1])["d"] == "file 644 7:8 1"


def test_working_directories_have_outlines(tmp_path: Path, store: Store) -> None:
    made, _ = environment(store, write(tmp_path / "context", {"a": "1"}))
    step = WorkdirNode(label="WORKDIR", stage="s", platform=HOST, parent=0, path="/srv/www", user="12")
    layers: Layers = (workdir(made, step, (), Trace("0", "lineage")).diff_id,)
    layers = add(made, layers, "a", to="/srv/www/")
    assert entries(store, layers[-1])["srv/www"] == "dir 755 12:12"
    assert unpacked(store) == []


@pytest.mark.parametrize("seed", range(6))
def test_outlines_tell_what_unpacked_layers_do(tmp_path: Path, store: Store, seed: int) -> None:
    chance = random.Random(seed)
    names = ["a", "b", "c", "é"]

    def files() -> Iterator[tuple[str, str | None]]:
        for number in range(chance.randrange(1, 6)):
            path = "/".join(chance.choices(names, k=chance.randrange(1, 4)))
            yield path, chance.choice([str(number), None, "-> /a/b"])

    layers: Layers = ()
    for number in range(8):
        try:
            context = write(tmp_path / str(number), dict(files()))
        except OSError:  # a file where a directory was to be
            continue
        (context / "file").touch()
        os.utime(context, (chance.randrange(1 << 31),) * 2)
        for directory, folders, _ in os.walk(context):
            for folder in folders:
                if not os.path.islink(f"{directory}/{folder}"):
                    os.chmod(f"{directory}/{folder}", chance.choice([0o755, 0o700, 0o2775]))
        made, _ = environment(store, context)
        to = chance.choice(["/", "/a/", "/b/c/", "/a/b", "/new/"])
        try:
            layers = add(made, layers, "/", to=to, chown=chance.choice([None, "3:4"]), link=chance.random() < 0.2)
        except StepFailed:
            continue
    made, _ = environment(store)
    tree = seen_tree(made, layers)
    assert isinstance(tree, OutlinedTree)
    with store.unpacked.tree(layers) as whole:
        for first in ["", *names, "new", "file"]:
            for second in ["", *names]:
                for third in ["", *names]:
                    path = "/".join(part for part in (first, second, third) if part)
                    if path:
                        assert told(tree.lstat(path)) == told(whole.lstat(path)), path
        top, real = tree.lstat(""), whole.lstat("")
        assert top is not None
        assert real is not None
        assert (top.kind, top.mode, top.uid, top.gid) == (real.kind, real.mode, real.uid, real.gid)


def test_an_outline_that_cannot_be_read_is_none(tmp_path: Path, store: Store) -> None:
    made, _ = environment(store, write(tmp_path / "context", {"a": "1"}))
    layers = add(made, (), "a", to="/d/")
    for data in (b"\xc1 nonsense", msgspec.msgpack.encode([[], b"123"])):
        store.database.add_memo("outline-1", layers[0], data)
        again, _ = environment(store)
        assert not isinstance(seen_tree(again, layers), OutlinedTree)


def test_names_that_are_not_utf8_have_none() -> None:
    staging = Staging(EmptyTree())
    staging.put(Staged("\udcff", FileInfo(kinds.DIRECTORY, 0o755)))
    assert outline_of(staging, None) is None


def test_files_that_are_whiteouts_when_unpacked(tmp_path: Path, store: Store) -> None:
    """What is below them is not there: an outline would find the directory, and repeat its mode."""
    context = write(tmp_path / "context", {"d/x/old": "1", "w/.wh.x": "", "f": "2"})
    (context / "d/x").chmod(0o700)
    made, _ = environment(store, context)
    layers = add(made, (), "d", to="/d")
    layers = add(made, layers, "w", to="/d")
    layers = add(made, layers, "f", to="/d/x/")
    assert entries(store, layers[-1])["d/x"] == "dir 755 0:0"


def test_an_outline_goes_with_its_layer(tmp_path: Path, store: Store) -> None:
    made, _ = environment(store, write(tmp_path / "context", {"a": "1"}))
    (layer,) = add(made, (), "a", to="/d/")
    assert store.database.memo("outline-1", layer)
    assert [holding.holds for holding in store.database.holdings()] == [layer] * 2, "the two recipes of the step"
    store.database.forget(store.database.holdings())
    collect(store)
    assert store.database.memo("outline-1", layer) is None
