"""`builder explain`: a build's steps with their reasons, and one step in full."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.builds import Cli, busybox_context, context, needs_sandbox, reading

DOCKERFILE = """\
FROM scratch AS build
COPY src /src
COPY other /
FROM scratch AS unused
COPY other /
FROM scratch
COPY --from=build /src/a /a
WORKDIR /w
"""


@pytest.fixture
def built(cli: Cli, tmp_path: Path) -> Path:
    """A context that was built twice, with a change between."""
    directory = context(tmp_path / "context", DOCKERFILE, src__a="1", src__b="1", other="o")
    cli.build("-t", "app:1", directory)
    (directory / "src/a").write_text("2")
    (directory / "src/a").chmod(0o755)
    (directory / "src/new").write_text("")
    cli.build("-t", "app:1", directory)
    return directory


def told(cli: Cli, *arguments: str) -> str:
    """What it says, without how long ago the builds were, which another call says otherwise."""
    return re.sub(r", [a-z0-9 ]+ ago", "", cli("explain", *arguments).out.decode())


def as_json(cli: Cli, *arguments: str) -> dict[str, Any]:
    done = cli("explain", *arguments, "--format", "json")
    assert done.status == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_a_build(cli: Cli, built: Path) -> None:
    done = cli("explain")
    assert done.status == 0, done.err
    lines = [line.split() for line in done.out.decode().splitlines()]
    assert lines[0][0] == "build"
    assert "done in" in done.out.decode()
    assert lines[1] == ["STEP", "OUTCOME", "TIME", "INSTRUCTION"]
    assert lines[2][:3] == ["build", "1/2", "ran"]
    assert lines[3] == "because src/a changed and 1 more file".split()
    assert lines[4] == "build 2/2 cached COPY other /".split()
    assert lines[5][:3] == ["stage-2", "1/2", "ran"]
    assert lines[6] == "because build:/src/a changed".split()
    assert lines[7] == "stage-2 2/2 cached WORKDIR /w".split()
    assert lines[8] == "unused not needed COPY other /".split()
    assert " ago: done in" in done.out.decode()
    assert told(cli) == told(cli, "app:1") == told(cli, "-1") == told(cli, "latest")
    assert cli("explain", "-2").out.startswith(b"build ")
    assert cli("explain", "-2").out != done.out
    assert cli("explain", "-2", ":2", "--format=json").out
    assert cli("explain", "-x").status == 2


def test_what_steps_start_from_is_no_step(cli: Cli, tmp_path: Path) -> None:
    tree = context(tmp_path / "context", "FROM base\nCOPY a /\n", a="1")
    named = context(tmp_path / "named", "", b="2")
    cli.build("--build-context", f"base={named}", tree)
    headline, *rows = cli("explain").out.decode().splitlines()
    assert headline.endswith(", 1 ran")
    assert [row.split()[:3] for row in rows if "stage-0" in row] == [["stage-0", "2/2", "ran"]]


def test_a_build_of_one_step_is_a_build(cli: Cli, tmp_path: Path) -> None:
    cli.build(context(tmp_path / "context", "FROM scratch\nLABEL a=b\n"))
    assert cli("explain").out.startswith(b"build ")
    assert "recipes" not in as_json(cli)["steps"][0]


def test_a_step_in_full(cli: Cli, built: Path) -> None:
    text = told(cli, "app:1", "build 1")
    assert text.startswith("[build 1/2] COPY src /src (line 2)\n")
    assert "which ran there" in text
    for line in (
        "src/a changed and 1 more file",
        "  src/a changed",
        "    then: file, mode 644, owner 0:0, sha256:6b86b273",
        "    now:  file, mode 755, owner 0:0, sha256:d4735e3a",
        "  src/new added",
        "  destination ",
        "≠ file src/a ",
        "≠ file src/new ",
        "  file src/b ",
    ):
        assert f"\n{line}" in text, text
    for name in ("build 1/2", "build:1", "Build:1", ":2", "src /src"):
        assert told(cli, "app:1", name) == text
    assert told(cli, "build 1") == text, "a step of the newest build needs no build"


def test_who_made_what_a_stage_gave(cli: Cli, built: Path) -> None:
    text = cli("explain", "stage-2 1").out.decode()
    assert "\n  [build 1/2] COPY src /src: ran in " in text
    assert "because src/a changed and 1 more file" in text


def test_json(cli: Cli, built: Path) -> None:
    whole = as_json(cli)
    assert [step["outcome"] for step in whole["steps"] if step["kind"] != "scratch"] == [
        "ran", "cached", "ran", "cached", "not needed",
    ]  # fmt: skip
    one = as_json(cli, "app:1", "build 1")
    (step,) = one["steps"]
    assert step["reason"] == {"kind": "files", "text": "src/a changed and 1 more file"}
    (difference,) = step["differences"]
    assert [(file["path"], file["change"], file.get("what")) for file in difference["files"]] == [
        ("src/a", "changed", ["content", "mode"]), ("src/new", "added", None),
    ]  # fmt: skip
    then, now = step["recipes"]["then"], step["recipes"]["now"]
    assert then["destination"] == now["destination"] == "/src"
    assert len(then["sources"][0][0]["items"]) == 3
    assert len(now["sources"][0][0]["items"]) == 4
    before = as_json(cli, step["compared_with"]["build"])
    assert [step["reason"]["text"] for step in before["steps"] if step["reason"]] == ["first build"] * 4


def test_what_cannot_be_explained(cli: Cli, built: Path) -> None:
    for arguments, message in (
        (["nosuch"], "there is no build 'nosuch'"),
        (["app:1", "nosuch"], "has no step 'nosuch'"),
        (["99"], "has no step '99'"),
        (["app:1", "COPY"], "means several steps"),
    ):
        done = cli("explain", *arguments)
        assert done.status in (1, 2)
        assert message in done.err
        assert "help: " in done.err
    assert cli("explain", "--format", "yaml").status == 2
    empty = Cli(built.parent / "empty")("explain")
    assert (empty.status, "no build is recorded" in empty.err) == (1, True)


@needs_sandbox
def test_a_failed_build_is_recorded_with_its_whole_log(cli: Cli, tmp_path: Path) -> None:
    lines = 3000
    script = f"i=0; while test $i -lt {lines}; do echo line $i; i=$((i+1)); done; exit 3"
    directory = busybox_context(tmp_path / "context", f"RUN {script}\nRUN echo never\n")
    assert cli("build", "--progress", "plain", directory).status == 1
    found = as_json(cli)
    assert found["outcome"] == "failed"
    assert "status 3" in found["error"]
    assert [step["outcome"] for step in found["steps"][1:]] == ["ran", "failed", "not started"]
    (log,) = cli.root.glob("builds/*/*.log")
    assert log.read_text() == "".join(f"line {n}\n" for n in range(lines))
    assert "failed in" in cli("explain").out.decode()


@needs_sandbox
def test_an_interrupted_build_is_recorded_and_a_killed_one_leaves_nothing_broken(cli: Cli, tmp_path: Path) -> None:
    directory = busybox_context(tmp_path / "context", "RUN echo beg'un'; sleep 30\n")
    with reading(cli.start("build", "--progress", "plain", directory)) as log:
        log.wait_for("begun")
        log.process.send_signal(signal.SIGINT)
        log.process.wait(30)
    found = as_json(cli)
    assert (found["outcome"], found["steps"][-1]["outcome"]) == ("interrupted", "stopped")
    with reading(cli.start("build", "--progress", "plain", directory)) as log:
        assert "because was interrupted last time" in log.wait_for("interrupted last time")
        log.wait_for("begun")
        log.process.kill()
        log.process.wait(30)
    assert as_json(cli)["build"] == found["build"], "there is no record of the killed one"
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY base/bin /\n")
    assert cli.build(directory).status == 0


def test_the_record_tells_no_secrets(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nARG PASSWORD\nCOPY a /$PASSWORD\n", a="a")
    for value in ("hunter2", "hunter3"):
        cli.build("--build-arg", f"PASSWORD={value}", directory)
    text = cli("explain", "COPY").out.decode() + cli("explain", "COPY", "--format", "json").out.decode()
    assert "ARG PASSWORD changed" in text
    assert "hunter" not in text
    assert not any(b"hunter" in path.read_bytes() for path in cli.root.glob("builds/*.json"))
    assert not any(b"hunter" in path.read_bytes() for path in cli.root.glob("cache.db*"))
