"""Trees removed whatever is in them, and whoever else removes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from builder.filesystem import syscalls


@pytest.mark.parametrize("call", ["unlink", "rmdir", "open", "scandir"])
def test_two_remove_a_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Whatever one is about to do next, another has done it."""
    top = tmp_path / "tree"
    real = getattr(os, call)
    left = 0

    def race(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            monkeypatch.undo()
            syscalls.remove_tree(str(top))
        return real(*arguments, **named)

    for turn in range(1, 12):
        for path in ("a/b/c", "d/e"):
            (top / path).mkdir(parents=True)
            (top / path / "f").touch()
        left = turn
        monkeypatch.setattr(os, call, race)
        syscalls.remove_tree(str(top))
        monkeypatch.undo()
        assert not top.exists()


@pytest.mark.parametrize("name", ["file", "link", "tree", "missing"])
def test_remove_tree(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/f").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("outside")
    for number in range(20):
        (tmp_path / f"tree/{number}/sub").mkdir(parents=True)
        (tmp_path / f"tree/{number}/sub/link").symlink_to(tmp_path / "outside")
    directory = tmp_path / "tree"
    descriptor = os.open(directory, os.O_RDONLY)
    for _ in range(3000):  # deeper than any path may be long
        os.mkdir("deep", dir_fd=descriptor)
        below = os.open("deep", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    syscalls.remove_tree(str(tmp_path / name))
    assert not os.path.lexists(tmp_path / name)
    syscalls.remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path / "outside") == ["f"]
