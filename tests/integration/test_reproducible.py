"""SOURCE_DATE_EPOCH: the same input gives the same digest, at any time, in any place, in any store."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import time
from pathlib import Path

import pytest

from tests.support.builds import Cli, busybox_context, context, needs_sandbox

COPIES = """\
FROM scratch AS one
COPY a /one/
COPY --link b /link/b
COPY --chown=7:8 --chmod=0600 a /owned
FROM scratch
COPY . /all/
COPY --from=one / /one/
ADD files.tar.gz /unpacked/
COPY <<END /here
text
END
WORKDIR /work/deep
LABEL a=b
"""


def archive(path: Path) -> None:
    with tarfile.open(path, "w:gz") as file:
        for name, content in (("d/f", b"f"), ("d/g", b"g" * 1000)):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1_234_567_890
            file.addfile(info, io.BytesIO(content))


def twin(directory: Path, path: Path) -> Path:
    """A copy of a context elsewhere, made in another order, with other times."""
    path.mkdir(parents=True)
    for name in sorted(os.listdir(directory), reverse=True):
        if (directory / name).is_dir():
            shutil.copytree(directory / name, path / name, symlinks=True)
        else:
            shutil.copy(directory / name, path / name)
    for number, (folder, _, names) in enumerate(os.walk(path)):
        for name in [*names, "."]:
            file = os.path.join(folder, name)
            if not os.path.islink(file):
                os.utime(file, (1_800_000_000 + number, 1_900_000_000.5 + number))
    return path


def digests(tmp_path: Path, directory: Path, *arguments: str, epoch: str = "0") -> list[str]:
    """The digests of two builds that share nothing but the input."""
    found = []
    for number, place in enumerate((directory, twin(directory, tmp_path / "another/place/twin"))):
        cli = Cli(tmp_path / f"store{number}", SOURCE_DATE_EPOCH=epoch)
        cli.build("-t", "x", "-o", "type=image", "-o", f"type=oci,dest={tmp_path}/{number}.tar", *arguments, place)
        found.append(cli.entries()["docker.io/library/x:latest"]["digest"])
        time.sleep(0.02)
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "1.tar").read_bytes()
    return found


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = context(tmp_path / "context", COPIES, a="a" * 10, b="b", c__d__e="e", c__f="f")
    archive(made / "files.tar.gz")
    return made


@pytest.mark.parametrize("epoch", ["0", "1700000000"])
def test_copies(tmp_path: Path, directory: Path, epoch: str) -> None:
    first, second = digests(tmp_path, directory, epoch=epoch)
    assert first == second
    config = Cli(tmp_path / "store0").config("x")
    stamp = {"0": "1970-01-01T00:00:00Z", "1700000000": "2023-11-14T22:13:20Z"}[epoch]
    assert {config["created"], *(line["created"] for line in config["history"])} == {stamp}
    files = Cli(tmp_path / "store0").files("x")
    assert all(entry.mtime <= float(epoch) for entry in files.values())


def test_squashed(tmp_path: Path, directory: Path) -> None:
    first, second = digests(tmp_path, directory, "--squash")
    assert first == second


@pytest.mark.parametrize("compression", ["zstd", "uncompressed"])
def test_compressions(tmp_path: Path, directory: Path, compression: str) -> None:
    found = []
    for number in range(2):
        cli = Cli(tmp_path / f"store{number}", SOURCE_DATE_EPOCH="0")
        done = cli.build("-o", f"type=oci,compression={compression}", directory)
        found.append(done.out)
    assert found[0] == found[1]


@needs_sandbox
@pytest.mark.parametrize("arguments", [(), ("--squash",)])
def test_commands(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    directory = busybox_context(
        tmp_path / "context",
        "WORKDIR /app\nADD files.tar.gz .\nCOPY a .\n"
        "RUN echo made > made && mkdir -p sub/dir && ln made sub/hard && ln -s made sub/soft && rm a\n"
        "RUN rm -r d && chmod 0700 sub && echo again >> made\n"
        "RUN chmod 0700 /\n",
    )
    (directory / "a").write_text("a")
    archive(directory / "files.tar.gz")
    first, second = digests(tmp_path, directory, *arguments)
    assert first == second
    assert all(entry.mtime <= 0 for entry in Cli(tmp_path / "store0").files("x").values())


def test_several_platforms(tmp_path: Path, directory: Path) -> None:
    first, second = digests(tmp_path, directory, "--platform", "linux/amd64,linux/arm64")
    assert first == second
