"""What is built in growing sizes, each in one dimension: files, layers, stages, bytes and others.

The first size of a series is next to nothing: what it costs is the cost of starting, which is no growth.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from tests.benchmarks.bases import busybox_layer
from tests.support.images import put_image

KIB, MIB = 1 << 10, 1 << 20
UNMATCHED = 10_000
"""Files that the patterns of an ignore file are tried on."""
_BUILD = ("build", "--quiet", "--tag", "grown", "{context}")
BUILDS: Mapping[str, tuple[str, ...]] = {"cold": _BUILD, "unchanged": _BUILD}


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One dimension. `make` writes a context and what the store must hold before, for one size; `commands` are then
    run one after the other in one store, by what they show: `{context}` stands for the context's path. `memory` is how
    many bytes each unit may cost: those of an index of names. With `from_disk` no file's content is in memory when a
    command starts: of a million small files the kernel keeps as many as it likes, of a thousand all."""

    key: str
    title: str
    unit: str
    sizes: tuple[int, ...]
    make: Callable[[Path, Path, int], None]
    commands: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=lambda: BUILDS)
    memory: float = 0.0
    from_disk: bool = False


def _dockerfile(context: Path, *lines: str) -> None:
    (context / "Dockerfile").write_text("\n".join(lines) + "\n")


def write_files(directory: Path, count: int, per_directory: int) -> None:
    """So many files of some hundred bytes."""
    for number in range(count):
        folder = f"{directory}/d{number // per_directory:05d}"
        if number % per_directory == 0:
            os.makedirs(folder)
        descriptor = os.open(f"{folder}/f{number:07d}", os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(descriptor, b"the content of file %d\n" % number * 8)
        os.close(descriptor)


def _files(context: Path, store: Path, size: int) -> None:
    write_files(context / "data", size, 50)
    _dockerfile(context, "FROM scratch", "COPY data /data")


def _one_directory(context: Path, store: Path, size: int) -> None:
    write_files(context / "data", size, size)
    _dockerfile(context, "FROM scratch", "COPY data /data")


def _commands(context: Path, store: Path, size: int) -> None:
    put_image(store, "base", [busybox_layer()])
    _dockerfile(context, "FROM base", *(f"RUN echo {number} > /f{number}" for number in range(size)))


def _copies(context: Path, store: Path, size: int) -> None:
    write_files(context, size, size)
    _dockerfile(context, "FROM scratch", *(f"COPY d00000/f{number:07d} /f{number}" for number in range(size)))


def _stages(context: Path, store: Path, size: int) -> None:
    write_files(context, 1, 1)
    lines = ["FROM scratch AS s0", "COPY d00000/f0000000 /f0"]
    for number in range(1, size):
        lines += [f"FROM scratch AS s{number}", f"COPY --from=s{number - 1} /f{number - 1} /f{number}"]
    _dockerfile(context, *lines)


def _bytes(context: Path, store: Path, size: int) -> None:
    """Half noise, half a repeated text, as in the workload W4."""
    noise, text = random.Random(size), (b"All work and no play makes a dull file. " * 2000)[: 64 * KIB]
    with open(context / "big", "wb") as file:
        for start in range(0, size, 128 * KIB):
            piece = noise.randbytes(64 * KIB) + text
            file.write(piece[: size - start])
    _dockerfile(context, "FROM scratch", "COPY big /big")


def _variables(context: Path, store: Path, size: int) -> None:
    lines = [line for number in range(size) for line in (f"ARG A{number}=a", f"ENV E{number}=${{A{number}}}b")]
    _dockerfile(context, "FROM scratch", *lines, "COPY Dockerfile /")


def _long_dockerfile(context: Path, store: Path, size: int) -> None:
    _dockerfile(context, "FROM scratch", *(f"RUN echo {number}" for number in range(size)))


def _patterns(context: Path, store: Path, size: int) -> None:
    """So many patterns over files of which they match none; the last makes an exception."""
    write_files(context / "data", UNMATCHED, 50)
    patterns = [f"**/unlike{number}*.log" for number in range(size)]
    (context / ".dockerignore").write_text("\n".join([*patterns, "!unlike1.log"]) + "\n")
    _dockerfile(context, "FROM scratch", "COPY data /data")


def _images(context: Path, store: Path, size: int) -> None:
    """A store with so many images of one layer, each under a name of its own, written as any other tool could."""
    from builder.oci import reference
    from builder.oci.spec import IMAGE_NAME, OCI_CONFIG, OCI_MANIFEST, REF_NAME, Descriptor, Manifest, encode
    from builder.store.store import Store

    put_image(store, "first", [busybox_layer()])
    opened = Store(str(store))
    layout = opened.layout
    first = opened.images.manifest(opened.images.find("first").descriptor)
    layers, config = first.layers, msgspec.json.decode(layout.read(first.config.digest))

    def blob(data: bytes) -> tuple[str, int]:
        digest = opened.layout.put(data)
        return digest, len(data)

    with layout.changing() as manifests:
        for number in range(size - 1):
            described = Descriptor(OCI_CONFIG, *blob(encode({**config, "author": f"number {number}"})))
            manifest = Descriptor(OCI_MANIFEST, *blob(encode(Manifest(2, described, layers, OCI_MANIFEST))))
            name = str(reference.parse(f"image{number}:1"))
            annotations = {IMAGE_NAME: name, REF_NAME: name}
            manifests.append(msgspec.structs.replace(manifest, annotations=annotations))
    opened.close()
    _dockerfile(context, "FROM first", "COPY Dockerfile /")


SERIES = (
    Series(
        key="files", title="files of a COPY, 50 in a directory", unit="file",
        sizes=(1, 1_000, 10_000, 100_000, 1_000_000), make=_files, memory=1000, from_disk=True,
    ),
    Series(
        key="directory", title="files of a COPY, all in one directory", unit="file",
        sizes=(1, 1_000, 10_000, 100_000, 1_000_000), make=_one_directory, memory=1000, from_disk=True,
    ),
    Series(
        key="layers", title="layers that RUN steps make", unit="layer",
        sizes=(1, 10, 40, 120), make=_commands, memory=64 * KIB,
    ),
    Series(
        key="copies", title="layers that COPY makes", unit="layer",
        sizes=(1, 10, 40, 120), make=_copies, memory=64 * KIB,
    ),
    Series(
        key="stages", title="stages that each copy from the one before", unit="stage",
        sizes=(1, 10, 50, 200), make=_stages, memory=64 * KIB,
    ),
    Series(
        key="bytes", title="bytes of one file", unit="byte",
        sizes=(1, MIB, 16 * MIB, 256 * MIB, 1024 * MIB, 4096 * MIB), make=_bytes, memory=0.01,
    ),
    Series(
        key="variables", title="pairs of ARG and ENV", unit="pair",
        sizes=(1, 100, 1_000, 3_000), make=_variables, memory=16 * KIB,
        commands={"outline": ("build", "--call", "outline", "{context}"), **BUILDS},
    ),
    Series(
        key="instructions", title="RUN lines of a Dockerfile, planned and not run", unit="line",
        sizes=(1, 100, 1_000, 5_000), make=_long_dockerfile, memory=16 * KIB,
        commands={
            "outline": ("build", "--call", "outline", "{context}"),
            "checks": ("build", "--check", "{context}"),
            "plan": ("plan", "{context}"),
        },
    ),
    Series(
        key="patterns", title=f"patterns of an ignore file over {UNMATCHED:,} files", unit="pattern",
        sizes=(1, 10, 100, 1_000), make=_patterns, memory=16 * KIB,
    ),
    Series(
        key="images", title="images in the store", unit="image",
        sizes=(1, 100, 1_000, 10_000), make=_images, memory=16 * KIB,
        commands={"images": ("images", "--quiet"), **BUILDS},
    ),
)  # fmt: skip


def choose(names: str) -> list[Series]:
    """Those with these keys, separated by commas. Raises ValueError for one that is none."""
    wanted = [name.strip() for name in names.split(",")]
    known = {series.key: series for series in SERIES}
    for name in wanted:
        if name not in known:
            raise ValueError(f"{name} is no series: {', '.join(known)}")
    return [known[name] for name in wanted]
