"""Waiting for what another build has."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from builder.errors import Interrupted
from builder.progress import Message
from builder.solver.waiting import Waiting
from builder.store.store import Store
from tests.solver.support import environment


def test_it_looks_less_often_and_says_once_what_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    environ, events = environment(store)
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    waiting = Waiting(environ, "one waits for another")
    while sum(pauses) < 0.9:
        waiting()
    assert events == []
    for _ in range(100):
        waiting()
    assert events == [Message("one waits for another")]
    assert pauses[0] < 0.01
    assert max(pauses) < 0.1
    assert all(first <= second for first, second in pairwise(pauses))


def test_the_end_of_the_build_ends_it(store: Store) -> None:
    environ, events = environment(store)
    waiting = Waiting(environ, "one waits for another")
    waiting()
    environ.cancel()
    with pytest.raises(Interrupted):
        waiting()
    assert events == []
