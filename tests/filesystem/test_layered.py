"""The merged view of layers: what it follows, keeps and asks."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path

import pytest

from builder.filesystem import kinds
from builder.filesystem.layer_facts import LayerFacts, Place
from builder.filesystem.layered import LayeredTree
from builder.filesystem.resolve import resolve
from builder.filesystem.tree import FileInfo
from tests.support.together import together


def test_a_layered_tree_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "layer/d").mkdir(parents=True)
    (tmp_path / "layer/d/f").write_text("x")
    (tmp_path / "layer/link").symlink_to("d")
    (tmp_path / "layer/out").symlink_to(tmp_path)
    with LayeredTree([tmp_path / "layer"]) as tree:
        for path in ("link/f", "out/layer", "d/f/x", "missing/x"):
            assert tree.lstat(path) is None
            with pytest.raises(FileNotFoundError):
                tree.open(path)
        for path in ("..", "../layer", "d/../../layer"):
            with pytest.raises(OSError, match="cross-device"):
                tree.open(path)
        for path in ("link", "d/f"):
            with pytest.raises(NotADirectoryError):
                tree.scan(path)
        with pytest.raises(FileNotFoundError):
            tree.scan("missing")
        with pytest.raises(OSError, match="not a regular file"):
            tree.open("link")
        with pytest.raises(IsADirectoryError):
            tree.open("d")


def test_a_stack_of_nothing_is_an_empty_root() -> None:
    with LayeredTree([]) as tree:
        assert tree.lstat("") == FileInfo(kinds.DIRECTORY, 0o755)
        assert tree.scan("") == []
        assert tree.lstat("a") is None
        assert tree.xattrs("") == {}


def test_more_directories_than_are_cached(tmp_path: Path) -> None:
    deep = "/".join(f"d{number}" for number in range(400))
    (tmp_path / "layer" / deep).mkdir(parents=True)
    for number in range(5000):
        (tmp_path / "layer" / str(number)).mkdir()
    with LayeredTree([tmp_path / "layer"]) as tree:
        for number in range(5000):
            assert tree.scan(str(number)) == []
        assert tree.lstat(deep) is not None
        assert len(tree.scan("")) == 5001


def test_a_layer_is_asked_once_for_its_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step of a build looks at one layer more than the step before."""
    asked: list[str] = []
    look = LayeredTree._place

    def counted(tree: LayeredTree, layer: int, path: str) -> Place:
        asked.append(path)
        return look(tree, layer, path)

    monkeypatch.setattr(LayeredTree, "_place", counted)
    facts: defaultdict[str, LayerFacts] = defaultdict(LayerFacts)
    layers: list[Path] = []  # top first
    for number in range(20):
        layers.insert(0, tmp_path / str(number))
        (layers[0] / "a/b").mkdir(parents=True)
        (layers[0] / f"a/b/{number}").touch()
        asked.clear()
        with LayeredTree(layers, facts.__getitem__) as tree:
            assert len(tree.scan("a/b")) == number + 1
            assert not tree.opaque("a/c")
        assert sorted(asked) == ["", "a", "a/b", "a/c"]


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    """Nothing is there, as with any name that is not taken; what is there under a path too long for one call is."""
    long = "é" * 128  # 256 bytes
    (tmp_path / "layer/d").mkdir(parents=True)
    (tmp_path / "layer/link").symlink_to(long)
    (tmp_path / "layer/d/link").symlink_to(f"{long}/x")
    with LayeredTree([tmp_path / "layer"]) as tree:
        for path in (long, f"{long}/x", f"d/{long}", f"d/{long}/x", f"missing/{long}", f"{long}/{long}"):
            assert tree.lstat(path) is None
            assert not tree.opaque(path)
            assert tree.xattrs(path) == {}
            with pytest.raises(FileNotFoundError):
                tree.open(path)
            with pytest.raises(FileNotFoundError):
                tree.scan(path)
        assert resolve(tree, "link/y") == f"{long}/y"
        assert resolve(tree, "d/link") == f"d/{long}/x"
        descriptor = os.open(tmp_path / "layer/d", os.O_RDONLY)
        for _ in range(20):
            os.mkdir("d" * 250, dir_fd=descriptor)
            below = os.open("d" * 250, os.O_RDONLY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        os.close(descriptor)
        deep = "/".join(["d", *["d" * 250] * 20])
        with pytest.raises(OSError, match="too long"):  # it is there: None would be a lie
            tree.lstat(deep)


def test_many_threads_use_a_tree_that_starts_its_caches_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.filesystem.layered._CACHED", 4)
    for number in range(100):
        (tmp_path / f"layer/{number}/a/b").mkdir(parents=True)

    def look(tree: LayeredTree, first: int) -> None:
        for number in range(2000):
            path = f"{(first + number) % 100}/a/b"
            assert tree.lstat(path) is not None
            assert tree.scan(path) == []

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with LayeredTree([tmp_path / "layer"]) as tree:
            together(*(partial(look, tree, number * 25) for number in range(4)))
    finally:
        sys.setswitchinterval(interval)
