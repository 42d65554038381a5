"""A build that may be repeated, and one that is noted."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from builder.api.repeat import build
from builder.filesystem import moments
from tests.api.repeat.asking import Asking


@pytest.fixture
def asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asking:
    monkeypatch.setattr(moments, "_ROUNDED", 0)
    monkeypatch.setattr(os, "isatty", lambda _: False)
    for name in build._REMOTE:  # which other tests loaded
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = Asking(tmp_path)
    time.sleep(0.02)  # the clock of files goes in steps
    return found


@pytest.fixture
def noted(asking: Asking) -> Asking:
    asking.build()
    assert not asking.answered()  # its steps ran
    asking.build()
    assert asking.answered()
    return asking
