"""What is done beside the work."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from builder.store.janitor import Janitor
from builder.store.store import Store, remove_tree


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


def test_the_next_one_is_made_beside_the_work(tmp_path: Path) -> None:
    makers: list[int] = []
    made = threading.Semaphore(0)

    def make() -> str:
        makers.append(threading.get_ident())
        path = tmp_path / str(len(makers))
        path.mkdir()
        made.release()
        return str(path)

    janitor = Janitor(remove_tree)
    spares = janitor.spares(make)
    first = spares.take()
    assert made.acquire(timeout=10)
    assert made.acquire(timeout=10)
    janitor.finish()  # removes the one that nobody took
    assert makers[0] == threading.get_ident() != makers[1]
    assert os.listdir(tmp_path) == [os.path.basename(first)] == ["1"]


def test_each_is_given_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    taken: list[str] = []

    def work() -> None:
        for _ in range(20):
            with store.step_scratch() as path:
                assert sorted(os.listdir(path)) == ["upper", "work"]
                taken.append(path)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert len(taken) == len(set(taken)) == 80
    assert os.listdir(store.temporary) == []


def test_what_could_not_be_made_ahead_is_made_when_it_is_needed(tmp_path: Path) -> None:
    failing = [False, True, False, True]

    def make() -> str:
        if failing.pop(0):
            raise OSError
        return str(tmp_path)

    janitor = Janitor(lambda _: None)
    spares = janitor.spares(make)
    spares.take()
    janitor.finish()
    assert spares.take() == str(tmp_path)
    janitor.finish()
