"""The README's table of security promises names the tests that hold them, and these tests exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
_SECTION = re.compile(r"^## Security promises\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_TEST = re.compile(r"`([\w/]+\.py)(?:::(test_\w+))?`")


def promises() -> list[tuple[str, list[tuple[str, str]]]]:
    """The rows of the tables: the promise, and its tests as a file and a function ('' for all of the file)."""
    section = _SECTION.search((PROJECT / "README.md").read_text())
    if section is None:
        return []
    rows = [line.strip("| ").rsplit("|", 1) for line in section[1].splitlines() if line.startswith("| ")]
    return [
        (row[0].strip(), _TEST.findall(row[-1])) for row in rows if "---" not in row[0] and row[-1].strip() != "tests"
    ]


@cache
def functions(path: str) -> frozenset[str]:
    tree = ast.parse((PROJECT / path).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_there_are_promises() -> None:
    assert len(promises()) > 20


@pytest.mark.parametrize(("promise", "tests"), promises())
def test_each_is_held_by_tests_that_exist(promise: str, tests: list[tuple[str, str]]) -> None:
    assert tests, f"no test holds: {promise}"
    for path, name in tests:
        assert (PROJECT / "tests" / path).is_file(), path
        assert not name or name in functions(f"tests/{path}"), f"{path} has no {name}"


def test_every_security_test_holds_a_promise() -> None:
    named = {(path, name) for _, tests in promises() for path, name in tests}
    for file in sorted((PROJECT / "tests/security").glob("test_*.py")):
        path = f"security/{file.name}"
        if (path, "") in named:
            continue
        tests = {name for name in functions(f"tests/{path}") if name.startswith("test_")}
        missing = {name for name in tests if (path, name) not in named}
        assert not missing, f"{path}: no promise names {sorted(missing)}"
