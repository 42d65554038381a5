"""The fuzzing targets, each with random inputs for a moment; by hand they run longer (`python -m tests.fuzz`)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import BuilderError, DockerfileError
from tests.fuzz.mutate import Defect, attempt, run
from tests.fuzz.targets import SEEDS, TARGETS

_MOST = 200 << 20


@pytest.mark.parametrize("name", TARGETS)
def test_mutations(name: str) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # the most of from now on, see proc(5)
    before = _most_memory()
    assert run(TARGETS[name], SEEDS[name], 0.7, least=21) > 20
    assert _most_memory() - before < _MOST


def _most_memory() -> int:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10


def test_the_memory_that_is_measured_is_that_of_now() -> None:
    for _ in range(2):
        Path("/proc/self/clear_refs").write_text("5")
        before = _most_memory()
        bytes(b"x" * _MOST)
        assert _most_memory() - before >= _MOST // 2


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
    assert passed


def test_defects_are_told() -> None:
    def broken(data: bytes) -> None:
        raise KeyError("x")

    def empty(data: bytes) -> None:
        raise DockerfileError(" ")

    for target in (broken, empty):
        with pytest.raises(Defect):
            attempt(target, b"")
