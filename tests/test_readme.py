"""The README's commands: each is one that the command line knows, and the tour is done as a reader would do it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest

from builder.cli.main import cli

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
INDENTED = re.compile(r"^    (?:\$ )?(builder [a-z].*)$", re.M)
SPAN = re.compile(r"`(builder [a-z][^`]*)`")
BUSYBOX = "/usr/bin/busybox"
PLACEHOLDERS = ("…", "|", "[", "X ")


def blocks(kind: str) -> list[str]:
    return [body for language, body in BLOCK.findall(README.read_text()) if language == kind]


def commands() -> Iterator[str]:
    """All command lines that begin with `builder`, without what is piped into or out of them."""
    yield from commands_in_blocks()
    for span in SPAN.findall(BLOCK.sub("", README.read_text())):
        if not any(mark in span for mark in PLACEHOLDERS):
            yield span


def commands_in_blocks() -> Iterator[str]:
    text = README.read_text()
    for kind in ("console", "sh", "yaml"):
        for body in blocks(kind):
            joined = body.replace("\\\n", " ")
            for line in joined.splitlines():
                line = re.sub(r"^\s*(\$ |- run: |- )?", "", line)
                for part in re.split(r" && | \| ", line):
                    if part.startswith("builder "):
                        yield part
            for listed in re.findall(r"command: \[(builder, .*?)\]", body):
                yield listed.replace(",", "")
    yield from INDENTED.findall(BLOCK.sub("", text))


def words_of(line: str) -> list[str]:
    line = re.sub(r" 2>&1.*$| > .*$", "", line)
    return shlex.split(line, comments=True)[1:]


def test_there_are_commands() -> None:
    """The patterns above still find them."""
    assert len(set(commands_in_blocks())) > 30
    assert len(set(commands())) > 80


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_every_command_is_one(line: str) -> None:
    """Parses it, options and all, and runs nothing. In a sentence no arguments are needed, nor an option's value."""
    words = words_of(line)
    command: click.Command = cli
    context = click.Context(cli, info_name="builder")
    while isinstance(command, click.Group):
        if command is cli:
            while words and words[0].startswith("--"):
                del words[: 2 if words[0] == "--root" else 1]
        if not words or words[0].startswith("-"):  # of a group that does something by itself
            return
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no command {words[0]}"
        command, words = found, words[1:]
    if words:
        missing = () if line in set(commands_in_blocks()) else (click.MissingParameter, click.BadOptionUsage)
        with suppress(click.exceptions.Exit, *missing):  # --help exits
            command.make_context("builder", list(words))


@pytest.mark.skipif(not os.path.exists(BUSYBOX), reason="busybox-static is not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="RUN needs root here")
def test_the_tour(tmp_path: Path) -> None:
    """The blocks of the tour in one shell, one after the other; what they should print is looked for."""
    text = README.read_text()
    tour = text[text.index("## A two-minute tour") : text.index("## Building")]
    script = ["set -e"]
    for language, body in BLOCK.findall(tour):
        if language != "console":
            continue
        inside = False
        for line in body.splitlines():
            if line.startswith("$ "):
                script.append(line[2:])
                inside = "<<'EOF'" in line
            elif inside:
                script.append(line)
                inside = line != "EOF"
    program = tmp_path / "bin/builder"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m builder --root {tmp_path}/store "$@"\n')
    program.chmod(0o755)
    # The last command of the tour fails, which is what it shows.
    last = script.pop()
    path = f"{program.parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(README.parent), "BUILDER_CONFIG": "/dev/null"}
    done = subprocess.run(
        ["bash", "-c", "\n".join([*script, last])], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    shown = done.stdout + done.stderr
    assert done.returncode == 1, shown
    for expected in (
        '[tools 3/3] RUN echo "$GREETING from $(busybox uname -s)" > /greeting',
        "tour:1",
        "REPOSITORY   TAG",
        "error: Dockerfile:5: the command ended with status 127",
        ">>> RUN ecoh hi",
    ):
        assert expected in shown
    assert done.stdout.startswith("5\n")  # the cached steps of the second build
    if shutil.which("skopeo"):
        store = f"oci:{tmp_path}/store:docker.io/library/tour:1"
        assert subprocess.run(["skopeo", "inspect", store], capture_output=True).returncode == 0
