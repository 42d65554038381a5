"""Paths with bytes that are not UTF-8, as good as any; values with such bytes, which no image can hold; and names that
say something else in a layer."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from builder.api.planning import _SHORT
from tests.support.builds import Cli, busybox_context, context, needs_sandbox

ODD = os.fsdecode(b"caf\xe9")
LONG = "".join(f"ENV A{number}=B\n" for number in range(_SHORT // 8))  # is kept parsed, under its file's name


@pytest.mark.parametrize("filler", ["", LONG], ids=["short", "long"])
def test_a_directory_and_a_dockerfile(cli: Cli, tmp_path: Path, filler: str) -> None:
    directory = context(tmp_path / ODD, "FROM scratch\n", one="1")
    (directory / ODD).write_text(f"FROM scratch AS first\n{filler}COPY one /one\nFROM first\nCOPY --from=odd . /two\n")
    other = context(tmp_path / f"x{ODD}", "", two="2")
    options = ("-f", directory / ODD, "--build-context", f"odd={other}", directory)

    def reasons() -> list[str]:
        steps = json.loads(cli("plan", "--format", "json", *options).out)["steps"]
        return [step["reason"]["text"] for step in steps if "reason" in step]

    assert reasons()[0] == "first build"
    for _ in range(2):
        cli.build("-t", "x", "--provenance=mode=max", *options)
        assert reasons() == []
    (directory / "one").write_text("changed")
    assert reasons()[0] == "one changed"
    cli.build("-t", "x", *options)
    assert "one changed" in cli("explain").out.decode()
    assert len(cli("builds", "ls", "-q").out.split()) == 3


@pytest.mark.parametrize(
    ("command", "option"),
    [("build", "--build-arg"), ("build", "--label"), ("build", "--annotation"), ("plan", "--build-arg")],
)
def test_values(cli: Cli, tmp_path: Path, command: str, option: str) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nARG X\nLABEL a=$X\n")
    done = cli(command, option, f"X={ODD}", directory)
    assert done.status == 2
    assert done.err == f"error: {option} 'X' has bytes that are not UTF-8\nhelp: write it in UTF-8\n"


@needs_sandbox
def test_names_of_whiteouts(cli: Cli, tmp_path: Path) -> None:
    """After a step that makes them there is what every reader of the image finds."""
    lines = "RUN mkdir d; touch a b d/c d/e\nRUN touch .wh.a d/.wh..wh..opq d/f; mkdir .wh.b\nRUN ls -a / d > /found\n"
    done = cli.build("-t", "x", "--progress", "plain", busybox_context(tmp_path / "context", lines))
    assert "WARNING: [base 3/4] RUN touch .wh.a d/.wh..wh..opq d/f; mkdir .wh.b: /.wh." in done.err
    found = cli("cat", "x", "/found").out.decode().split()
    assert "a" not in found
    assert [name for name in found if name in ("a", "b", "c", "e", "f") or ".wh." in name] == ["f"]
    exported = cli("export", "x").out
    assert cli("fsck", "--deep").status == 0
    assert cli("export", "x").out == exported
    cli("save", "-o", tmp_path / "x.tar", "x")
    other = Cli(tmp_path / "other")
    assert other("load", "-i", tmp_path / "x.tar").status == 0
    assert other("export", "x").out == exported


@needs_sandbox
def test_a_name_that_no_layer_can_hold(cli: Cli, tmp_path: Path) -> None:
    done = cli("build", busybox_context(tmp_path / "context", "RUN mkdir d; touch d/.wh...\n"))
    assert done.status == 1
    assert "d/.wh...: no layer can hold this name\n" in done.err


@needs_sandbox
def test_a_path_that_is_too_long_for_a_layer_is_named(cli: Cli, tmp_path: Path) -> None:
    """A command can make one out of two."""
    half = "/".join(["n" * 250] * 9)
    line = f"RUN mkdir -p /top/{half} /b/{half} && touch /b/{half}/f && mv /b /top/{half}\n"
    done = cli("build", busybox_context(tmp_path / "context", line))
    assert done.status == 1
    assert "error: Dockerfile:4: /top/nnnn" in done.err
    assert "longer than a path may be" in done.err
    assert "help: remove it in the same RUN" in done.err
    assert str(tmp_path) not in done.err
