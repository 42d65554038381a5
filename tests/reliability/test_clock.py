"""Clocks that jump: no stale result is taken for a fresh one, and no fresh one is lost."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.builds import Cli, context

DAY = 86_400
FUTURE = 4_102_444_800  # 2100


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return context(tmp_path / "context", "FROM scratch\nCOPY a /a\nCOPY b /b\n", a="first", b="b")


def set_clock(patch: pytest.MonkeyPatch, shift: float) -> None:
    """Let the builder's clock be `shift` seconds off. The kernel's, by which files get their times, goes on."""
    real, real_ns = time.time, time.time_ns
    patch.setattr(time, "time", lambda: real() + shift)
    patch.setattr(time, "time_ns", lambda: real_ns() + int(shift * 1e9))


def test_files_from_the_future(cli: Cli, source: Path) -> None:
    os.utime(source / "a", (FUTURE, FUTURE))
    cli.build("-t", "x", source)
    assert cli.files("x")["a"].mtime == FUTURE
    assert cli.build("-t", "x", source).cached() == 2
    (source / "a").write_text("other")  # as large, and then as old
    os.utime(source / "a", (FUTURE, FUTURE))
    cli.build("-t", "x", source)
    assert cli.files("x")["a"].content == b"other"


@pytest.mark.parametrize("shift", [-10 * DAY, 10 * DAY, -40 * 365 * DAY])
def test_a_clock_that_jumps(cli: Cli, source: Path, shift: float) -> None:
    cli.build("-t", "x", source)
    with pytest.MonkeyPatch.context() as patch:
        set_clock(patch, shift)
        assert cli.build("-t", "x", source).cached() == 2
        (source / "a").write_text("other")
        done = cli.build("-t", "x", source)
        assert done.cached() == 1
        assert cli.files("x")["a"].content == b"other"
        assert cli("explain").status == 0
    assert cli.build("-t", "x", source).cached() == 2
    (source / "a").write_text("third")
    cli.build("-t", "x", source)
    assert cli.files("x")["a"].content == b"third"
    assert cli("fsck", "-n").out.endswith(b"everything is in order\n")


def test_pruning_after_the_clock_was_set_back(cli: Cli, source: Path) -> None:
    """What a later time used is younger than any limit; it is neither lost nor kept for ever."""
    cli.build("-t", "x", source)
    with pytest.MonkeyPatch.context() as patch:
        set_clock(patch, -DAY)
        assert cli("prune", "-a", "-f", "--filter", "until=1h").status == 0
        assert "docker.io/library/x:latest" in cli.entries()
        assert cli("prune", "-a", "-f").status == 0
    assert cli.entries() == {}
    cli.build("-t", "x", source)
