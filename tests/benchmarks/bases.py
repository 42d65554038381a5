"""The images that recipes build on, in a registry of the run's own, which also takes what is pushed.

The registry lives in this process and holds everything in memory: what is measured is the builder, not its disk.
"""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder.oci.platform import host_platform
from tests.benchmarks.expected import Expected, check_layers
from tests.benchmarks.measure import Failed
from tests.support.builds import BUSYBOX
from tests.support.registry import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, FakeRegistry, digest_of

PUSHED = "pushed/app"


class Bases:
    """The registry. `small` is the reference of an image with a static busybox; `debian` that of a Debian root file
    system, or nothing if none was given."""

    def __init__(self, registry: FakeRegistry, rootfs: Path | None) -> None:
        self._registry = registry
        self.host = registry.host
        self.small = self._add("base/busybox", busybox_layer())
        self.debian = self._add("base/debian", rootfs.read_bytes()) if rootfs is not None else ""

    def _add(self, name: str, layer: bytes) -> str:
        """Store an image of one layer, compressed as most are, and give its reference."""
        platform = host_platform()
        config = {
            "architecture": platform.architecture,
            "os": platform.os,
            "created": "2025-01-01T00:00:00Z",
            "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
            "history": [{"created": "2025-01-01T00:00:00Z", "created_by": "base"}],
        }
        blobs = json.dumps(config).encode(), gzip.compress(layer, 6, mtime=0)
        described = [
            {"mediaType": media, "digest": self._registry.add_blob(name, data), "size": len(data)}
            for media, data in zip((OCI_CONFIG, f"{OCI_LAYER}+gzip"), blobs, strict=True)
        ]
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described[0], "layers": described[1:]}
        self._registry.add_manifest(name, manifest, "1")
        return f"{self.host}/{name}:1"

    @property
    def pushed(self) -> str:
        """The reference under which images are pushed."""
        return f"{self.host}/{PUSHED}:1"

    def forget_pushed(self) -> None:
        """The state before anything was pushed. What the registry could mount from the bases is still there."""
        self._registry.repositories.pop(PUSHED, None)
        self._registry.blobs.pop(PUSHED, None)

    def check_pushed(self, expected: Expected) -> None:
        """Raises Failed unless the image was pushed with all that it needs."""
        held = self._registry.repositories.get(PUSHED, {})
        if "1" not in held:
            raise Failed("nothing was pushed")
        document = json.loads(held["1"][1])
        while "manifests" in document:
            document = json.loads(held[document["manifests"][0]["digest"]][1])
        check_layers(len(document["layers"]), expected)
        for blob in (document["config"], *document["layers"]):
            if blob["digest"] not in self._registry.blobs.get(PUSHED, {}):
                raise Failed(f"the blob {blob['digest']} was not pushed")


@contextmanager
def serve_bases(rootfs: Path | None) -> Iterator[Bases]:
    """The registry, while the block lasts."""
    with FakeRegistry() as registry:
        yield Bases(registry, rootfs)


def busybox_layer() -> bytes:
    """A root file system with a static busybox under all of its names."""
    names = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for directory in ("bin", "dev", "etc", "proc", "sys", "tmp"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        program = tarfile.TarInfo("bin/busybox")
        data = Path(BUSYBOX).read_bytes()
        program.size, program.mode = len(data), 0o755
        tar.addfile(program, io.BytesIO(data))
        for name in sorted({*names} - {"busybox"}):
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, "busybox", 0o777
            tar.addfile(entry)
    return raw.getvalue()
