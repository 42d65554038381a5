"""Every way by which an archive of a stranger comes in, through the real commands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builder.oci.platform import host_platform
from tests.support.archives import archive
from tests.support.builds import Cli, Done, context
from tests.support.registry import FakeRegistry

Way = Callable[[Cli, Path, bytes], Done]


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def image_archive(layer: bytes, tar: bytes | None = None) -> dict[str, bytes]:
    """The files of a docker-archive of one image, `evil:1`, with one layer; `tar` is it uncompressed, if it is not."""
    rootfs = {"type": "layers", "diff_ids": [digest(tar if tar is not None else layer)]}
    host = host_platform()
    config = {"architecture": host.architecture, "os": host.os, "rootfs": rootfs, "config": {}}
    saved = [{"Config": "c.json", "RepoTags": ["evil:1"], "Layers": ["l/layer.tar"]}]
    return {"c.json": _json(config), "l/layer.tar": layer, "manifest.json": _json(saved)}


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _use(cli: Cli, directory: Path, image: str) -> Done:
    """Look into an image, so that it is unpacked."""
    into = directory / "out"
    made = context(directory / "use", f"FROM {image}\nWORKDIR /probe\n")
    return cli("build", "--progress", "plain", "--no-cache", "-o", f"type=local,dest={into}", "-t", "result", made)


def loaded(cli: Cli, directory: Path, data: bytes) -> Done:
    """As the layer of an image that `load` takes."""
    files = image_archive(data)
    done = cli("load", stdin=archive(*((name, {"data": content}) for name, content in files.items())))
    return done if done.status else _use(cli, directory, "evil:1")


def pulled(cli: Cli, directory: Path, data: bytes) -> Done:
    """As the layer of an image in a registry."""
    with FakeRegistry() as registry:
        registry.add_image("evil", "1", layers=(data,))
        return _use(cli, directory, f"{registry.host}/evil:1")


def imported(cli: Cli, directory: Path, data: bytes) -> Done:
    """As a file system that `import` takes."""
    done = cli("import", "-", "evil:1", stdin=data)
    return done if done.status else _use(cli, directory, "evil:1")


def added(cli: Cli, directory: Path, data: bytes) -> Done:
    """As an archive that ADD unpacks."""
    made = context(directory / "add", "FROM scratch\nADD evil.tar /into/\n", **{"evil.tar": data})
    into = directory / "out"
    return cli("build", "--progress", "plain", "-o", f"type=local,dest={into}", made)


def unpacked_context(cli: Cli, directory: Path, data: bytes) -> Done:
    """As the build context on standard input. A Dockerfile stands in front, so it must be a plain one."""
    head = archive(("Dockerfile", {"data": b"FROM scratch\nCOPY . /into/\n"}))[:1024]
    into = directory / "out"
    return cli("build", "--progress", "plain", "-o", f"type=local,dest={into}", "-", stdin=head + data)


def archive_of_images(cli: Cli, directory: Path, data: bytes) -> Done:
    """As the archive that `load` reads, with a good image in front."""
    good = archive(("good", {"data": b"1"}))
    files = archive(*((name, {"data": content}) for name, content in image_archive(good).items()))
    return cli("load", stdin=files[: -(len(files) % 10240 or 1024)].rstrip(b"\0").ljust(_whole(files), b"\0") + data)


def _whole(files: bytes) -> int:
    """The length of an archive up to its end mark: whole blocks."""
    used = len(files.rstrip(b"\0"))
    return used + -used % 512


WAYS: dict[str, Way] = {
    "loaded": loaded,
    "pulled": pulled,
    "imported": imported,
    "added": added,
    "context": unpacked_context,
    "archive": archive_of_images,
}
