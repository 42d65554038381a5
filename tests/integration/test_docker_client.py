"""Docker as a client: of registries that we pushed to, of archives that we saved, and we of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builds import Cli, context
from tests.support.docker_daemon import docker_daemon
from tests.support.docker_registry import docker_registry, needs_docker_registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), needs_docker_registry]

DOCKERFILE = 'FROM scratch\nCOPY a /dir/a\nCOPY b /b\nLABEL x=y\nENV K=v\nCMD ["/b"]\n'


@pytest.fixture(scope="module")
def docker() -> Iterator[list[str]]:
    with docker_daemon() as command:
        yield command


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    made = Cli(tmp_path / "store", BUILDER_CONFIG=os.devnull)
    files = {"a": os.urandom(200_000), "b": b"B" * 9000}
    made.build("-t", "team/app:1", context(tmp_path / "context", DOCKERFILE, **files))
    return made


@pytest.fixture
def other(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "other", BUILDER_CONFIG=os.devnull)


def run(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def image_id(cli: Cli, name: str) -> str:
    """The digest of the configuration, which names every layer's content."""
    done = cli("inspect", "--format", "{{.Id}}", name)
    assert done.status == 0, done.err
    return done.out.decode().strip()


def test_through_a_registry_and_back(docker: list[str], cli: Cli, other: Cli, tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry") as host:
        ours, theirs = f"{host}/team/app:1", f"{host}/team/again:2"
        assert cli("tag", "team/app:1", ours).status == 0
        assert cli("push", ours).status == 0
        run(*docker, "pull", ours)
        (found,) = json.loads(run(*docker, "image", "inspect", ours))
        assert found["Id"] == image_id(cli, ours)
        assert found["Config"]["Env"][-1] == "K=v"
        run(*docker, "tag", ours, theirs)
        run(*docker, "push", theirs)
        assert other("pull", theirs).status == 0
        assert image_id(other, theirs) == image_id(cli, ours)
        run(*docker, "rmi", ours, theirs)


def test_through_archives_and_back(docker: list[str], cli: Cli, other: Cli, tmp_path: Path) -> None:
    (tmp_path / "ours.tar").write_bytes(cli("save", "team/app:1").out)
    run(*docker, "load", "-i", tmp_path / "ours.tar")
    run(*docker, "save", "-o", tmp_path / "theirs.tar", "team/app:1")
    assert other("load", "-i", tmp_path / "theirs.tar").status == 0
    assert image_id(other, "team/app:1") == image_id(cli, "team/app:1")
    run(*docker, "rmi", "team/app:1")
