"""Images for the tests that damage a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builds import Cli, context


@pytest.fixture
def source(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A context with the files `a` and `b` and the test module's Dockerfile."""
    return context(tmp_path / "context", request.module.DOCKERFILE, a="a" * 1000, b="b" * 2000)


@pytest.fixture
def built(cli: Cli, source: Path) -> Cli:
    """The image `x` of that context in the store."""
    cli.build("-t", "x", source)
    return cli
