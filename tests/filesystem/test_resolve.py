"""resolve, against a table and against the kernel's own RESOLVE_IN_ROOT."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.errors import LayerError
from builder.filesystem import syscalls
from builder.filesystem.layered import LayeredTree
from builder.filesystem.resolve import resolve
from builder.filesystem.syscalls import open_in_root

LINKS = {
    "abs": "/d/e", "rel": "d/e", "up": "../../../d", "d/back": "..", "d/e/self": ".", "chain": "abs/self",
    "dangling": "/no/such", "loop1": "loop2", "loop2": "loop1", "tofile": "d/f", "root": "/",
}  # fmt: skip


@pytest.fixture(scope="module", name="root")
def root_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    (root / "d/e").mkdir(parents=True)
    (root / "d/f").write_text("x")
    for name, target in LINKS.items():
        (root / name).symlink_to(target)
    return root


@pytest.mark.parametrize(
    ("path", "expected", "not_following"),
    [
        ("", "", ""), ("/", "", ""), ("d/./e//", "d/e", "d/e"), ("..", "", ""), ("../../d", "d", "d"),
        ("abs", "d/e", "abs"), ("abs/", "d/e", "abs"), ("abs/x/y", "d/e/x/y", "d/e/x/y"), ("abs/..", "d", "d"),
        ("up/e", "d/e", "d/e"), ("d/back/d/f", "d/f", "d/f"), ("chain", "d/e", "chain"), ("chain/..", "d", "d"),
        ("dangling", "no/such", "dangling"), ("dangling/x", "no/such/x", "no/such/x"), ("tofile", "d/f", "tofile"),
        ("missing/../abs", "d/e", "abs"), ("root/root/d", "d", "d"), ("d/f/x", "d/f/x", "d/f/x"),
    ],
)  # fmt: skip
def test_table(root: Path, path: str, expected: str, not_following: str) -> None:
    with LayeredTree([root]) as tree:
        assert resolve(tree, path) == expected
        assert resolve(tree, path, follow_last=False) == not_following


def test_loops(root: Path) -> None:
    with LayeredTree([root]) as tree:
        for path in ("loop1", "loop2/x"):
            with pytest.raises(LayerError, match="too many levels"):
                resolve(tree, path)
        assert resolve(tree, "loop1", follow_last=False) == "loop1"


PARTS = st.sampled_from([".", "..", "", "d", "e", "f", "x", "back", "self", "loop1", *LINKS])


@pytest.mark.parametrize("how", ["openat2", "walk"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PARTS, max_size=8).map("/".join))
def test_directories_are_the_kernels(root: Path, how: str, path: str) -> None:
    with pytest.MonkeyPatch.context() as patch, LayeredTree([root]) as tree:
        if how == "walk":
            patch.setattr(syscalls, "_openat2", lambda: None)
        descriptor = os.open(root, os.O_PATH)
        try:
            opened = open_in_root(descriptor, path, os.O_PATH)
        except OSError:
            return
        finally:
            os.close(descriptor)
        status = os.fstat(opened)
        os.close(opened)
        assert stat.S_ISDIR(status.st_mode)
        assert os.path.samestat(os.stat(root / resolve(tree, path), follow_symlinks=False), status)
