"""Folded layers beside the same ones unfolded, as the kernel merges them."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.filesystem.fold import Unfoldable, fold_layers
from builder.filesystem.layered import LayeredTree
from tests.filesystem.test_overlay import CAPABILITY, scramble

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and overlay mounts need root")

Describe = Callable[[Path], dict[str, Any]]

PLAIN = ("write", "write", "mkdir", "mkdir", "rm", "rm", "mv", "symlink", "chmod", "chown", "touch", "replace")
"""What makes layers that can be folded, mostly."""


def view(root: Path, describe: Describe) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    """All that a command sees of a root: with times, and the numbers of links of what is no directory (overlayfs says 1
    of every directory that it merges). Inode numbers are left out."""
    paths = [root, *root.rglob("*")]
    status = {str(path.relative_to(root)): path.lstat() for path in paths}
    links = {path: 0 if stat.S_ISDIR(one.st_mode) else one.st_nlink for path, one in status.items()}
    return describe(root), {path: (one.st_mtime_ns, links[path]) for path, one in status.items()}


@pytest.mark.parametrize("seed", range(16))
def test_a_fold_shows_what_its_layers_show(tmp_path: Path, overlays: Any, describe: Describe, seed: int) -> None:
    layers: list[Path] = []  # top first
    for number in range(8):
        upper, work = tmp_path / f"upper{number}", tmp_path / f"work{number}"
        upper.mkdir()
        work.mkdir()
        step = overlays.mount(tmp_path / f"step{number}", layers, upper, work) if layers else upper
        scramble(step, seed * 10 + number, 40 if number < 2 else 6, PLAIN)
        overlays.unmount()
        layers.insert(0, upper)
    whole = view(overlays.mount(tmp_path / "whole", layers), describe)
    chosen = random.Random(seed)
    folded = 0
    for number in range(6):
        first = chosen.randrange(5)
        last = chosen.randrange(first + 2, 8)
        fold = tmp_path / f"fold{number}"
        fold.mkdir()
        try:
            with LayeredTree(layers[last:]) as below:
                fold_layers([*map(str, layers[first:last])], str(fold), lambda path: below.lstat(path) is not None)
        except Unfoldable:
            continue
        folded += 1
        mounted = overlays.mount(tmp_path / f"folded{number}", [*layers[:first], fold, *layers[last:]])
        assert view(mounted, describe) == whole
    overlays.unmount()
    assert folded


def _link(layer: Path) -> None:
    (layer / "f").write_text("x")
    (layer / "g").hardlink_to(layer / "f")


def _capability(layer: Path) -> None:
    (layer / "f").write_text("x")
    os.setxattr(layer / "f", "security.capability", CAPABILITY)


def _attribute_of_a_directory(layer: Path) -> None:
    (layer / "d").mkdir()
    os.setxattr(layer / "d", "user.a", b"b")


@pytest.mark.parametrize(
    "make",
    [
        _link,
        _capability,
        _attribute_of_a_directory,
        pytest.param(lambda layer: (layer / "below").mkdir(), id="a directory over a file"),
        pytest.param(lambda layer: os.mkfifo(layer / "p"), id="a fifo"),
        pytest.param(lambda layer: os.mknod(layer / "n", 0o020644, os.makedev(1, 3)), id="a device"),
        pytest.param(lambda layer: os.setxattr(layer, "user.a", b"b"), id="an attribute of the root"),
        pytest.param(lambda layer: os.setxattr(layer, "trusted.overlay.opaque", b"y"), id="an opaque root"),
    ],
)
def test_what_is_not_folded(tmp_path: Path, make: Callable[[Path], None]) -> None:
    upper, lower, into = (tmp_path / name for name in ("upper", "lower", "into"))
    for path in (upper, lower, into):
        path.mkdir()
    (lower / "below").write_text("a file")
    make(upper)
    with pytest.raises(Unfoldable):
        fold_layers([str(upper), str(lower)], str(into), lambda path: True)
