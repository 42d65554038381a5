"""The step cache: what is found again, and that the same step is not made twice at a time."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from builder.solver.cache import Made, StepCache, now
from builder.solver.keys import key_of
from builder.store.store import Store
from tests.solver.support import base_layer, write
from tests.support.together import together

RECIPE = {"step": "run", "argv": ["x"]}


def test_a_result_is_found_while_its_layer_is_there(tmp_path: Path, store: Store) -> None:
    cache = StepCache(store)
    assert cache.look_up(RECIPE) is None
    layer = base_layer(store, write(tmp_path / "a", {"f": "f"}))
    cache.remember(RECIPE, Made(layer, 12.5), "place")
    assert cache.look_up(RECIPE) == Made(layer, 12.5, cached=True)
    assert cache.look_up({**RECIPE, "user": "app"}) is None
    assert StepCache(Store(store.root)).look_up(RECIPE) is not None
    record = store.layers.record(layer)
    assert record is not None
    Path(store.layout.blob_path(record.digest)).unlink()
    assert cache.look_up(RECIPE) is None


def test_only_results_of_the_same_place(tmp_path: Path, store: Store) -> None:
    cache = StepCache(store)
    layer = base_layer(store, write(tmp_path / "a", {"f": "f"}))
    cache.remember(RECIPE, Made(layer, 1.0), "place")
    assert cache.look_up(RECIPE, lineage="place") is not None
    assert cache.look_up(RECIPE, lineage="elsewhere") is None


def test_a_time_that_is_given_is_the_time() -> None:
    assert now(5) == 5.0
    assert abs(now(None) - time.time()) < 5


def _work(root: str, log: str, count: int) -> None:
    """Add to a file, with a pause between reading and writing, as whoever is not alone would do wrong."""
    cache = StepCache(Store(root))
    for _ in range(count):
        with cache.hold(key_of(RECIPE), partial(time.sleep, 0.001)):
            before = int(Path(log).read_text())
            time.sleep(0.001)
            Path(log).write_text(str(before + 1))


def test_threads_and_processes_are_alone(tmp_path: Path, store: Store) -> None:
    log = tmp_path / "log"
    log.write_text("0")
    work = partial(_work, store.root, str(log), 20)
    together(*[work] * 3, processes=[work] * 2)
    assert log.read_text() == "100"
