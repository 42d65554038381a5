"""A small context and a store that is not there yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builds import context

COPY = 'FROM scratch\nCOPY a.txt /\nCMD ["/a.txt"]\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return context(tmp_path / "context", COPY, **{"a.txt": "one\n"})
