"""The fuzzing targets, each with random inputs for a moment; by hand they run longer (`python -m tests.fuzz`)."""

from __future__ import annotations

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import BuilderError, DockerfileError
from tests.fuzz.mutate import Defect, attempt, run
from tests.fuzz.targets import SEEDS, TARGETS

_MOST = 200 << 20


@pytest.mark.parametrize("name", TARGETS)
def test_mutations(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert run(TARGETS[name], SEEDS[name], 0.7) > 20
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < _MOST


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.binary(max_size=300))
def test_anything(name: str, data: bytes) -> None:
    attempt(TARGETS[name], data)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_get_through(name: str) -> None:
    """A seed that is refused at once leads nowhere."""
    passed = 0
    for seed in SEEDS[name]:
        try:
            TARGETS[name](seed)
            passed += 1
        except BuilderError:
            continue
    assert passed or name == "caches"


def test_defects_are_told() -> None:
    def broken(data: bytes) -> None:
        raise KeyError("x")

    def empty(data: bytes) -> None:
        raise DockerfileError(" ")

    for target in (broken, empty):
        with pytest.raises(Defect):
            attempt(target, b"")
