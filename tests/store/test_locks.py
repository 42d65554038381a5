"""The users of a store, what killed ones leave, and a database that many make at once."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from builder.store.database import Database
from builder.store.locks import take_share
from builder.store.store import Store


def test_only_who_is_alone_clears(tmp_path: Path) -> None:
    (tmp_path / "left").mkdir()
    (tmp_path / "left/file").touch()
    first, leftovers = take_share(str(tmp_path))
    assert len(leftovers) == 1
    assert not (tmp_path / "left").exists()
    assert os.listdir(leftovers[0]) == ["file"]
    second, others = take_share(str(tmp_path))
    assert others == []
    os.close(first)
    third, others = take_share(str(tmp_path))
    assert others == []
    os.close(second)
    os.close(third)
    _, others = take_share(str(tmp_path))
    assert others == leftovers  # nobody removed it yet


def test_what_goes_away_meanwhile_is_no_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only notes a result for the next command has no share: its file may get its name at any moment."""
    (tmp_path / "left").touch()
    monkeypatch.setattr(os, "listdir", lambda directory: ["noted", "left"])
    share, leftovers = take_share(str(tmp_path))
    monkeypatch.undo()
    assert [os.path.basename(path) for path in leftovers] == os.listdir(tmp_path)
    _, others = take_share(str(tmp_path))
    assert others == []
    os.close(share)


def _hold(root: str, ready: Event, stop: Event) -> None:
    store = Store(root)
    with store.scratch() as scratch:
        Path(scratch, "file").touch()
        ready.set()
        stop.wait(30)


def test_a_killed_process_is_cleared_after_and_a_living_one_is_not(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), ready, stop))
    process.start()
    try:
        assert ready.wait(30)
        (work,) = (tmp_path / "tmp").glob("work.*")
        Store(str(tmp_path)).close()
        assert (work / "file").exists()
    finally:
        process.kill()
        process.join()
    assert (work / "file").exists()
    Store(str(tmp_path)).close()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_closed_store_is_none_of_the_users(tmp_path: Path) -> None:
    Store(str(tmp_path)).close()
    (tmp_path / "tmp/left").touch()
    with_two = Store(str(tmp_path))
    assert not (tmp_path / "tmp/left").exists()
    (tmp_path / "tmp/left").touch()
    Store(str(tmp_path)).close()
    assert (tmp_path / "tmp/left").exists()
    with_two.close()


def _make(path: str, ready: Event) -> None:
    ready.wait(30)
    database = Database(path)
    database.add_memo("kind", str(os.getpid()), b"value")
    database.close()


def test_a_database_that_many_make_at_once(tmp_path: Path) -> None:
    for turn in range(5):
        _check_many(str(tmp_path / f"{turn}.db"))


def _check_many(path: str) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    processes = [context.Process(target=_make, args=(path, ready)) for _ in range(8)]
    for process in processes:
        process.start()
    ready.set()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 8
    database = Database(path)
    assert all(database.memo("kind", str(process.pid)) == b"value" for process in processes)
    database.close()
