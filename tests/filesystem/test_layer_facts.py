"""What trees over the same layers ask each of them."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pytest

from builder.filesystem.layer_facts import LayerFacts
from builder.filesystem.layered import LayeredTree


@pytest.fixture
def facts() -> defaultdict[str, LayerFacts]:
    return defaultdict(LayerFacts)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were looked for in some layer."""
    found: list[str] = []
    for name in ("_top_info", "_layer_info"):

        def counted(tree: LayeredTree, layer: int, path: str, real: object = getattr(LayeredTree, name)) -> object:
            found.append(path)
            return real(tree, layer, path)  # type: ignore[operator]

        monkeypatch.setattr(LayeredTree, name, counted)
    return found


@pytest.mark.parametrize("above", ["", "a/"])
def test_a_name_that_is_nowhere_is_not_looked_for_in_every_layer(
    tmp_path: Path, facts: defaultdict[str, LayerFacts], looked: list[str], above: str
) -> None:
    layers: list[Path] = []  # top first
    for number in range(12):
        layers.insert(0, tmp_path / str(number))
        (layers[0] / "a").mkdir(parents=True)
        (layers[0] / f"{above}f{number}").write_text(str(number))
        with LayeredTree(layers, facts.__getitem__) as tree:
            looked.clear()
            assert tree.lstat(f"{above}f{number + 1}") is None
            assert len(looked) <= 2  # of the layers that are new
            assert all(tree.find(f"{above}f{known}") is not None for known in range(number + 1))


def test_names_are_read_once_and_then_known(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    opened: list[None] = []
    facts = LayerFacts()

    def open_it() -> int:
        opened.append(None)
        return os.open(tmp_path, os.O_RDONLY)

    assert "g" in facts.names("", open_it)
    assert not opened  # to look is quicker
    assert [name in facts.names("", open_it) for name in ("f", "g", "é")] == [True, False, False]
    assert len(opened) == 1
    assert "g" in facts.names("d", open_it)


def test_many_names_are_not_kept(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / str(number)).touch()
    facts = LayerFacts()
    for _ in range(3):
        assert "x" in facts.names("", lambda: os.open(tmp_path, os.O_RDONLY))


def test_what_cannot_be_read_is_looked_into_name_by_name(tmp_path: Path) -> None:
    facts = LayerFacts()
    for _ in range(3):
        assert "x" in facts.names("", lambda: os.open(tmp_path / "missing", os.O_RDONLY))


def test_more_directories_than_are_kept(tmp_path: Path) -> None:
    facts = LayerFacts()
    for number in range(5000):
        assert facts.place(f"d{number}") is None
        assert facts.keep_place(f"d{number}", "other") == "other"
        assert "x" in facts.names(f"d{number}", lambda: os.open(tmp_path, os.O_RDONLY))
    assert facts.place("d4999") == "other"
    assert facts.place("d1") is None
