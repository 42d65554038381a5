"""What all tests share: how hypothesis searches, a command line with a store of its own, a registry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.support.builds import Cli
    from tests.support.registry import FakeRegistry

# Times vary by a factor of three on a shared machine. The gate tries the same examples each time; elsewhere they vary.
settings.register_profile(
    "builder",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("builder")


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command line, with an empty store."""
    from tests.support.builds import Cli

    return Cli(tmp_path / "store")


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    """A registry that holds nothing."""
    from tests.support.registry import FakeRegistry

    with FakeRegistry() as running:
        yield running


@pytest.fixture
def mounts_erofs(tmp_path: Path) -> None:
    """Skips where layers cannot be mounted as images."""
    from builder.filesystem.erofs_mount import is_able

    if not is_able(str(tmp_path)):
        pytest.skip("this kernel mounts no images from files")
