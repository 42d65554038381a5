"""Base images whose manifest or configuration cannot be: refused where they are read, with the image's name."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from builder.oci.layout import Layout
from builder.oci.platform import host_platform
from builder.oci.spec import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, REF_NAME, Descriptor, PlatformRecord
from tests.support.archives import archive
from tests.support.builds import Cli, Done, context

TAR = archive(("a", {"data": b"A"}))
DIFF_ID = f"sha256:{hashlib.sha256(TAR).hexdigest()}"
BLOB = gzip.compress(TAR, mtime=0)
COPY = "FROM base\nCOPY --from=base a /b\n"

Change = Callable[[dict[str, Any], dict[str, Any]], None]


class Served:
    """An OCI layout by hand, in which `latest` is what was put last."""

    def __init__(self, path: Path) -> None:
        self.layout = Layout(str(path))
        self.layout.create()

    def image(self, change: Change = lambda manifest, config: None) -> Descriptor:
        """An image of one layer; `change` may put anything into its manifest and configuration."""
        host = host_platform()
        config: dict[str, Any] = {
            "architecture": host.architecture, "os": host.os, "config": {"WorkingDir": "/w"},
            "rootfs": {"type": "layers", "diff_ids": [DIFF_ID]},
        }  # fmt: skip
        layer = {"mediaType": f"{OCI_LAYER}+gzip", "digest": self.layout.put(BLOB), "size": len(BLOB)}
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [layer]}
        change(manifest, config)
        manifest["config"] = msgspec.to_builtins(self.put(OCI_CONFIG, config))
        return self.put(OCI_MANIFEST, manifest)

    def index(self, *entries: Descriptor) -> Descriptor:
        return self.put(OCI_INDEX, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)})

    def put(self, media_type: str, document: object) -> Descriptor:
        data = msgspec.json.encode(document)
        return self.name(Descriptor(media_type, self.layout.put(data), len(data)))

    def name(self, descriptor: Descriptor) -> Descriptor:
        with self.layout.changing() as manifests:
            manifests[:] = [msgspec.structs.replace(descriptor, annotations={REF_NAME: "latest"})]
        return descriptor


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(tmp_path / "layout")


def build(cli: Cli, served: Served, dockerfile: str = "FROM base\n") -> Done:
    source = context(Path(served.layout.path).parent / "context", dockerfile)
    return cli("build", "-t", "x", "--build-context", f"base=oci-layout://{served.layout.path}:latest", source)


def layer(**fields: Any) -> Change:
    return lambda manifest, config: manifest["layers"][0].update(fields)


def diff_id(value: str) -> Change:
    return lambda manifest, config: config["rootfs"].update(diff_ids=[value])


def test_what_is_well_formed_is_taken(cli: Cli, served: Served) -> None:
    served.image()
    assert build(cli, served, COPY).status == 0
    assert sorted(cli.files("x")) == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        pytest.param(layer(size=1 << 63), f"a layer of {1 << 63} bytes", id="as large as SQLite's integers end"),
        pytest.param(layer(size=1 << 70), f"a layer of {1 << 70} bytes", id="larger"),
        pytest.param(layer(size=-1), "a layer of -1 bytes", id="of less than no bytes"),
        pytest.param(
            layer(digest="sha512:" + "0" * 128),
            "bytes with the digest 'sha512:000",
            id="with another algorithm",
        ),
        pytest.param(
            layer(digest="sha256:../../x"),
            "bytes with the digest 'sha256:../../x'",
            id="a path for a digest",
        ),
        pytest.param(diff_id("../../x"), "the diff ID '../../x'", id="a path for a diff ID"),
        pytest.param(diff_id(DIFF_ID.upper()), "the diff ID 'SHA256:", id="a diff ID in upper case"),
    ],
)
def test_layers_that_cannot_be(cli: Cli, served: Served, change: Change, cause: str) -> None:
    served.image(change)
    done = build(cli, served)
    assert done.status == 1
    assert "internal error" not in done.err
    assert cause in done.err
    assert f"{served.layout.path}:latest is malformed: " in done.err


@pytest.mark.parametrize("size", [0, len(BLOB) - 1, len(BLOB) + 1])
def test_a_blob_of_another_size(cli: Cli, served: Served, size: int) -> None:
    served.image(layer(size=size))
    done = build(cli, served, COPY)
    assert done.status == 1
    assert f"has {len(BLOB)} bytes, not {size} as its manifest says" in done.err


def settings(**fields: Any) -> Change:
    return lambda manifest, config: config["config"].update(fields)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"WorkingDir": "/a\0b"}, "WorkingDir"),
        ({"WorkingDir": "/a\\\0b"}, "WorkingDir"),
        ({"Env": ["A=1", "B=\0"]}, "Env"),
        ({"User": "\0"}, "User"),
        ({"Shell": ["/bin/sh", "-c\0"]}, "Shell"),
        ({"Entrypoint": ["\0"]}, "Entrypoint"),
        ({"Cmd": ["\0"]}, "Cmd"),
        ({"OnBuild": ["RUN \0"]}, "OnBuild"),
        ({"Healthcheck": {"Test": ["CMD", "\0"]}}, "Healthcheck"),
        ({"Volumes": {"/\0": {}}}, "Volumes"),
        ({"StopSignal": "\0"}, "StopSignal"),
    ],
)
def test_a_configuration_with_a_nul(cli: Cli, served: Served, fields: dict[str, Any], name: str) -> None:
    """No path, argument or variable can have one."""
    served.image(settings(**fields))
    done = build(cli, served, "FROM base\nWORKDIR d\nENV C=$B\nCOPY --from=base a b\n")
    assert done.status == 1
    assert "internal error" not in done.err
    assert f"{served.layout.path}:latest is malformed: {name} of its configuration has a NUL character" in done.err


def test_what_only_looks_like_a_nul(cli: Cli, served: Served) -> None:
    """A label may be anything, and the letters are none."""
    served.image(settings(Labels={"a": "\0"}, Env=["A=\\u0000", "B=\\\\u0000"]))
    assert build(cli, served).status == 0


# --- indexes


def test_indexes_that_are_nested(cli: Cli, served: Served) -> None:
    entry = served.image()
    for depth in range(1, 1200):
        entry = served.index(entry)
        if depth in (4, 5, 6, 1199):
            done = build(cli, served)
            assert done.status == (0 if depth <= 5 else 1), depth
            assert "internal error" not in done.err
    assert "the layout has no image for" in done.err


def test_an_index_whose_first_entry_leads_nowhere(cli: Cli, served: Served) -> None:
    """As with a registry, the next one is taken that serves the platform."""
    image = served.image()
    foreign = PlatformRecord("riscv64", "plan9")
    nothing = served.index(msgspec.structs.replace(image, platform=foreign))
    absent = Descriptor(OCI_INDEX, "sha256:" + "0" * 64, 10)
    served.index(nothing, absent, served.index(image))
    assert build(cli, served, COPY).status == 0
    assert sorted(cli.files("x")) == ["a", "b"]


def test_indexes_that_name_each_other_many_times(cli: Cli, served: Served) -> None:
    entry = msgspec.structs.replace(served.image(), platform=PlatformRecord("riscv64", "plan9"))
    for _ in range(5):
        entry = served.index(*[entry] * 1000)
    assert "the layout has no image for" in build(cli, served).err
