"""Options that a variable of the environment gives where the command line does not."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from builder.oci.platform import host_platform
from tests.support.archives import archive
from tests.support.builds import Cli, context

PLATFORM, PROGRESS = "DOCKER_DEFAULT_PLATFORM", "BUILDKIT_PROGRESS"
ARM, POWER = {PLATFORM: "linux/arm64"}, {PLATFORM: "linux/ppc64le,linux/s390x"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    lines = "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY a /$TARGETARCH\n"
    return context(tmp_path / "context", lines, a="a")


def test_the_platform_of_a_build(cli: Cli, directory: Path) -> None:
    cli.build("-t", "x", directory, environ=ARM)
    assert cli.config("x")["architecture"] == "arm64"
    cli.build("-t", "x", directory, environ=POWER)
    found = json.loads(cli.blob(cli.entries()["docker.io/library/x:latest"]["digest"]))["manifests"]
    assert [entry["platform"]["architecture"] for entry in found] == ["ppc64le", "s390x"]


def test_the_command_line_wins(cli: Cli, directory: Path) -> None:
    for environ in (ARM, {PLATFORM: "toaster"}):
        cli.build("-t", "x", "--platform", "linux/riscv64", directory, environ=environ)
        assert cli.config("x")["architecture"] == "riscv64"
    cli.build("-t", "x", directory, environ={PLATFORM: "", PROGRESS: ""})
    assert cli.config("x")["architecture"] == host_platform().architecture


def test_what_shares_the_options_of_a_build(cli: Cli, directory: Path) -> None:
    cli.build(directory, environ=ARM)
    for command in (("plan",), ("build", "--dry-run")):
        assert b"1 cached" in cli(*command, directory, environ=ARM).out
        assert b"1 would run" in cli(*command, directory).out
    (directory / "Dockerfile").write_text("ARG TARGETARCH\nFROM base-$TARGETARCH\n")
    graph = cli("graph", "--format", "dot", directory, environ=ARM)
    assert b"base-arm64" in graph.out


def test_the_platform_of_what_is_run(cli: Cli, directory: Path) -> None:
    cli.build("-t", "x", "--platform", "linux/riscv64", directory)
    for command in ("run", "shell"):
        done = cli(command, "--pull=never", "x", "true", environ=ARM)
        assert done.status == 125
        assert "linux/arm64" in done.err


def test_the_platform_of_what_is_imported(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(archive(("a", {"data": b"a"})))
    assert cli("import", tmp_path / "x.tar", "x", environ=ARM).status == 0
    assert cli.config("x")["architecture"] == "arm64"


def test_the_progress_of_a_build(cli: Cli, directory: Path) -> None:
    done = cli("build", directory, environ={PROGRESS: "rawjson"})
    assert [line for line in map(json.loads, done.err.splitlines()) if line.get("vertexes")]
    assert "#1 " in cli("build", "--progress", "plain", directory, environ={PROGRESS: "rawjson"}).err
    quiet = cli("build", "-q", directory, environ={PROGRESS: "rawjson"})
    assert (quiet.err, quiet.out[:7]) == ("", b"sha256:")


def test_a_quiet_build(cli: Cli, directory: Path) -> None:
    """As in buildx the option is `-q`, the variable only the view."""
    asked = cli("build", "-q", directory)
    assert (asked.err, asked.out[:7]) == ("", b"sha256:")
    for options in (
        ["--progress=quiet"],
        ["-q", "--progress=quiet"],
        ["-q", "--progress=none"],
        ["-q", "--progress=auto"],
    ):
        assert cli("build", *options, directory) == asked
    assert cli("build", "-q", directory, environ={PROGRESS: "quiet"}) == asked
    assert cli("build", "--progress=none", directory) == (0, b"", "")
    assert cli("build", directory, environ={PROGRESS: "quiet"}) == (0, b"", "")


@pytest.mark.parametrize("mode", ["plain", "tty", "rawjson"])
def test_a_quiet_build_has_no_view(cli: Cli, directory: Path, mode: str) -> None:
    done = cli("build", "-q", f"--progress={mode}", directory)
    assert (done.status, done.out) == (2, b"")
    assert f"--progress={mode} and --quiet exclude each other" in done.err


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["build", "."], 2), (["plan", "."], 2), (["graph", "."], 2), (["run", "x"], 125), (["shell", "x"], 125),
        (["pull", "x"], 2), (["import", "x"], 2),
    ],
)  # fmt: skip
def test_an_error_names_the_variable(cli: Cli, arguments: list[str], status: int) -> None:
    done = cli(*arguments, environ={PLATFORM: "toaster"})
    assert done.status == status
    assert done.err == (
        "error: $DOCKER_DEFAULT_PLATFORM: invalid platform 'toaster': unknown operating system or architecture\n"
        "help: write for example linux/amd64, linux/arm64 or linux/arm/v7\n"
    )


@pytest.mark.parametrize("arguments", [["build", "."], ["plan", "."], ["imagetools", "create", "-t", "x", "y"]])
def test_an_unknown_progress(cli: Cli, arguments: list[str]) -> None:
    done = cli(*arguments, environ={PROGRESS: "fancy"})
    assert done.status == 2
    assert done.err.startswith("error: $BUILDKIT_PROGRESS: unknown progress mode 'fancy'\nhelp: choose one of auto, ")


def test_help_needs_no_variable(cli: Cli) -> None:
    assert cli("build", "--help", environ={PLATFORM: "toaster", PROGRESS: "fancy"}).status == 0


def test_repeated_builds(cli: Cli, directory: Path) -> None:
    """What the variables say is part of the question."""
    time.sleep(2.1)
    for _ in range(3):
        assert cli.spawn("build", "-t", "x", directory, environ=ARM).status == 0
        assert cli.config("x")["architecture"] == "arm64"
        assert cli.spawn("build", "-t", "x", directory).status == 0
        assert cli.config("x")["architecture"] == host_platform().architecture
    assert len(list((cli.root / "repeats").glob("*.given"))) == 2
