"""What tests of builds on several machines share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builds import Cli
from tests.support.external_cache import Machine, busybox_layer, no_configuration
from tests.support.registry import FakeRegistry


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    """A registry with a base image, `base:1`, whose only layer holds busybox."""
    with FakeRegistry() as running:
        running.add_image("base", "1", layers=(busybox_layer(),))
        yield running


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Machines by name: each has a root and a home of its own."""

    def make(name: str) -> Cli:
        (tmp_path / name).mkdir(exist_ok=True)
        return Cli(tmp_path / name / "root", BUILDER_CONFIG=str(no_configuration(tmp_path)))

    return make
