"""Caches that travel: machines, a context that they build, and caches in directories that are changed on the way."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import builds
from tests.support.archives import archive
from tests.support.builds import APPLETS, BUSYBOX, Cli, Done
from tests.support.registry import FakeRegistry

Machine = Callable[[str], Cli]
"""A machine by its name, with a root and a home of its own."""

DOCKERFILE = """\
FROM {base} AS build
RUN echo one > /one; date +%N > /time
COPY src/a /src/
RUN --mount=type=bind,source=setup,target=/setup cat /setup /src/a > /out
WORKDIR /work
FROM scratch
COPY --from=build /out /time /
COPY --chmod=0600 src/b /b
ADD archive.tar /unpacked/
"""
"""Seven steps, of which the last three make the layers of the result."""
FINAL = 3
MOUNTS = "FROM {base}\nRUN --mount=type=cache,id=npm,target=/c n=$(cat /c/n)x; echo $n >/c/n; echo $n\n"
"""A step that prints an x more each time that it finds its cache mount."""


def ran(done: Done) -> list[str]:
    """The instructions of the steps that were not cached."""
    return [step for step in builds.ran(done) if not step.startswith("load metadata")]


def said(done: Done) -> list[str]:
    """What the steps of MOUNTS printed."""
    return [line.split(" ", 2)[2] for line in done.err.splitlines() if line.count(" ") == 2 and line.endswith("x")]


def busybox_layer() -> bytes:
    """The only layer of the image `base:1`."""
    folders: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in ("bin", "dev", "proc", "sys", "tmp")]
    links = [(f"bin/{name}", {"type": b"2", "link": "busybox"}) for name in APPLETS]
    return archive(*folders, ("bin/busybox", {"data": Path(BUSYBOX).read_bytes(), "mode": 0o755}), *links)


def base_layer() -> str:
    """The digest of that layer, and its diff ID."""
    return "sha256:" + hashlib.sha256(busybox_layer()).hexdigest()


def make_context(directory: Path, base: str, dockerfile: str = DOCKERFILE) -> Path:
    (directory / "src").mkdir(parents=True)
    for name, text in (("src/a", "a"), ("src/b", "b"), ("setup", "set up\n")):
        (directory / name).write_text(text)
    (directory / "archive.tar").write_bytes(archive(("file", {"data": b"in the archive"})))
    (directory / "Dockerfile").write_text(dockerfile.format(base=base))
    return directory


def copy_of(directory: Path, name: str) -> Path:
    """The same context at another place, with other times, as another checkout has it."""
    path = directory.parent / name
    shutil.copytree(directory, path, copy_function=shutil.copy)
    return path


def fetched(registry: FakeRegistry) -> set[str]:
    """The blobs that were asked for."""
    return {line.rpartition("/")[2] for line in registry.requests if line.startswith("GET") and "/blobs/" in line}


def no_configuration(directory: Path) -> Path:
    path = directory / "builder.toml"
    path.touch()
    return path


# --- caches in directories


def blob_of(cache: Path, digest: str) -> Path:
    return cache / "blobs" / digest.replace(":", "/")


def tamper(cache: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Change the manifest and the document of a cache in a directory, and make all digests fit again."""
    index = json.loads((cache / "index.json").read_text())
    manifest = json.loads(blob_of(cache, index["manifests"][0]["digest"]).read_text())
    document = json.loads(blob_of(cache, manifest["config"]["digest"]).read_text())
    change(manifest, document)
    data = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()  # keys are of recipes as they stand
    manifest["config"].update(_put(cache, data))
    index["manifests"][0].update(_put(cache, json.dumps(manifest).encode()))
    (cache / "index.json").write_text(json.dumps(index))


def _put(cache: Path, data: bytes) -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    blob_of(cache, digest).write_bytes(data)
    return {"digest": digest, "size": len(data)}
