"""What an image must hold, and whether an archive with it does: read with Python's own modules, none of ours."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec
import zstandard

from tests.benchmarks.measure import Failed

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class File(msgspec.Struct, frozen=True):
    """A regular file: the SHA-256 of its content, and its mode if that matters."""

    sha256: str
    mode: int | None = None


class Expected(msgspec.Struct):
    """`files` by their paths, None for what must not be there; `layers` is how many there are at least and at most;
    `config` are fields of the container's configuration; `entries` how many paths there are at least and at most, over
    all layers but the lowest `skip`, which are the base's."""

    files: dict[str, File | None]
    layers: tuple[int, int]
    config: Mapping[str, Any] = {}
    entries: tuple[int, int] = (0, 1 << 40)
    skip: int = 0


def check(archive: Path, expected: Expected, *, compression: str = "", thorough: bool = False) -> None:
    """Raises Failed unless the archive (OCI or Docker) holds the image. `compression` is what every layer must have;
    only a `thorough` look reads the layers' contents."""
    with tarfile.open(archive) as tar:
        config, layers = _image(tar)
        check_layers(len(layers), expected)
        for key, value in expected.config.items():
            if config["config"].get(key) != value:
                raise Failed(f"{key} is {config['config'].get(key)!r} in the configuration, expected {value!r}")
        for name in layers if compression else ():
            if _compression(tar, name) != compression:
                raise Failed(f"a layer is compressed with {_compression(tar, name)}, {compression} was asked for")
        if thorough:
            _check_files(_flatten(tar, layers[expected.skip :], expected), expected)


def check_layers(count: int, expected: Expected) -> None:
    """Raises Failed unless so many layers are right."""
    if not expected.layers[0] <= count <= expected.layers[1]:
        raise Failed(f"{count} layers, expected {expected.layers}")


def _image(tar: tarfile.TarFile) -> tuple[dict[str, Any], list[str]]:
    """The configuration, and the names of the layers in the archive."""

    def load(name: str) -> Any:
        return json.load(_open(tar, name))

    def blob(descriptor: dict[str, Any]) -> str:
        return "blobs/" + str(descriptor["digest"]).replace(":", "/")

    if "index.json" not in tar.getnames():
        image = load("manifest.json")[0]
        return load(image["Config"]), list(image["Layers"])
    document = load("index.json")
    while "manifests" in document:
        document = load(blob(document["manifests"][0]))
    return load(blob(document["config"])), [blob(layer) for layer in document["layers"]]


def _open(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    file = tar.extractfile(name)
    if file is None:
        raise Failed(f"{name} in the archive is no file")
    return file


def _compression(tar: tarfile.TarFile, name: str) -> str:
    magic = _open(tar, name).read(4)
    return "gzip" if magic.startswith(GZIP) else "zstd" if magic == ZSTD else "uncompressed"


def _layer(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    """A layer's tar stream."""
    kind, file = _compression(tar, name), _open(tar, name)
    if kind == "gzip":
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) if kind == "zstd" else file


def _flatten(tar: tarfile.TarFile, layers: Sequence[str], expected: Expected) -> dict[str, File | None]:
    """The paths after all layers, with what is in those files that matter."""
    found: dict[str, File | None] = {}
    directories: set[str] = set()
    for layer in layers:
        with tarfile.open(fileobj=_layer(tar, layer), mode="r|") as stream:
            for member in stream:
                path = member.name.removeprefix("./").strip("/")
                folder, _, name = path.rpartition("/")
                if name == ".wh..wh..opq":
                    _remove_below(found, folder)
                elif name.startswith(".wh."):
                    gone = f"{folder}/{name[4:]}" if folder else name[4:]
                    found.pop(gone, None)
                    if gone in directories:
                        _remove_below(found, gone)
                elif path:
                    if member.isdir():
                        directories.add(path)
                    found[path] = _file(stream, member) if member.isreg() and path in expected.files else None
    return found


def _remove_below(found: dict[str, File | None], directory: str) -> None:
    for path in [path for path in found if path.startswith(f"{directory}/")]:
        del found[path]


def _file(stream: tarfile.TarFile, member: tarfile.TarInfo) -> File:
    digest, file = hashlib.sha256(), stream.extractfile(member)
    while file is not None and (data := file.read(1 << 20)):
        digest.update(data)
    return File(digest.hexdigest(), member.mode & 0o7777)


def _check_files(found: dict[str, File | None], expected: Expected) -> None:
    for path, wanted in expected.files.items():
        file = found.get(path)
        if wanted is None and path in found:
            raise Failed(f"/{path} must not be in the image")
        if wanted is not None and (
            file is None or file.sha256 != wanted.sha256 or wanted.mode not in (None, file.mode)
        ):
            raise Failed(f"/{path} is {file}, expected {wanted}")
    if not expected.entries[0] <= len(found) <= expected.entries[1]:
        raise Failed(f"{len(found)} entries, expected {expected.entries}")
