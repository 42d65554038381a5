"""`builder pin` against a registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builds import Cli
from tests.support.registry import FakeRegistry


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        registry.add_image("app", "1")
        yield registry


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "root")


def digest(registry: FakeRegistry, layer: bytes = b"layer") -> str:
    """The digest of `app:1` once it has this layer."""
    return str(registry.add_image("app", "1", layers=(layer,))["digest"])


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "Dockerfile"
    file.write_text(text)
    return file


def test_pin_check_update(cli: Cli, registry: FakeRegistry, tmp_path: Path) -> None:
    name = f"{registry.host}/app:1"
    file = write(tmp_path, f"ARG V=1\nFROM {name} AS x\nFROM {registry.host}/app:$V\n")
    assert cli("pin", "--check", tmp_path).status == 0

    first = digest(registry)
    done = cli("pin", tmp_path)
    assert done.status == 0, done.err
    assert file.read_text() == f"ARG V=1\nFROM {name}@{first} AS x\nFROM {registry.host}/app:$V\n"
    assert done.out.decode().splitlines() == [
        f"{file}:2: {name} → {name}@{first}",
        f"{file}:3: {registry.host}/app:$V (by default {name}): left as it is, because the name depends on a build"
        " argument; pin it in the argument's value",
    ]
    assert cli("pin", "--check", tmp_path).status == 0

    second = digest(registry, b"newer")
    done = cli("pin", "--check", tmp_path)
    assert done.status == 1
    assert f"{file}:2: outdated: {name} is {second} now\n" in done.out.decode()
    assert cli("pin", tmp_path).out.decode().startswith(f"{file}:2: {name}@{first} is outdated; --update moves it")
    assert first in file.read_text()

    done = cli("pin", "--update", "--dry-run", tmp_path)
    assert done.status == 0
    assert f"\n-FROM {name}@{first} AS x\n+FROM {name}@{second} AS x\n" in done.out.decode()
    assert first in file.read_text()

    assert cli("pin", "--update", "-f", file, tmp_path / "elsewhere").status == 0
    assert file.read_text() == f"ARG V=1\nFROM {name}@{second} AS x\nFROM {registry.host}/app:$V\n"


def test_an_index_is_pinned_as_a_whole(cli: Cli, registry: FakeRegistry, tmp_path: Path) -> None:
    members = [registry.add_image("multi", architecture=machine) for machine in ("amd64", "arm64")]
    index = registry.add_manifest(
        "multi",
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": members},
        "2",
    )
    file = write(tmp_path, f"FROM {registry.host}/multi:2")
    assert cli("pin", file).status == 0
    assert file.read_text() == f"FROM {registry.host}/multi:2@{index}"


def test_a_filter(cli: Cli, registry: FakeRegistry) -> None:
    text = f"FROM {registry.host}/app:1\n"
    done = cli("pin", "-f", "-", stdin=text.encode())
    assert done.status == 0
    assert done.out.decode() == text.replace("app:1", f"app:1@{digest(registry)}")
    assert done.err.startswith("Dockerfile:1: ")


def test_an_image_that_is_not_there(cli: Cli, registry: FakeRegistry, tmp_path: Path) -> None:
    file = write(tmp_path, f"FROM {registry.host}/app:1\nFROM {registry.host}/nothing\n")
    done = cli("pin", tmp_path)
    assert done.status == 1
    assert f"{file}:2: " in done.err
    assert "@" not in file.read_text()


@pytest.mark.parametrize("arguments", [("--check", "--update"), ("--check", "--dry-run")])
def test_wrong_usage(cli: Cli, arguments: tuple[str, ...]) -> None:
    assert cli("pin", *arguments).status == 2


def test_no_dockerfile(cli: Cli, tmp_path: Path) -> None:
    assert "there is no Dockerfile" in cli("pin", tmp_path).err


def test_nothing_to_pin(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path, "FROM scratch\n")
    assert cli("pin", file).out.decode() == f"{file}: names no image\n"
