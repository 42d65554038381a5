"""`builder fsck` and the cache database: beside builds that go on, and results that nobody has."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.store.check import check
from builder.store.check_session import Depth
from tests.support.builds import Cli
from tests.support.checks import CHECK, REPAIR, database, run

DOCKERFILE = "FROM scratch\nCOPY a /a\nCOPY b /b\n"


@pytest.mark.parametrize("depth", [CHECK, REPAIR])
def test_what_a_build_makes_meanwhile_is_kept(built: Cli, source: Path, depth: Depth) -> None:
    """What is known of layers is read before the blobs are, which may take long."""
    (source / "a").write_bytes(b"another")
    steps: list[object] = []

    def progress(what: str, *_: int) -> None:
        if what == "images" and not steps:
            built.build("-t", "y", source)
            steps.extend(database(built, "SELECT key FROM steps"))

    found = check(str(built.root), depth, progress)
    assert [problem for problem in found.problems if problem.area == "record"] == []
    assert steps
    assert database(built, "SELECT key FROM steps") == steps


def test_results_that_are_lost_are_forgotten(built: Cli) -> None:
    database(built, "DELETE FROM layers")
    assert database(built, "SELECT key FROM steps")
    assert {problem.repair for problem in run(built, REPAIR).problems if problem.area == "record"} == {"forgotten"}
    assert database(built, "SELECT key FROM steps") == []
