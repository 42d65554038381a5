"""The directories of steps: each for one at a time, made ahead, used again."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from builder.store.store import Store


def test_each_is_given_to_one_at_a_time(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    taken: list[str] = []
    held: set[str] = set()

    def work() -> None:
        for _ in range(20):
            with store.step_scratches.use() as path:
                assert path not in held
                held.add(path)
                assert sorted(os.listdir(path)) == ["upper", "work"]
                taken.append(path)
                store.catch_up()
                held.remove(path)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert len(taken) == 80
    assert os.listdir(store.temporary) == []


def test_the_scratch_of_a_short_step_is_emptied_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.store.scratch._SHORT", 1e9)
    store = Store(str(tmp_path))
    with store.step_scratches.use() as first:
        above = Path(first)
        (above / "upper/d").mkdir(parents=True)
        (above / "layer").write_text("left")
        hidden = above / "work/work/incompat/volatile"  # as overlayfs leaves it
        hidden.mkdir(parents=True)
        (above / "work/work").chmod(0)
    with store.step_scratches.use() as second:  # nobody has had time yet
        assert second != first
        store.catch_up()
    with store.step_scratches.use() as third:
        assert third == first
        assert sorted(os.listdir(third)) == ["upper", "work"]
        assert os.listdir(f"{third}/upper") == os.listdir(f"{third}/work") == []
    store.close()
    assert os.listdir(store.temporary) == []


def test_the_place_of_a_long_step_is_not_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.store.scratch._SHORT", 0)
    store = Store(str(tmp_path))
    with store.step_scratches.use() as first:
        pass
    store.catch_up()
    assert not os.path.exists(first)
    with store.step_scratches.use() as second:
        assert second != first
    store.close()
