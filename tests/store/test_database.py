"""The cache database: what is remembered, and for how many threads and processes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from builder.errors import StoreError
from builder.store.database import _LARGE, VERSION, Database
from builder.store.records import OBSERVED, Holding, LayerRecord, RecipeRecord, StepRecord
from tests.support.together import together


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "cache.db")


@pytest.fixture
def database(path: str) -> Iterator[Database]:
    made = Database(path)
    yield made
    made.close()


def test_layers(database: Database) -> None:
    one = LayerRecord("diff", "digest", "type", 3)
    assert database.layers("diff") == []
    database.add_layer(one)
    database.add_layer(LayerRecord("diff", "other", "type", 4, "docker.io/library/x:latest"))
    assert {record.digest for record in database.layers("diff")} == {"digest", "other"}
    database.add_layer(LayerRecord("diff", "digest", "type", 3, "origin", 10))
    database.add_layer(one)  # what is known stays known
    assert LayerRecord("diff", "digest", "type", 3, "origin", 10) in database.layers("diff")
    assert database.layers("another") == []


def test_steps(database: Database) -> None:
    assert database.step("key") is None
    database.add_step(StepRecord("key", "diff", b"{}", "place", 1.5))
    database.add_step(StepRecord("later", "diff", b"{1}", "place", 2.5))
    assert database.step("key") == StepRecord("key", "diff", b"{}", "place", 1.5)
    database.add_step(StepRecord("key", "diff2", b"{2}", "elsewhere", 0.5))
    found = database.step("key")
    assert found is not None
    assert found.diff_id == "diff2"


@pytest.mark.parametrize("content", ["", "long"])
def test_a_recipe_that_is_written_by_pieces(database: Database, content: str) -> None:
    """Over nothing, and over what was there."""
    for letter, size in ((b"a", _LARGE * 2 + 3), (b"b", _LARGE + 1), (b"c", 10), (b"d", _LARGE * 3)):
        database.add_step(StepRecord("key", "diff", letter * size, "", 1.0), content)
        assert database.recipe("key") == RecipeRecord("key", letter * size, content)


def test_recipes_outlive_their_steps(database: Database) -> None:
    database.add_step(StepRecord("quick", "diff", b"{1}", "place", 1.5), content="long")
    database.add_step(StepRecord("long", "diff", b"{2}", "place", 1.5))
    database.add_recipe(RecipeRecord("failed", b"{3}"))
    database.add_step(StepRecord("other", "diff", b"{4}", "place", 1.5))
    assert database.result("quick") == StepRecord("quick", "diff", b"", "place", 1.5)
    assert database.recipe("quick") == RecipeRecord("quick", b"{1}", "long")
    database.add_recipe(RecipeRecord("quick", b"{1}"))
    assert database.recipe("quick") == RecipeRecord("quick", b"{1}", "long"), "what is known stays known"
    database.forget([Holding("", key, "diff", 0.0) for key in ("quick", "long")])
    assert database.step("quick") is database.result("quick") is None
    assert database.recipe("quick") is not None
    database.forget_recipes(["quick"])
    found = {key for key in ("quick", "long", "failed", "other") if database.recipe(key) is not None}
    assert found == {"quick", "long", "other"}, "what is kept, what it points to, and what a step has"


def test_a_step_that_comes_while_recipes_are_forgotten_keeps_its_own(database: Database, path: str) -> None:
    def add() -> None:
        other = Database(path)
        other.add_step(StepRecord("late", "diff", b"{1}", "place", 1.5))
        other.close()

    adding = threading.Thread(target=add)

    def traced(statement: str) -> None:
        if statement.startswith("DELETE FROM recipes"):
            adding.start()
            adding.join(0.5)  # it waits, or is done

    database._connection.set_trace_callback(traced)
    database.forget_recipes([])
    database._connection.set_trace_callback(None)
    adding.join()
    assert database.recipe("late") is not None


def test_memos(database: Database) -> None:
    assert database.memo("kind", "key") is None
    database.add_memo("kind", "key", b"\0\xff")
    database.add_memo("other", "key", b"2")
    assert database.memo("kind", "key") == b"\0\xff"
    database.add_memo("kind", "key", b"3")
    assert database.memo("kind", "key") == b"3"
    database.clear()
    assert database.memo("kind", "key") is None


def test_memos_go_with_their_layers_at_once(database: Database) -> None:
    """One look at all memos, however many layers: there may be many of both."""
    layers = [LayerRecord(f"sha256:{number}", "sha256:b", "type", 1) for number in range(5)]
    for layer in layers:
        database.add_layer(layer)
        for kind in ("outline", "another"):
            database.add_memo(kind, layer.diff_id, b"")
    statements: list[str] = []
    database._connection.set_trace_callback(statements.append)
    database.forget_blobs(layers[1:])
    database._connection.set_trace_callback(None)
    assert sum("DELETE FROM memos" in statement for statement in statements) == 1
    assert database.all_layers() == layers[:1]
    for kind in ("outline", "another"):
        assert [database.memo(kind, layer.diff_id) for layer in layers] == [b"", None, None, None, None]


def test_memos_that_nobody_used_lately(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for moment, key in ((1000.0, "old"), (2000.0, "used"), (9000.0, "new")):
        monkeypatch.setattr("time.time", lambda moment=moment: moment)
        database.add_memo("kind", key, b"")
        database.add_memo("holding", key, b"", holds="sha256:1")
        for kind in OBSERVED:
            database.add_memo(kind, key, b"")
    database.memo("kind", "used")
    database.forget_unused_memos(before=5000.0)
    assert [database.memo("kind", key) for key in ("old", "used", "new")] == [None, b"", b""]
    assert all(database.memo(kind, "old") is not None for kind in OBSERVED), "nothing here could tell it again"
    assert len(database.holdings()) == 3, "these are the build cache's, and go with it"


def test_what_cannot_be_written_harms_nothing_else(database: Database) -> None:
    with pytest.raises(UnicodeEncodeError):
        database.add_step(StepRecord("key", "diff", b"{}", "a place \udcff", 1.5))
    assert database.step("key") is None
    database.add_step(StepRecord("key", "diff", b"{}", "a place", 1.5))
    assert database.step("key") is not None


def test_what_is_written_stays(path: str) -> None:
    first = Database(path)
    first.add_memo("kind", "key", b"1")
    first.close()
    assert Database(path).memo("kind", "key") == b"1"


def test_a_database_of_another_version_begins_anew(path: str) -> None:
    first = Database(path)
    first.add_memo("kind", "key", b"1")
    first.close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={VERSION + 1}")
    connection.close()
    again = Database(path)
    assert again.memo("kind", "key") is None
    again.add_memo("kind", "key", b"2")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        Database(str(tmp_path / "missing" / "cache.db"))


def _write(path: str, name: str, count: int) -> None:
    database = Database(path)
    for number in range(count):
        database.add_memo("kind", f"{name}-{number}", b"x" * 100)
        database.add_step(StepRecord(f"{name}-{number}", "diff", b"{}", "place", float(number)))
        assert database.memo("kind", f"{name}-{number}") is not None
    database.close()


def test_threads_and_processes_write_at_once(path: str) -> None:
    shared = Database(path)

    def work(name: str) -> None:
        for number in range(50):
            shared.add_memo("kind", f"{name}-{number}", b"x")

    processes = [partial(_write, path, f"p{number}", 50) for number in range(2)]
    together(*(partial(work, f"t{number}") for number in range(3)), processes=processes)
    names = ["p0", "p1", "t0", "t1", "t2"]
    assert all(shared.memo("kind", f"{name}-{number}") for name in names for number in range(50))
    assert all(shared.step(f"{name}-{number}") for name in names[:2] for number in range(50))
