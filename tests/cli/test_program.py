"""Statuses and messages of errors, with and without `--debug`, and the program's end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from builder.cli.program import wants_debug
from tests.support.builds import Cli

WRONG = {
    "a failure": (["inspect", "nosuch"], 1),
    "wrong usage": (["build", "--memory", "lots", "."], 2),
    "an unknown option": (["build", "--tagg", "."], 2),
    "nothing to run": (["run", "--pull=never", "nosuch", "true"], 125),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_traceback_goes_before_the_message(cli: Cli, case: str) -> None:
    arguments, status = WRONG[case]
    plain, debug = cli(*arguments), _debugged(cli, *arguments)
    assert (plain.status, debug.returncode) == (status, status)
    assert "Traceback" not in plain.err
    assert debug.stderr.endswith(plain.err)
    assert debug.stderr.startswith("Traceback") == (case != "an unknown option")


@pytest.mark.parametrize("status", [0, 1])
def test_what_is_done_at_the_end_is_done(cli: Cli, status: int) -> None:
    arguments = cli.arguments("inspect", "nosuch") if status else ["--version"]
    script = "from builder.cli.program import run; run(at_end=lambda: print('the end', flush=True))"
    done = subprocess.run(
        [sys.executable, "-c", script, "--debug", *arguments], env=cli.environ, capture_output=True, text=True
    )
    assert done.returncode == status
    assert done.stdout.endswith("the end\n")


def test_the_debug_of_a_command_is_its_own(cli: Cli) -> None:
    done = cli("run", "--pull=never", "nosuch", "true", "--debug")
    assert done.status == 125
    assert done.err.startswith("error: ")


def test_nobody_reads_the_message(cli: Cli) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with cli.start("--debug", "inspect", "nosuch", stderr=writing) as process:
        os.close(writing)
    assert process.returncode == 1


def test_which_words_ask_for_it() -> None:
    for line in ("--debug", "--debug images", "--root x --debug images", "--root=x --debug", "-x --debug images"):
        assert wants_debug(line.split()), line
    for line in ("", "images --debug", "--root --debug images", "-- --debug", "run app --debug"):
        assert not wants_debug(line.split()), line


def _debugged(cli: Cli, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "builder", "--debug", *cli.arguments(*arguments)], env=cli.environ, capture_output=True,
        text=True,
    )  # fmt: skip
