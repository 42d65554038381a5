"""What is done beside the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.errors import StoreError
from builder.store.janitor import Janitor
from builder.store.store import remove_tree


def test_what_is_discarded_goes(tmp_path: Path) -> None:
    janitor = Janitor(remove_tree)
    for number in range(3):
        (tmp_path / f"{number}/d").mkdir(parents=True)
        janitor.discard(str(tmp_path / str(number)))
    janitor.finish()
    assert os.listdir(tmp_path) == []
    janitor.finish()


def test_what_cannot_be_removed_stops_nothing(tmp_path: Path) -> None:
    def remove(path: str) -> None:
        if path == "a":
            raise PermissionError
        remove_tree(path)

    janitor = Janitor(remove)
    (tmp_path / "b").mkdir()
    janitor.discard("a")
    janitor.discard(str(tmp_path / "b"))
    janitor.finish()
    assert os.listdir(tmp_path) == []


def test_the_next_ones_are_made_ahead(tmp_path: Path) -> None:
    made: list[str] = []

    def make() -> str:
        made.append(str(tmp_path / str(len(made))))
        os.mkdir(made[-1])
        return made[-1]

    janitor = Janitor(remove_tree)
    spares = janitor.spares(make)
    janitor.catch_up()
    assert made == []  # nobody has wanted one
    assert [spares.take(), spares.take()] == made[:2]
    janitor.catch_up()
    janitor.catch_up()
    assert len(made) == 4  # as many as were taken
    assert spares.take() == made[2]
    assert len(made) == 4
    janitor.finish()  # removes the one that nobody took
    assert sorted(os.listdir(tmp_path)) == ["0", "1", "2"]


def test_what_is_discarded_goes_when_there_is_time(tmp_path: Path) -> None:
    janitor = Janitor(remove_tree)
    (tmp_path / "a").mkdir()
    janitor.discard(str(tmp_path / "a"))
    assert os.listdir(tmp_path) == ["a"]
    janitor.catch_up()
    assert os.listdir(tmp_path) == []


def test_what_is_given_back_is_renewed_and_given_again(tmp_path: Path) -> None:
    made: list[str] = []
    renewed: list[str] = []

    def make() -> str:
        made.append(str(tmp_path / str(len(made))))
        return made[-1]

    spares = Janitor(remove_tree).spares(make, renewed.append)
    first = spares.take()
    spares.give_back(first)
    spares.refill()
    assert renewed == [first]
    assert spares.take() == first
    assert spares.take() not in (first, None)
    assert len(made) == 2


def test_what_cannot_be_renewed_is_removed_at_last(tmp_path: Path) -> None:
    def refuse(path: str) -> None:
        raise PermissionError

    def make() -> str:
        (tmp_path / "a").mkdir()
        return str(tmp_path / "a")

    janitor = Janitor(remove_tree)
    spares = janitor.spares(make, refuse)
    spares.give_back(spares.take())
    janitor.catch_up()
    janitor.finish()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [OSError, StoreError])
def test_what_could_not_be_made_ahead_is_made_when_it_is_needed(tmp_path: Path, error: type[Exception]) -> None:
    failing = [False, True, False]

    def make() -> str:
        if failing.pop(0):
            raise error("no room")
        return str(tmp_path)

    janitor = Janitor(lambda _: None)
    spares = janitor.spares(make)
    spares.take()
    janitor.catch_up()
    assert spares.take() == str(tmp_path)
    assert failing == []
