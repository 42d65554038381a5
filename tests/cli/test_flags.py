"""Flags with a value: what of a command line they are looked for in."""

from __future__ import annotations

from typing import Any

import pytest

from builder.cli.main import cli as program

RUN: dict[str, tuple[list[str], dict[str, Any]]] = {
    "the command's own": (["app", "cmd", "--tty=false", "-i=true"], {"arguments": ("cmd", "--tty=false", "-i=true")}),
    "both": (["--tty=true", "app", "--tty=false"], {"terminal": True, "arguments": ("--tty=false",)}),
    "behind a value": (["-e", "A=1", "-t=1", "app", "-t=0"], {"terminal": True, "arguments": ("-t=0",)}),
    "behind a value of its own word": (["--user=me", "-t=1", "app", "-t=0"], {"user": "me", "arguments": ("-t=0",)}),
    "behind letters together": (["-itu", "me", "-t=0", "app", "-i=0"], {"user": "me", "arguments": ("-i=0",)}),
    "behind a letter with its value": (["-ume", "-i=1", "app", "-i=0"], {"interactive": True, "arguments": ("-i=0",)}),
    "a value that looks like one": (["-e", "--tty=true", "app"], {"variables": ("--tty=true",), "terminal": False}),
    "a value that is two dashes": (["-w", "--", "-t=1", "app", "-t=1"], {"workdir": "--", "terminal": True}),
    "after two dashes": (["--", "app", "--tty=false"], {"arguments": ("--tty=false",)}),
    "two dashes of the command": (["app", "cmd", "--", "-t=0"], {"arguments": ("cmd", "--", "-t=0")}),
    "a lone dash": (["-", "-t=0"], {"image": "-", "arguments": ("-t=0",)}),
}


@pytest.mark.parametrize("case", RUN)
def test_options_end_at_the_image(case: str) -> None:
    assert _read("run", *RUN[case][0]).items() >= RUN[case][1].items()


def test_options_of_a_shell_end_at_the_image() -> None:
    assert _read("shell", "--rm=true", "app", "--rm=false")["arguments"] == ("--rm=false",)


def test_values_are_no_flags() -> None:
    read = _read("build", ".", "--label", "--pull=true", "--build-arg", "-q=1", "--no-cache=1")
    assert (read["labels"], read["build_args"]) == (("--pull=true",), ("-q=1",))
    assert (read["pull"], read["quiet"], read["no_cache"]) == (False, False, True)


def _read(name: str, *arguments: str) -> dict[str, Any]:
    """What a command reads from its arguments."""
    with program.make_context("builder", [name], resilient_parsing=False) as context:
        command = program.get_command(context, name)
    assert command is not None
    with command.make_context(name, list(arguments)) as context:
        return context.params
