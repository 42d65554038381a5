"""The filter of system calls keeps what `testdata/seccomp.toml` promises of each call, for every processor and ABI.

The program is interpreted here: what it says of a call does not depend on the kernel that runs this test.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from builder.sandbox import capabilities
from builder.sandbox.seccomp import build_filter
from tests.sandbox.bpf import ALLOW, ENOSYS, EPERM, KILL, Filter

TABLE: dict[str, Any] = tomllib.loads((Path(__file__).parents[2] / "testdata/seccomp.toml").read_text())
MACHINES = {"x86_64": ("x86_64", "i386", "x32"), "aarch64": ("aarch64", "arm")}
ABIS = [(machine, abi) for machine, abis in MACHINES.items() for abi in abis]
ANY = (0, 1, (1 << 64) - 1)
"""Values that are given to all arguments of a call which is not decided by any."""
_PRIVATE = 0x0F0000  # from here on are calls of 32-bit ARM's own, which are no newer than others


@cache
def filter_for(machine: str, *more: str) -> Filter:
    return Filter(build_filter(capabilities.DEFAULT | set(more), machine))


def numbers(section: str, abi: str) -> dict[int, str]:
    """The calls of a section that an ABI has, by their numbers."""
    column = TABLE["abis"].index(abi)
    return {row[column]: name for name, row in TABLE[section].items() if row[column] >= 0}


def verdicts(abi: str) -> dict[int, str]:
    """What becomes of every number up to 600, and of ARM's own, where no argument decides."""
    allowed, decided = numbers("allowed", abi), numbers("decided", abi)
    newest = max(number for number in allowed if number < _PRIVATE)
    found = {}
    for number in (*range(600), *range(_PRIVATE, _PRIVATE + 10), 0x3FFFFFFF):
        if number not in decided:
            found[number] = ALLOW if number in allowed else ENOSYS if number > newest else EPERM
    for number in numbers("refused", abi):
        assert found[number] == EPERM
    for number in numbers("newer", abi):
        assert found[number] == ENOSYS
    return found


def test_the_table_names_each_call_once() -> None:
    sections = ("allowed", "decided", "refused", "newer")
    names = [name for section in sections for name in TABLE[section]]
    assert len(names) == len(set(names)) > 450
    for abi in TABLE["abis"]:
        found = [number for section in sections for number in numbers(section, abi)]
        assert len(found) == len(set(found)) == sum(1 for s in sections for n in TABLE[s].values() if n[_at(abi)] >= 0)


def _at(abi: str) -> int:
    return int(TABLE["abis"].index(abi))


@pytest.mark.parametrize(("machine", "abi"), ABIS)
def test_each_call(machine: str, abi: str) -> None:
    program = filter_for(machine)
    wrong = {
        number: found
        for number, expected in verdicts(abi).items()
        for value in ANY
        if (found := program.verdict(abi, number, *[value] * 6)) != expected
    }
    assert wrong == {}


def _decided() -> Iterator[tuple[str, str, int, str]]:
    for call, cases in TABLE["arguments"].items():
        for kind, expected in (("allowed", ALLOW), ("refused", EPERM)):
            for first, last in cases[kind]:
                for value in range(first, last + 1):
                    yield call, kind, value, expected


@pytest.mark.parametrize(("machine", "abi"), ABIS)
def test_calls_that_an_argument_decides(machine: str, abi: str) -> None:
    program = filter_for(machine)
    number = {name: number for number, name in numbers("decided", abi).items()}
    wrong = [
        (call, kind, hex(value))
        for call, kind, value, expected in _decided()
        if program.verdict(abi, number[call], value, *ANY) != expected
    ]
    assert wrong == []
    assert {program.verdict(abi, number["clone3"], value) for value in ANY} == {ENOSYS}
    assert number.keys() == {*TABLE["arguments"], "clone3"}


@pytest.mark.parametrize("capability", TABLE["with"])
def test_what_a_capability_adds(capability: str) -> None:
    """Nothing else changes with it."""
    for machine, abi in ABIS:
        program, plain = filter_for(machine, capability), filter_for(machine)
        rows = TABLE["refused"] | TABLE["decided"]
        added = {rows[name][_at(abi)] for name in TABLE["with"][capability]}
        for number in range(600):
            without = plain.verdict(abi, number, *ANY)
            assert program.verdict(abi, number, *ANY) == (ALLOW if number in added else without), (abi, number)


@pytest.mark.parametrize("machine", MACHINES)
def test_other_abis_are_not_there(machine: str) -> None:
    """A process that could use them would be under no rule."""
    others = {"riscv64", *(abi for other in MACHINES if other != machine for abi in MACHINES[other])}
    program = filter_for(machine)
    assert {program.verdict(abi, number) for abi in others for number in (0, 1, 59, 221)} == {KILL}


def test_the_interpreter_tells_filters_apart() -> None:
    """With the rules of another set of capabilities the table above does not hold: the tests can fail."""
    program = filter_for("x86_64", "CAP_SYS_ADMIN")
    assert program.verdict("x86_64", 165) == ALLOW != filter_for("x86_64").verdict("x86_64", 165)
    assert program.verdict("x86_64", 56, 1 << 28) == ALLOW != filter_for("x86_64").verdict("x86_64", 56, 1 << 28)
