"""How much a build has to do: counts of calls, which are the same on every machine, in place of times.

What it asks of the operating system is counted in a process of its own, in which every call of a builtin function of
`posix` is noted, in all threads. What one file more costs is the difference between two builds that differ in nothing
but the number of files. How work grows with the input is told by the calls of all functions, for three sizes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.builds import PROJECT, Cli, Done, context

FEW, MANY = 300, 500  # files of a layer that is worth threads, whose modules are loaded once
SETTLED = 2.1
"""Seconds after which what was written is known to be recognisable."""

COUNTING = """\
import json, sys, threading
calls, opened = {}, []
def count(frame, event, function):
    if event == "c_call":
        name = function.__qualname__
        ours = getattr(function.__self__, "__name__", "") == "posix" and name != "fspath"
        if ours or name.startswith("DirEntry."):
            calls[name] = calls.get(name, 0) + 1
sys.addaudithook(lambda event, about: opened.append(str(about[0])) if event == "open" else None)
from builder.cli.program import main
threading.setprofile(count)
sys.setprofile(count)
try:
    main()
finally:
    sys.setprofile(None)
    print(json.dumps({"calls": calls, "opened": opened}))
"""


class Counted:
    """What a build asked for: how often each function was called, and the names of the files that were opened."""

    def __init__(self, output: str) -> None:
        found = json.loads(output.splitlines()[-1])
        self.calls = Counter[str](found["calls"])
        self.opened = Counter(Path(name).name for name in found["opened"])

    def files(self) -> dict[str, int]:
        """How often each file of the context was opened."""
        return {name: times for name, times in self.opened.items() if name.endswith(".data")}


def counted(cli: Cli, directory: Path) -> Counted:
    arguments = cli.arguments("build", "--quiet", "-t", "x", directory)
    done = subprocess.run(
        [sys.executable, "-c", COUNTING, *arguments], env=cli.environ, cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return Counted(done.stdout)


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], Counted]:
    """Builds of few and of many files: at first, again, and again with one file changed."""
    directories = {}
    for size in (FEW, MANY):
        files = {f"src__d{number % 5}__{number}.data": f"file {number}" for number in range(size)}
        directories[size] = context(
            tmp_path_factory.mktemp("counts") / "context",
            "FROM scratch\nCOPY src /src\n",
            **files,
        )
    time.sleep(SETTLED)
    found = {}
    for size, directory in directories.items():
        cli = Cli(directory.parent / "store")
        found[size, "cold"] = counted(cli, directory)
        found[size, "unchanged"] = counted(cli, directory)
        (directory / "src/d1/1.data").write_text("changed")
        found[size, "changed"] = counted(cli, directory)
    return found


def each(builds: dict[tuple[int, str], Counted], state: str) -> dict[str, float]:
    """The calls that one file more costs."""
    more = builds[MANY, state].calls - builds[FEW, state].calls
    return {name: times / (MANY - FEW) for name, times in more.items()}


def test_a_file_is_opened_once(builds: dict[tuple[int, str], Counted]) -> None:
    """The layer, the digest and the fingerprint come from one reading."""
    assert builds[MANY, "cold"].files() == {f"{number}.data": 1 for number in range(MANY)}


def test_what_did_not_change_is_not_opened(builds: dict[tuple[int, str], Counted]) -> None:
    assert builds[MANY, "unchanged"].files() == {}


def test_a_new_file_costs_few_calls(builds: dict[tuple[int, str], Counted]) -> None:
    """Looked at while the directory is listed; opened, checked, read and closed."""
    cost = each(builds, "cold")
    for name in ("DirEntry.stat", "open", "fstat", "read", "close"):
        assert cost.pop(name) == pytest.approx(1, abs=0.1), name
    # While anything comes from a disk, be it a module of ours, the kernel is told of each file (`filesystem.prefetch`):
    # in both builds, or in one of them.
    for name in ("lseek", "posix_fadvise"):
        cost.pop(name, 0)
        for size in (FEW, MANY):
            assert builds[size, "cold"].calls[name] < 1.1 * size, name
    assert sum(cost.values()) < 0.2, cost


def test_an_unchanged_file_costs_one_call(builds: dict[tuple[int, str], Counted]) -> None:
    cost = each(builds, "unchanged")
    assert cost.pop("DirEntry.stat") == pytest.approx(1)
    assert sum(cost.values()) < 0.1, cost


def test_a_change_costs_no_reading_of_the_others(builds: dict[tuple[int, str], Counted]) -> None:
    """What the layer is to hold of them comes from the layer that was made before."""
    assert builds[MANY, "changed"].files() == {"1.data": 1}


# --- how work grows


def run_lines(size: int) -> str:
    return "FROM scratch\n" + "".join(f"RUN echo {number}\n" for number in range(size))


def variables(size: int) -> str:
    pairs = (f"ARG A{number}=a\nENV E{number}=${{A{number}}}b\n" for number in range(size))
    return f"FROM scratch\n{''.join(pairs)}COPY Dockerfile /\n"


def stages(size: int) -> str:
    copies = (f"FROM scratch AS s{number}\nCOPY --from=s{number - 1} /f /{number}\n" for number in range(1, size))
    return "FROM scratch AS s0\nCOPY Dockerfile /f\n" + "".join(copies)


@pytest.mark.parametrize(
    ("command", "write", "size"),
    [
        ("plan", run_lines, 100),
        ("plan", stages, 100),
        ("build --call outline", variables, 400),
        ("build --check", run_lines, 100),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_work_grows_with_the_input_and_no_faster(
    cli: Cli, tmp_path: Path, command: str, write: Callable[[int], str], size: int
) -> None:
    """From twice to four times the size it grows twice as much as before that. (Squared it would be 4 times.)"""
    counts = []
    for number in (size, size, 2 * size, 4 * size):  # at first what is loaded once is loaded
        directory = context(tmp_path / "context", f"# check=skip=ShellCheck\n{write(number)}")
        counts.append(calls(partial(cli, *command.split(), directory)))
    _, few, more, many = counts
    assert many - more <= 2.2 * (more - few) + 1000, counts


def calls(work: Callable[[], Done]) -> int:
    """How many functions were called in the meantime."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        done = work()
    finally:
        sys.setprofile(None)
    assert done.status == 0, done.err
    return count
