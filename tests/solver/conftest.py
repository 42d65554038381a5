"""A store for each test, and what shows which files are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.context.local import LocalTree
from builder.filesystem import moments
from builder.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of contexts that are opened."""
    opened: list[str] = []
    original = LocalTree.open

    def spy(self: LocalTree, path: str) -> int:
        opened.append(path)
        return original(self, path)

    monkeypatch.setattr(LocalTree, "open", spy)
    return opened


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time goes on: whatever was written so far is old enough to be trusted."""
    real = moments.now
    monkeypatch.setattr(moments, "now", lambda: real() + 3_000_000_000)
