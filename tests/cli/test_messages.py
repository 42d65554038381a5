"""What a new user does wrong, and the whole message that each of these mistakes gets: testdata/messages/*.toml.

Each case has files of the working directory, commands to do before, the command line that is wrong, its exit status and
the text from `error:` on, in which {registry} is the address of a registry that wants credentials.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.builds import Cli, needs_sandbox
from tests.support.registry import FakeRegistry

TABLES = sorted((Path(__file__).parents[2] / "testdata/messages").glob("*.toml"))
CASES = {f"{path.stem}: {case['name']}": case for path in TABLES for case in tomllib.loads(path.read_text())["case"]}


@pytest.fixture(scope="module")
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry(auth="basic", users={"me": "secret"}, anonymous_pull=False) as registry:
        yield registry


def _marks(case: dict[str, Any]) -> tuple[pytest.MarkDecorator, ...]:
    return (needs_sandbox,) if case.get("sandbox") else ()


@pytest.mark.parametrize("case", [pytest.param(case, id=name, marks=_marks(case)) for name, case in CASES.items()])
def test_the_message(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: FakeRegistry
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for name, text in {"a.txt": "a\n", **case.get("files", {})}.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    monkeypatch.chdir(work)
    cli = Cli(tmp_path / "store")
    for before in case.get("before", ()):
        assert cli(*before).status == 0
    done = cli(*(word.replace("{registry}", registry.host) for word in case["command"]))
    assert done.status == case["status"], done.err
    start = done.err.find("error: ")
    shown = done.err[start:].replace(registry.host, "{registry}").replace(str(tmp_path), "{tmp}")
    assert shown == case["message"]


def test_each_message_says_what_to_do() -> None:
    """At least these: the number of cases is kept, and none is there twice."""
    assert len(CASES) >= 40
    assert len({json.dumps([case.get("files"), case["command"]]) for case in CASES.values()}) == len(CASES)
    assert [name for name, case in CASES.items() if "\nhelp: " not in case["message"]] == []
