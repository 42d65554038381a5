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
    "behind an equals sign": (["-e=A=1", "-t=1", "app", "-e=B"], {"variables": ("A=1",), "arguments": ("-e=B",)}),
    "letters and an equals sign": (["-ite=A==", "app"], {"variables": ("A==",), "terminal": True, "interactive": True}),
    "two equals signs": (["-u==1", "app"], {"user": "=1"}),
    "an equals sign alone": (["-u=", "app"], {"user": "="}),
    "an option behind an equals sign": (["-w=--", "-t=1", "app"], {"workdir": "--", "terminal": True}),
    "an equals sign of a value": (["-e", "-u=1", "app"], {"variables": ("-u=1",), "user": ""}),
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


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (("save", "-o=app.tar", "app:1"), "output", "app.tar"),
        (("images", "-f=dangling=true"), "filters", ("dangling=true",)),
        (("images", "-qf=dangling=true"), "filters", ("dangling=true",)),
        (("build", "-t=app:1", "."), "tags", ("app:1",)),
        (("build", "-qt=app:1", "."), "tags", ("app:1",)),
    ],
)
def test_values_of_short_options_may_follow_an_equals_sign(
    arguments: tuple[str, ...], name: str, value: object
) -> None:
    assert _read(*arguments)[name] == value


def _read(name: str, *arguments: str) -> dict[str, Any]:
    """What a command reads from its arguments."""
    with program.make_context("builder", [name], resilient_parsing=False) as context:
        command = program.get_command(context, name)
    assert command is not None
    with command.make_context(name, list(arguments)) as context:
        return context.params
