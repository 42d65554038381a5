"""Control groups that the kernel does not give up at once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from builder.sandbox.cgroups import ControlGroup


@pytest.fixture
def group(tmp_path: Path) -> ControlGroup:
    """One of two controllers."""
    made = ControlGroup.__new__(ControlGroup)
    made._directories = [str(tmp_path / "memory"), str(tmp_path / "cpu")]
    for directory in made._directories:
        os.mkdir(directory)
    return made


@pytest.mark.parametrize(("refusals", "left"), [(0, []), (1, ["memory"]), (2, ["cpu", "memory"])])
def test_a_group_that_is_in_use_for_a_moment(
    group: ControlGroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int, left: list[str]
) -> None:
    real = os.rmdir
    refused: list[str] = []

    def rmdir(path: str) -> None:
        if len(refused) < refusals:
            refused.append(path)
            raise OSError(errno.EBUSY, "busy", path)
        real(path)

    monkeypatch.setattr(os, "rmdir", rmdir)
    assert group.remove() is not bool(left)
    assert sorted(os.listdir(tmp_path)) == left
    assert group.remove()
    assert os.listdir(tmp_path) == []


def test_a_group_that_is_gone(group: ControlGroup, tmp_path: Path) -> None:
    os.rmdir(tmp_path / "memory")
    assert group.remove()
    assert os.listdir(tmp_path) == []
