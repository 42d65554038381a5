"""Lock files among threads and processes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from builder.filesystem.locks import exclusive, exclusive_or_not


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    inside = 0
    most = 0
    waited = []

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with exclusive(path) as had_to_wait:
                inside += 1
                most = max(most, inside)
                waited.append(had_to_wait)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert len(waited) == 200
    assert not os.path.exists(path)


def test_waiting_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    told: list[bool] = []

    def wait() -> None:
        with exclusive(path) as waited:
            told.append(waited)

    with exclusive(path) as waited:
        assert not waited
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.1)
        assert told == []
    thread.join()
    assert told == [True]


def test_an_error_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive(str(tmp_path / "lock")):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_whoever_does_not_wait_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with exclusive(path), exclusive_or_not(path) as held:
        assert not held
    assert not os.path.exists(path)
    with exclusive_or_not(path) as held, exclusive_or_not(path) as again:
        assert (held, again) == (True, False)
    assert not os.path.exists(path)


def test_a_file_that_lost_its_name_is_no_lock(tmp_path: Path) -> None:
    """Whoever waited for the file of one that has ended takes a new one, as those do who come later."""
    path = str(tmp_path / "lock")
    order: list[str] = []

    def wait() -> None:
        with exclusive(path), exclusive_or_not(path) as again:
            order.append("waited" if not again else "two have it")

    thread = threading.Thread(target=wait)
    with exclusive(path):
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "waited"]
