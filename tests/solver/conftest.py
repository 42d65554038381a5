"""A store for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))
