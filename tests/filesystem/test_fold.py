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
from tests.filesystem.test_diff import ACL, comparable, scramble

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and overlay mounts need root")

Describe = Callable[[Path], dict[str, Any]]

PLAIN = ("write", "write", "mkdir", "mkdir", "rm", "rm", "mv", "symlink", "chmod", "chown", "touch", "replace")
"""What makes layers that can be folded, and no hard links."""


def view(root: Path, describe: Describe, links: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a command sees of a root, with times and all attributes; inode numbers are left out. With `links` it has the
    numbers of links, but for directories: overlayfs says 1 of each that it merges."""
    described = describe(root)
    status = {str(path.relative_to(root)): path.lstat() for path in (root, *root.rglob("*"))}
    xattrs = {
        path: {name: os.getxattr(root / path, name, follow_symlinks=False) for name in _names(root / path)}
        for path in status
    }
    numbers = {path: one.st_nlink * (links and not stat.S_ISDIR(one.st_mode)) for path, one in status.items()}
    return (
        described if links else comparable(described),
        {path: (one.st_mtime_ns, numbers[path], xattrs[path]) for path, one in status.items()},
    )


def _names(path: Path) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)


@pytest.mark.parametrize(
    "what",
    [PLAIN, (*PLAIN, "ln", "cap"), (*PLAIN, "cap", "acl", "acl", "mark", "mark")],
    ids=["plain", "links", "attributes"],
)
@pytest.mark.parametrize("seed", range(10))
def test_a_fold_shows_what_its_layers_show(
    tmp_path: Path, overlays: Any, describe: Describe, seed: int, what: tuple[str, ...]
) -> None:
    """But for one thing: a file of which a command removed one of two names has one link in a fold, and two without."""
    links = what == PLAIN
    layers: list[Path] = []  # top first
    for number in range(8):
        upper, work = tmp_path / f"upper{number}", tmp_path / f"work{number}"
        upper.mkdir()
        work.mkdir()
        step = overlays.mount(tmp_path / f"step{number}", layers, upper, work) if layers else upper
        scramble(step, seed * 10 + number, 40 if number < 2 else 6, what)
        overlays.unmount()
        layers.insert(0, upper)
    whole = view(overlays.mount(tmp_path / "whole", layers), describe, links)
    chosen = random.Random(seed)
    for number in range(6):
        first = chosen.randrange(5)
        last = chosen.randrange(first + 2, 8)
        fold = tmp_path / f"fold{number}"
        fold.mkdir()
        with LayeredTree(layers[last:]) as below:
            fold_layers([*map(str, layers[first:last])], str(fold), below)
        mounted = overlays.mount(tmp_path / f"folded{number}", [*layers[:first], fold, *layers[last:]])
        assert view(mounted, describe, links) == whole
    overlays.unmount()


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda layer: os.mkfifo(layer / "p"), id="a fifo"),
        pytest.param(lambda layer: os.mknod(layer / "n", 0o020644, os.makedev(1, 3)), id="a device"),
        pytest.param(lambda layer: os.setxattr(layer, "user.a", b"b"), id="an attribute of the root"),
        pytest.param(lambda layer: os.setxattr(layer, "trusted.overlay.opaque", b"y"), id="an opaque root"),
        pytest.param(
            lambda layer: os.setxattr(layer.parent / "into", "system.posix_acl_default", ACL),
            id="an inherited one",
        ),
    ],
)
def test_what_is_not_folded(tmp_path: Path, make: Callable[[Path], None]) -> None:
    upper, lower, into = (tmp_path / name for name in ("upper", "lower", "into"))
    for path in (upper, lower, into):
        path.mkdir()
    (lower / "below").write_text("a file")
    make(upper)
    with pytest.raises(Unfoldable):
        fold_layers([str(upper), str(lower)], str(into), LayeredTree([]))
