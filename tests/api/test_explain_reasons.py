"""Why a step ran: testdata/explain has a table of ways to invalidate a step, each with the exact reason.

A case is built, changed, and built again; each step that ran must say why, and no other step may run. The same table is
used with a local cache and with one that another store left behind.
"""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.builds import Cli, Done, busybox_context, context, obstacle
from tests.support.registry import FakeRegistry

TABLES = sorted((Path(__file__).parents[2] / "testdata/explain").glob("*.toml"))
CASES = {f"{table.stem}: {case['name']}": case for table in TABLES for case in tomllib.loads(table.read_text())["case"]}
REMOTE = {name: case for name, case in CASES.items() if not case.get("local")}
BASE = "explain-base:1"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that has the base of the cases that run commands, to be copied."""
    directory = tmp_path_factory.mktemp("explain")
    if not obstacle():
        Cli(directory / "store").build("-t", BASE, busybox_context(directory / "base", "FROM base\n"))
        shutil.rmtree(directory / "store/builds")
    return directory / "store"


def prepare(directory: Path, case: Mapping[str, Any]) -> None:
    """Put into the context what a case says, or what is to be changed in it."""
    if "dockerfile" in case:
        (directory / "Dockerfile").write_text(case["dockerfile"])
    for name, text in case.get("files", {}).items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    for name in case.get("remove", ()):
        (directory / name).unlink()
    for name, target in case.get("links", {}).items():
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(target)
    for name, mode in case.get("chmod", {}).items():
        (directory / name).chmod(mode)
    for name in case.get("touch", ()):
        os.utime(directory / name, (1_000_000_000, 1_000_000_000))


def make_images(cli: Cli, directory: Path, case: Mapping[str, Any]) -> None:
    """Build the images that a case starts from."""
    for name, image in case.get("images", {}).items():
        where = directory / "images" / name.replace(":", "-")
        shutil.rmtree(where, ignore_errors=True)
        context(where, f"FROM {image.get('from', 'scratch')}\nCOPY files /\n")
        prepare(where / "files", {})
        (where / "files").mkdir()
        prepare(where / "files", {key: value for key, value in image.items() if key != "from"})
        cli.build("-t", name, where)


def run(cli: Cli, directory: Path, options: list[str], *, fails: bool = False) -> Done:
    given = [option.replace("@", str(directory)) for option in options]
    done = cli("build", "--progress", "rawjson", *given, directory)
    assert (done.status == 0) is not fails, done.err
    return done


def outcomes(done: Done) -> tuple[dict[str, str | None], set[str]]:
    """The steps that ran with their reasons, and the cached ones, by their instructions."""
    ran: dict[str, str | None] = {}
    cached: set[str] = set()
    missed: dict[str, str | None] = {}
    for line in done.err.splitlines():
        for vertex in json.loads(line).get("vertexes", ()):
            reason = vertex["reason"]["text"] if "reason" in vertex else None
            if "completed" not in vertex:
                missed[vertex.get("step", "")] = reason
            if "completed" not in vertex or not vertex["name"].startswith("[") or not vertex.get("step", "").isdigit():
                continue
            instruction = vertex["name"].partition("] ")[2]
            if vertex.get("cached"):
                cached.add(instruction)
                assert reason is None
            else:
                ran[instruction] = reason
                assert missed.get(vertex["step"]) == reason, "what came before and at the end must agree"
    return ran, cached


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_local_cache(case: Mapping[str, Any], shared: Path, tmp_path: Path) -> None:
    if case.get("sandbox") and obstacle():
        pytest.skip(obstacle())
    if case.get("sandbox"):
        shutil.copytree(shared, tmp_path / "store", symlinks=True)
    cli = Cli(tmp_path / "store")
    directory = context(tmp_path / "context", "")
    prepare(directory, case)
    make_images(cli, tmp_path, case)
    then = case.get("then", {})
    options = case.get("options", [])
    shown = ""
    if not case.get("first"):
        shown = run(cli, directory, options, fails=case.get("fails", False)).err
    prepare(directory, then)
    make_images(cli, tmp_path, then)
    if then.get("prune"):
        assert cli("rmi", "-f", *cli.entries()).status == 0
        assert cli("prune", "-a", "-f").status == 0
    if then.get("lose_blobs"):
        lose_layers(cli)
    done = run(cli, directory, then.get("options", options))
    ran, _ = outcomes(done)
    assert ran == case["ran"]
    for secret in case.get("never", ()):
        records = b"".join(path.read_bytes() for path in (cli.root / "builds").glob("*.json"))
        database = b"".join(path.read_bytes() for path in cli.root.glob("cache.db*"))
        explained = cli("explain", "--format", "json").out + cli("explain").out
        for step in case["ran"]:
            explained += cli("explain", step).out + cli("explain", step, "--format", "json").out
        for text in (shown.encode(), done.err.encode(), records, explained):
            assert secret.encode() not in text
        assert secret.encode() not in database


def lose_layers(cli: Cli) -> None:
    """Remove the blobs of all layers, as a careless hand would."""
    for name in cli.entries():
        for layer in json.loads(cli.blob(cli.entries()[name]["digest"]))["layers"]:
            (cli.root / "blobs" / layer["digest"].replace(":", "/")).unlink()


@pytest.mark.parametrize("case", REMOTE.values(), ids=REMOTE)
def test_a_remote_cache(case: Mapping[str, Any], shared: Path, tmp_path: Path) -> None:
    """The first build's cache is all that the second one's machine has, beside the images that builds start from."""
    if case.get("sandbox") and obstacle():
        pytest.skip(obstacle())
    there, here = Cli(tmp_path / "there"), Cli(tmp_path / "here")
    if case.get("sandbox"):
        for cli in (there, here):
            shutil.copytree(shared, cli.root, symlinks=True)
    directory = context(tmp_path / "context", "")
    prepare(directory, case)
    make_images(there, tmp_path, case)
    then = case.get("then", {})
    options = case.get("options", [])
    if not case.get("first"):
        run(there, directory, [*options, "--cache-to", f"type=local,dest={tmp_path}/cache,mode=max"])
    prepare(directory, then)
    make_images(here, tmp_path, {"images": {**case.get("images", {}), **then.get("images", {})}})
    cache = [] if case.get("first") else ["--cache-from", f"type=local,src={tmp_path}/cache"]
    done = run(here, directory, [*then.get("options", options), *cache])
    ran, _ = outcomes(done)
    assert ran == case["ran"]
    for secret in case.get("never", ()):
        blobs = [path.read_bytes() for path in (tmp_path / "cache/blobs/sha256").iterdir()]
        assert not any(secret.encode() in blob for blob in blobs if blob.startswith(b"{"))


def test_a_cache_that_is_not_named_again(tmp_path: Path) -> None:
    """What only a cache had is not kept here; that it is not there without it is no pruning."""
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a="1")
    run(Cli(tmp_path / "there"), directory, ["--cache-to", f"type=local,dest={tmp_path}/cache,mode=max"])
    here = Cli(tmp_path / "here")
    assert outcomes(run(here, directory, ["--cache-from", f"type=local,src={tmp_path}/cache"])) == ({}, {"COPY a /"})
    ran, _ = outcomes(run(here, directory, []))
    assert ran == {"COPY a /": "last time its result came from another cache"}
    explained = here("explain", "COPY").out.decode()
    assert "because last time its result came from another cache" in explained


def test_a_cache_that_tells_nothing_of_its_builds(tmp_path: Path) -> None:
    """Whether a step ran before cannot be known then, nor why it is not found now: no reason is given, not even that it
    is the first time."""
    dockerfile = "FROM scratch\nCOPY a /\nCOPY b /\n"
    directory = context(tmp_path / "context", dockerfile, a="1", b="1")
    here = Cli(tmp_path / "here")
    with FakeRegistry() as registry:
        name = f"{registry.host}/app:1"
        run(Cli(tmp_path / "there"), directory, ["-t", name, "--push", "--cache-to", "type=inline"])
        (directory / "a").write_text("2")
        done = run(here, directory, ["--cache-from", name])
        assert outcomes(done) == ({"COPY a /": None}, {"COPY b /"})
        (directory / "a").write_text("3")  # now an earlier build of this machine is known
        assert outcomes(run(here, directory, ["--cache-from", name]))[0] == {"COPY a /": "a changed"}
