"""Properties that are computed once."""

from __future__ import annotations

import threading
from pathlib import Path

from builder.context.local import LocalTree
from builder.filesystem.tree import FileTree
from builder.plan.steps import CopyFiles, FromContext
from builder.solver.gather import FilesSource
from builder.solver.lazy import lazy
from tests.support.together import together


class Number:
    computed = 0

    @lazy
    def value(self) -> int:
        """What it is."""
        self.computed += 1
        return 7


def test_it_is_computed_once() -> None:
    one, other = Number(), Number()
    assert [one.value, one.value, other.value] == [7, 7, 7]
    assert (one.computed, other.computed) == (1, 1)
    assert Number.value.__doc__ == "What it is."


def test_steps_open_their_sources_side_by_side(tmp_path: Path) -> None:
    """Each may fetch a layer for it, of another image."""
    meeting = threading.Barrier(2)

    def open_tree() -> FileTree:
        meeting.wait(30)
        return LocalTree(str(tmp_path))

    found: list[int] = []

    def work() -> None:
        source = FilesSource(CopyFiles(tree=FromContext(""), path="/"), open_tree, ())
        found.append(len(source.matches))

    together(*[work] * 2)
    assert found == [1, 1]
