"""`builder plan`: what a build would do, with nothing done."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.solver.support import write
from tests.support.archives import archive
from tests.support.builds import Cli, busybox_context, context, needs_sandbox
from tests.support.registry import FakeRegistry

SECRET = "Tr0ub4dor-and-3-horses"
STAGES = (
    "FROM scratch AS one\nCOPY a /\nFROM scratch AS unused\nCOPY b /\nFROM scratch\nCOPY b /\nCOPY --from=one /a /\n"
)


def plan(cli: Cli, *arguments: str | Path, status: int = 0, environ: dict[str, str] | None = None) -> dict[str, Any]:
    done = cli("plan", "--format", "json", *arguments, environ=environ)
    assert done.status == status, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def outcomes(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(step["position"], step["outcome"]) for step in found["steps"]]


def everything(root: Path) -> dict[str, bytes]:
    """What a store holds, but for its database and locks."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith("cache.db") and "leases" not in path.parts
    }


def test_before_between_and_after(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", STAGES, a="1", b="1")
    found = plan(cli, directory)
    assert outcomes(found) == [
        ("one 1/1", "runs"), ("stage-2 1/2", "runs"), ("stage-2 2/2", "unknown"), ("unused", "not needed"),
    ]  # fmt: skip
    assert found["steps"][0]["reason"]["text"] == "first build"
    assert found["steps"][2]["depends_on"] == "stage-2 1/2"
    cli.build("-t", "x", directory)
    before = everything(cli.root)
    found = plan(cli, directory)
    assert outcomes(found)[:3] == [("one 1/1", "cached"), ("stage-2 1/2", "cached"), ("stage-2 2/2", "cached")]
    assert (found["would_run"], found["pull"]) == (False, {"size": 0, "blobs": []})
    (directory / "b").write_text("2")
    (directory / "a").touch()
    found = plan(cli, "--exit-code", directory, status=3)
    assert outcomes(found)[:3] == [("one 1/1", "cached"), ("stage-2 1/2", "runs"), ("stage-2 2/2", "unknown")]
    assert found["steps"][1]["reason"] == {"kind": "files", "text": "b changed"}
    assert everything(cli.root) == before, "nothing is built, named, unpacked or recorded"
    assert plan(cli, "--exit-code", "--target", "one", directory)["counts"] == {
        "cached": 1, "runs": 0, "unknown": 0, "not needed": 3,
    }  # fmt: skip


def test_it_says_what_the_build_then_does(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", STAGES, a="1", b="1")
    cli.build(directory)
    for change in ("a", "b"):
        (directory / change).write_text("2")
        found = plan(cli, directory)
        done = cli.build("--progress", "rawjson", directory)
        told = [vertex for line in done.err.splitlines() for vertex in json.loads(line).get("vertexes", ())]
        built = {vertex.get("step"): vertex for vertex in told if "completed" in vertex}
        for step in found["steps"]:
            if step["outcome"] == "cached":
                assert built[step["step"]].get("cached")
            if step["outcome"] == "runs":
                assert not built[step["step"]].get("cached")
                assert built[step["step"]]["reason"]["text"] == step["reason"]["text"]


def test_text(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", STAGES, a="1", b="1")
    done = cli("plan", directory)
    assert done.status == 0
    assert done.out.decode() == cli("build", "--dry-run", directory).out.decode()
    assert [" ".join(line.split()) for line in done.out.decode().splitlines()] == [
        "STEP OUTCOME INSTRUCTION",
        "one 1/1 runs COPY a /",
        "because first build",
        "stage-2 1/2 runs COPY b /",
        "because first build",
        "stage-2 2/2 unknown COPY --from=one /a /",
        "depends on step stage-2 1/2",
        "unused not needed COPY b /",
        "2 would run, 1 unknown, 1 not needed",
    ]


def test_options_count(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nARG V=1\nCOPY a$V /\n", a1="1", a2="2")
    cli.build(directory)
    found = plan(cli, "--build-arg", "V=2", directory)
    assert found["steps"][0]["reason"]["text"] == "ARG V: 1 → 2"
    assert plan(cli, "--no-cache", directory)["steps"][0]["reason"] == {"kind": "no-cache", "text": "--no-cache"}
    failed = cli("plan", "--target", "nosuch", directory)
    assert failed.status == 1
    assert "nosuch" in failed.err
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY missing /\n")
    failed = cli("plan", directory)
    assert failed.status == 1
    assert "missing" in failed.err


@needs_sandbox
def test_what_is_not_mounted_of_a_stage_makes_no_command_run(cli: Cli, tmp_path: Path) -> None:
    """Nor does a plan say so; what is mounted is compared file by file where the stage is another."""
    stages = "FROM scratch AS data\nCOPY out /out\nCOPY other /other\nFROM base\n"
    mount = "RUN --mount=from=data,src=/out,target=/m cat /m/f > /got\n"
    directory = write(busybox_context(tmp_path / "context", stages + mount), {"out/f": "1", "other": "1"})
    cli.build("-t", "x", directory)
    for changed, outcome, got in (("other", "cached", b"1"), ("out/f", "runs", b"2")):
        (directory / changed).write_text("2")
        cli.build("--target", "data", directory)
        assert outcomes(plan(cli, directory))[-1][1] == outcome
        steps = len(outcomes(plan(cli, directory)))
        assert cli.build("-t", "x", directory).cached() == steps - (outcome == "runs")
        assert cli.files("x")["got"].content == got
        assert {outcome for _, outcome in outcomes(plan(cli, directory))} == {"cached"}


@needs_sandbox
def test_commands(cli: Cli, tmp_path: Path) -> None:
    """A step that stands on what has to run first is not known to run: it may make what it made before."""
    directory = busybox_context(
        tmp_path / "context",
        "WORKDIR /w\nRUN --mount=source=in,target=/in cat /in > /dev/null\nCOPY a /w/\nRUN cat a\n",
    )
    (directory / "in").write_text("1")
    (directory / "a").write_text("1")
    cli.build(directory)
    assert set(dict(outcomes(plan(cli, directory))).values()) == {"cached"}
    (directory / "in").write_text("2")
    found = plan(cli, directory)
    assert [outcome for _, outcome in outcomes(found)] == ["cached", "cached", "runs", "unknown", "unknown"]
    assert found["steps"][2]["reason"]["text"] == "mount source changed: in changed"
    assert {step["depends_on"] for step in found["steps"][3:]} == {"base 3/5"}
    done = cli("plan", "--secret", "id=x,src=/nonexistent", directory)
    assert done.status == 0, "a secret that cannot be read is left to the step that needs it"
    (directory / "Dockerfile").write_text("FROM scratch\nRUN --mount=type=secret,id=x,required=true true\n")
    assert "is required" in cli("plan", directory).err


def test_what_would_be_pulled(cli: Cli, tmp_path: Path) -> None:
    layer = archive(("etc/passwd", {"data": b"app:x:5:6:::\n"}))
    with FakeRegistry() as registry:
        registry.add_image("base", "1", layers=(layer,))
        dockerfile = f"FROM {registry.host}/base:1\nCOPY --chown=app a /\nWORKDIR /w\n"
        directory = context(tmp_path / "context", dockerfile, a="1")
        found = plan(cli, directory)
        assert outcomes(found)[0][1] == "unknown"
        assert found["steps"][0]["unseen"]
        assert found["pull"]["size"] == len(layer)
        assert [blob["size"] for blob in found["pull"]["blobs"]] == [len(layer)]
        assert registry.count("GET .*/blobs/") == 1, "the configuration, and no layer"
        assert "to pull, at most: " in cli("plan", directory).out.decode()
        cli.build(directory)
        assert plan(cli, directory)["pull"]["size"] == 0
        os.utime(directory / "a", (1, 1))
        assert not plan(cli, directory)["would_run"]


def test_a_cache_elsewhere_is_looked_up_too(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", STAGES, a="1", b="1")
    cli.build("--cache-to", f"type=local,dest={tmp_path}/cache,mode=max", directory)
    here = Cli(tmp_path / "here")
    (directory / "b").write_text("2")
    found = plan(here, "--cache-from", f"type=local,src={tmp_path}/cache", directory)
    assert [outcome for _, outcome in outcomes(found)][:3] == ["cached", "runs", "unknown"]
    assert found["steps"][1]["reason"]["text"] == "b changed"


# --- what the build would refuse


def refused(cli: Cli, *arguments: str | Path, status: int = 1) -> str:
    """The error with which both a plan and the build end, and that is all that they say."""
    planned = cli("plan", "--format", "json", *arguments)
    built = cli("build", "-q", *arguments)
    assert (planned.status, built.status) == (status, status), planned.out.decode() + planned.err + built.err
    assert planned.out == b""
    assert planned.err == built.err
    assert SECRET not in planned.err
    return planned.err


def test_secrets_are_looked_for(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nARG V=a\nCOPY $V /\n", a="1")
    (tmp_path / "secret").write_text(SECRET)
    secret = ("--secret", f"id=k,src={tmp_path}/secret")
    (directory / SECRET).write_text("2")
    cli.build("--build-arg", "V=a", directory)
    assert "the value of secret 'k'" in refused(cli, *secret, "--build-arg", f"V={SECRET}", directory)
    assert "the annotations" in refused(cli, *secret, "--annotation", f"a={SECRET}", directory)
    assert "the configuration" in refused(cli, *secret, "--label", f"a={SECRET}", directory)
    assert refused(cli, *secret, "--target", SECRET, directory).startswith("error: target stage '***' was not found\n")
    (directory / "Dockerfile").write_text(f"FROM scratch\n# {SECRET}\nCOPY a /\n")
    assert "error: Dockerfile:2: the Dockerfile holds the value of secret 'k'" in refused(cli, *secret, directory)


def test_secrets_of_earlier_builds_are_masked(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nARG V\nCOPY $V /\n", a="1", **{SECRET: "2"})
    (tmp_path / "secret").write_text(SECRET)
    cli.build("--build-arg", f"V={SECRET}", directory)
    found = plan(cli, "--secret", f"id=k,src={tmp_path}/secret", "--build-arg", "V=a", directory)
    assert found["steps"][0]["reason"]["text"] == "ARG V: *** → a"
    (tmp_path / "secret").write_text("ab")
    done = cli("plan", "--secret", f"id=k,src={tmp_path}/secret", "--build-arg", "V=a", directory)
    assert "the value of secret 'k' is too short to be searched for" in done.err


def test_options_that_no_build_takes(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a="1")
    docker = ("--output", f"type=docker,dest={tmp_path}/x.tar")
    assert "which attestations need" in refused(cli, "--provenance=true", *docker, directory, status=2)
    stop = ("--on-error=keep", "--break", "nosuch")
    assert "the build has no such step" in refused(cli, *stop, directory, status=2)
    assert "needs the network" in refused(cli, "--offline", "--pull", directory, status=2)


# --- offline


@needs_sandbox
@pytest.mark.parametrize("first", [(), ("--offline",)])
def test_offline(cli: Cli, tmp_path: Path, first: tuple[str, ...]) -> None:
    """A result that was made without a network serves a build without one, and not one that has it."""
    directory = busybox_context(tmp_path / "context", "RUN true\n")
    cli.build(*first, directory)
    for now in ((), ("--offline",)):
        cached = not (first and not now)
        assert dict(outcomes(plan(cli, *now, directory)))["base 2/2"] == ("cached" if cached else "runs")
    assert cli.build("--offline", directory).cached() == 2
