"""Lock files among threads and processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from builder.filesystem.locks import LockTable, exclusive, exclusive_or_not
from tests.support.together import together

Lock = Callable[[], AbstractContextManager[bool]]


@pytest.fixture(params=["file", "table"])
def lock(request: pytest.FixtureRequest, tmp_path: Path) -> Lock:
    """One lock, in both ways that there are."""
    path = str(tmp_path / "lock")
    return (lambda: exclusive(path)) if request.param == "file" else (lambda: LockTable(path).exclusive("a"))


def test_one_holder_at_a_time(lock: Lock) -> None:
    inside = 0
    most = 0
    waited = []

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with lock() as had_to_wait:
                inside += 1
                most = max(most, inside)
                waited.append(had_to_wait)
                inside -= 1

    together(*[work] * 4)
    assert most == 1
    assert len(waited) == 200


def test_waiting_is_told(lock: Lock) -> None:
    told: list[bool] = []

    def wait() -> None:
        with lock() as waited:
            told.append(waited)

    with lock() as waited:
        assert not waited
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.1)
        assert told == []
    thread.join()
    assert told == [True]


class Enough(Exception):
    """Whoever waits has had enough."""


@pytest.mark.parametrize("kind", ["file", "table"])
def test_waiting_can_be_ended(tmp_path: Path, kind: str) -> None:
    looks: list[int] = []

    def wait() -> None:
        looks.append(len(looks))
        if len(looks) > 2:
            raise Enough

    def lock() -> AbstractContextManager[bool]:
        path = str(tmp_path / "lock")
        return exclusive(path, wait) if kind == "file" else LockTable(path).exclusive("a", wait)

    with lock() as waited:
        assert not waited
        assert looks == []
        with pytest.raises(Enough), lock():
            pass
    assert looks == [0, 1, 2]
    looks.clear()
    with lock() as waited:
        assert not waited


@pytest.mark.parametrize("kind", ["file", "table"])
def test_whoever_looks_again_and_again_gets_it(tmp_path: Path, kind: str) -> None:
    path, held = str(tmp_path / "lock"), ExitStack()
    held.enter_context(exclusive(path) if kind == "file" else LockTable(path).exclusive("a"))
    with exclusive(path, held.close) if kind == "file" else LockTable(path).exclusive("a", held.close) as waited:
        assert waited


def test_an_error_lets_go(lock: Lock) -> None:
    with pytest.raises(ZeroDivisionError), lock():
        raise ZeroDivisionError
    with lock() as waited:
        assert not waited


def test_a_lock_file_is_there_only_while_it_is_held(tmp_path: Path) -> None:
    with exclusive(str(tmp_path / "lock")):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_locks_of_a_table(tmp_path: Path) -> None:
    table = LockTable(str(tmp_path / "locks"))
    with table.exclusive("a"), table.exclusive("b") as waited, table.exclusive_or_not("a") as held:
        assert (waited, held) == (False, False)
    with table.exclusive_or_not("a") as held, table.exclusive_or_not("a") as again:
        assert (held, again) == (True, False)
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]


def test_a_killed_holder_of_a_table_lets_go(tmp_path: Path) -> None:
    table = LockTable(str(tmp_path / "locks"))
    code = (
        "import sys, time\nfrom builder.filesystem.locks import LockTable\n"
        "with LockTable(sys.argv[1]).exclusive('a'):\n    print(flush=True)\n    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path / "locks")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with table.exclusive_or_not("a") as held:
            assert not held
        process.kill()
        process.wait()
    with table.exclusive_or_not("a") as held:
        assert held


def test_a_forked_child_keeps_no_lock_of_a_table(tmp_path: Path) -> None:
    """It has the descriptor for as long as it lives."""
    table = LockTable(str(tmp_path / "locks"))
    reading, writing = os.pipe()
    with table.exclusive("a"):
        child = os.fork()
        if not child:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    with table.exclusive_or_not("a") as held:
        assert held
    os.close(writing)
    os.waitpid(child, 0)
    os.close(reading)


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
