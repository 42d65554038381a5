"""Cache mounts that travel with a cache, and the whole round with a real registry."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.support.builds import needs_sandbox
from tests.support.docker_registry import docker_registry, needs_docker_registry
from tests.support.external_cache import (
    MOUNTS,
    Machine,
    blob_of,
    busybox_layer,
    copy_of,
    fetched,
    make_context,
    ran,
    said,
)
from tests.support.registry import FakeRegistry

pytestmark = needs_sandbox


def test_cache_mounts_travel(registry: FakeRegistry, machine: Machine, tmp_path: Path) -> None:
    """A fresh machine starts with what the first one had; what did not change is not sent again."""
    directory = make_context(tmp_path / "context", f"{registry.host}/base:1", MOUNTS)
    target = f"type=registry,ref={registry.host}/cache:1,mounts=npm;other"
    source = f"type=registry,ref={registry.host}/cache:1"
    first, second = machine("first"), machine("second")
    assert said(first.build("--no-cache", directory)) == ["x"]
    assert said(done := first.build("--no-cache", "--cache-to", target, directory)) == ["xx"]
    assert "no cache mount 'other'" in done.err
    registry.requests.clear()
    first.build("--cache-to", target, directory)
    assert registry.count("PUT|POST|PATCH") == 0

    found = second.build("--cache-from", source, "--cache-to", target, directory)
    assert ran(found) == []
    manifest = json.loads(registry.repositories["cache"]["1"][1])
    assert not fetched(registry) & {layer["digest"] for layer in manifest["layers"][1:]}, "no step needed the mount"
    assert len(manifest["layers"]) == 2, "and yet it travels on"
    assert said(second.build("--no-cache", "--cache-from", source, directory)) == ["xxx"]
    assert said(second.build("--no-cache", "--cache-from", source, directory)) == ["xxxx"], "what is there stays"
    assert b"npm" in second("cache", "ls").out


def test_a_damaged_cache_mount_starts_empty(registry: FakeRegistry, machine: Machine, tmp_path: Path) -> None:
    directory = make_context(tmp_path / "context", f"{registry.host}/base:1", MOUNTS)
    cache = tmp_path / "cache"
    machine("first").build("--no-cache", "--cache-to", f"type=local,dest={cache},mounts=npm", directory)
    index = json.loads((cache / "index.json").read_text())
    manifest = json.loads(blob_of(cache, index["manifests"][0]["digest"]).read_text())
    blob = blob_of(cache, manifest["layers"][-1]["digest"])
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    done = machine("second").build("--no-cache", "--cache-from", f"type=local,src={cache}", directory)
    assert "the cache mount npm starts empty" in done.err
    assert said(done) == ["x"]


# --- the real registry


@needs_docker_registry
def test_with_docker_registry(machine: Machine, tmp_path: Path) -> None:
    """The whole round with Debian's docker-registry: a cache with a mount, then an inline one."""
    dockerfile = (
        "FROM scratch AS base\nADD base.tar /\nENV PATH=/bin\n"
        + MOUNTS.replace("{base}", "base")
        + ("FROM scratch\nCOPY --from=1 /bin/busybox /\nCOPY src/ /src/\n")
    )
    directory = make_context(tmp_path / "context", "", dockerfile.replace("{", "{{").replace("}", "}}"))
    (directory / "base.tar").write_bytes(busybox_layer())
    with docker_registry(tmp_path / "registry") as host:
        first, second, third = machine("first"), machine("second"), machine("third")
        target = f"type=registry,ref={host}/cache/app:main,mode=max,mounts=npm"
        assert len(ran(first.build("-t", f"{host}/app:1", "--push", "--cache-to", target, directory))) == 4
        first.build("-t", "app", directory)
        started = time.perf_counter()
        done = second.build("-t", "app", "--cache-from", f"{host}/cache/app:main", copy_of(directory, "elsewhere"))
        assert time.perf_counter() - started < 20
        assert ran(done) == []
        assert second.image_id("app") == first.image_id("app")
        assert said(second.build("--no-cache", "--cache-from", f"{host}/cache/app:main", directory)) == ["xx"]
        first.build("-t", f"{host}/app:2", "--push", "--cache-to", "type=inline", directory)
        assert ran(third.build("-t", "app", "--cache-from", f"{host}/app:2", directory)) == []
        assert third.image_id("app") == first.image_id("app")
