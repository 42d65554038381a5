"""Caches that lie or are damaged: what is wrong in them is not used, and the build goes on without."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.builds import Cli, needs_sandbox
from tests.support.external_cache import Machine, base_layer, blob_of, make_context, no_configuration, ran, tamper
from tests.support.registry import FakeRegistry

pytestmark = needs_sandbox


def _swap_layers(manifest: dict[str, Any], document: dict[str, Any]) -> None:
    """Every blob claims to be another layer."""
    manifest["layers"] = manifest["layers"][1:] + manifest["layers"][:1]


def _lie_about_the_version(manifest: dict[str, Any], document: dict[str, Any]) -> None:
    document["version"] = 2


def _absurd_time(manifest: dict[str, Any], document: dict[str, Any]) -> None:
    document["records"][0]["created"] = 1e300


def _absurd_diff_id(manifest: dict[str, Any], document: dict[str, Any]) -> None:
    document["records"][0]["diff_id"] = "sha256:../../../etc/passwd"


def _too_few_layers(manifest: dict[str, Any], document: dict[str, Any]) -> None:
    manifest["layers"].pop()


def _absurd_digest(manifest: dict[str, Any], document: dict[str, Any]) -> None:
    manifest["layers"][0]["digest"] = "md5:0"


def _path_for_a_digest(manifest: dict[str, Any], document: dict[str, Any]) -> None:
    manifest["layers"][0]["digest"] = "sha256:../../x"


def _layer_larger_than_all(manifest: dict[str, Any], document: dict[str, Any]) -> None:
    manifest["layers"][0]["size"] = 1 << 63


def _absurd_size(manifest: dict[str, Any], document: dict[str, Any]) -> None:
    manifest["config"]["size"] = 1 << 60


@pytest.fixture(scope="module")
def scratch_cache(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A context, a cache of it, and its steps. It needs no base image."""
    directory = tmp_path_factory.mktemp("cached")
    dockerfile = "FROM {base}\nCOPY src/a /\nCOPY src/b /\nWORKDIR /w\n"
    context = make_context(directory / "context", "scratch", dockerfile)
    no_configuration(directory)
    first = Cli(directory / "root").build("-t", "app", "--cache-to", f"type=local,dest={directory}/cache", context)
    return context, directory / "cache", ran(first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_lie_about_the_version, "of version 2, and this builder reads version 1"),
        (_absurd_time, "a record that makes no sense"),
        (_absurd_diff_id, "a record that makes no sense"),
        (_too_few_layers, "its manifest has 2 blobs"),
        (_absurd_digest, "a blob that cannot be"),
        (_path_for_a_digest, "a blob that cannot be"),
        (_layer_larger_than_all, "a blob that cannot be"),
    ],
)
def test_a_forged_document_is_left_out(
    change: Callable[[dict[str, Any], dict[str, Any]], None],
    message: str,
    scratch_cache: tuple[Path, Path, list[str]],
    machine: Machine,
    tmp_path: Path,
) -> None:
    context, original, steps = scratch_cache
    cache = tmp_path / "cache"
    shutil.copytree(original, cache)
    tamper(cache, change)
    cli = machine("second")
    done = cli.build("-t", "app", "--cache-from", f"type=local,src={cache}", context)
    assert message in done.err
    assert ran(done) == steps
    assert cli.files("app")["a"].content == b"a"


def test_a_document_is_not_what_it_says(
    scratch_cache: tuple[Path, Path, list[str]], machine: Machine, tmp_path: Path
) -> None:
    context, original, steps = scratch_cache
    for number, end in enumerate((-1, -40, 0)):
        cache = tmp_path / f"cache{number}"
        shutil.copytree(original, cache)
        index = json.loads((cache / "index.json").read_text())
        path = blob_of(cache, index["manifests"][0]["digest"])
        path.write_bytes(path.read_bytes()[:end])
        done = machine(f"second{number}").build("--cache-from", f"type=local,src={cache}", context)
        assert "is damaged" in done.err
        assert ran(done) == steps


@pytest.mark.parametrize("damage", ["swapped", "truncated", "missing", "other bytes"])
def test_a_layer_that_is_not_what_it_says(
    damage: str, scratch_cache: tuple[Path, Path, list[str]], machine: Machine, tmp_path: Path
) -> None:
    """The step is run after all, and nothing of the wrong blob is kept."""
    context, original, steps = scratch_cache
    cache = tmp_path / "cache"
    shutil.copytree(original, cache)
    index = json.loads((cache / "index.json").read_text())
    manifest = json.loads(blob_of(cache, index["manifests"][0]["digest"]).read_text())
    if damage == "swapped":
        tamper(cache, _swap_layers)
    for layer in manifest["layers"]:
        path = blob_of(cache, layer["digest"])
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:-5])
        elif damage == "missing":
            path.unlink()
        elif damage == "other bytes":
            path.write_bytes(path.read_bytes()[:-5] + b"other")
    cli = machine("second")
    done = cli.build("-t", "app", "--cache-from", f"type=local,src={cache}", context)
    assert ran(done) == steps
    assert "that no cache has" in done.err
    assert {name: entry.content for name, entry in cli.files("app").items()} == {"a": b"a", "b": b"b", "w": None}
    assert ran(cli.build("-t", "app", context)) == []
    assert cli.leftovers() == []


def test_a_lying_cache_cannot_give_another_image_s_layer(
    registry: FakeRegistry, machine: Machine, tmp_path: Path
) -> None:
    """A record may claim any diff ID; the bytes of a base image's layer still come from the base image."""
    dockerfile = "FROM {base}\nCOPY src/a /\n"
    directory = make_context(tmp_path / "context", f"{registry.host}/base:1", dockerfile)
    machine("first").build("-t", "app", "--cache-to", f"type=local,dest={tmp_path}/cache", directory)

    def claim(manifest: dict[str, Any], document: dict[str, Any]) -> None:
        document["layers"] = [base_layer()]
        for record in document["records"]:
            record["diff_id"] = base_layer()

    tamper(tmp_path / "cache", claim)
    cli = machine("second")
    cli.build("-t", "app", "--cache-from", f"type=local,src={tmp_path}/cache", directory)
    assert [layer["digest"] for layer in cli.manifest("app")["layers"]] == [base_layer()] * 2


def test_a_lying_cache_cannot_pass_off_a_blob_that_is_here(
    registry: FakeRegistry, machine: Machine, tmp_path: Path
) -> None:
    """What a claim says of a blob that came for another reason is not believed either, in no later build."""
    directory = make_context(tmp_path / "context", "scratch", "FROM {base}\nCOPY src/a /\n")
    cli = machine("second")
    cli.build("-t", "app", "--cache-to", f"type=local,dest={tmp_path}/cache", directory)
    layers = cli.manifest("app")["layers"]

    def claim(manifest: dict[str, Any], document: dict[str, Any]) -> None:
        document["layers"] = [base_layer()]
        for record in document["records"]:
            record["diff_id"] = base_layer()

    tamper(tmp_path / "cache", claim)
    (cli.root / "cache.db").unlink()  # the blob stays, and nothing says what it holds
    done = cli.build("-t", "app", "--cache-from", f"type=local,src={tmp_path}/cache", directory)
    assert "gives blob" in done.err
    assert cli.manifest("app")["layers"] == layers
    (directory / "Dockerfile").write_text(f"FROM {registry.host}/base:1\nLABEL a=b\n")
    cli.build("-t", "based", directory)
    assert [layer["digest"] for layer in cli.manifest("based")["layers"]] == [base_layer()]
