"""Archives of ten million entries, which are generated while they are read: each way in refuses them when its limit is
reached, and neither takes all of them nor fills the memory until then."""

from __future__ import annotations

import gzip
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.archives import archive
from tests.support.builds import Cli, context, reading
from tests.support.registry import FakeRegistry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacking owners needs root")

MANY = 10_000_000
LIMIT = 2_000  # by default it is 2500 times that, which takes minutes to reach
PIECE = 2048
DIRECTORY, FILE = b"5", b"0"
MIB = 1 << 20


def headers(count: int, kind: bytes, *, distinct: bool = True) -> Iterator[bytes]:
    """The headers of `count` empty files or directories, in pieces; each has a name of its own, if `distinct`."""
    header = bytearray(archive((f"{0:010}", {"data": b""}))[:512])
    header[156:157] = kind
    constant = sum(header[:148]) + sum(header[156:]) + 8 * ord(" ") - 10 * ord("0")

    def piece(numbers: range) -> bytes:
        made = []
        for number in numbers:
            header[:10] = name = b"%010d" % number
            header[148:154] = b"%06o" % (constant + sum(name))
            made.append(bytes(header))
        return b"".join(made)

    same = piece(range(1)) * PIECE
    for start in range(0, count, PIECE):
        yield piece(range(start, start + PIECE)) if distinct else same


class Outcome(NamedTuple):
    """How a command ended; `memory` is the most that it had, `taken` what it read of its standard input, in bytes."""

    status: int
    error: str
    memory: int
    taken: int


def run(cli: Cli, *arguments: str | Path, stdin: Iterator[bytes] | None = None) -> Outcome:
    """Run the command as a process, which is fed as long as it reads."""
    source = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    process = cli.start(*arguments, stdin=source, stdout=subprocess.DEVNULL)
    taken = 0

    def feed() -> None:
        nonlocal taken
        assert process.stdin is not None
        try:
            for piece in stdin or ():
                process.stdin.write(piece)
                taken += len(piece)
        except BrokenPipeError:
            pass
        with suppress(BrokenPipeError):
            process.stdin.close()

    feeder = threading.Thread(target=feed)
    if stdin is not None:
        feeder.start()
    memory = 0
    with reading(process) as log:
        while process.poll() is None:
            memory = max(memory, _most_memory(process.pid))
            time.sleep(0.01)
        if stdin is not None:
            feeder.join()
        log.thread.join()
    return Outcome(process.returncode, log.text, memory, taken)


def _most_memory(pid: int) -> int:
    """What a process has had since it was started. (What wait4(2) tells counts this one's memory, too.)"""
    with suppress(OSError), open(f"/proc/{pid}/status") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM")), 0)
    return 0


def as_context(cli: Cli, directory: Path, kind: bytes) -> Outcome:
    dockerfile = archive(("Dockerfile", {"data": b"FROM scratch\nCOPY . /\n"}))[:1024]
    stream = chain([dockerfile], headers(MANY, kind))
    return run(cli, "build", "--progress", "plain", "-", stdin=stream)


def as_images(cli: Cli, directory: Path, kind: bytes) -> Outcome:
    return run(cli, "load", stdin=headers(MANY, kind))


def as_import(cli: Cli, directory: Path, kind: bytes) -> Outcome:
    return run(cli, "import", "-", "evil:1", stdin=headers(MANY, kind))


def compressed(kind: bytes) -> bytes:
    """Enough for the limit with names of their own, and as many members as make ten million: 5 MB, which are never
    written down uncompressed."""
    more = gzip.compress(b"".join(headers(PIECE, kind, distinct=False)), mtime=0)
    return gzip.compress(b"".join(headers(2 * LIMIT, kind)), 1, mtime=0) + more * (MANY // PIECE)


def as_add(cli: Cli, directory: Path, kind: bytes) -> Outcome:
    made = context(directory / "add", "FROM scratch\nADD evil.tar /into/\n", **{"evil.tar": compressed(kind)})
    return run(cli, "build", "--progress", "plain", made)


def as_layer(cli: Cli, directory: Path, kind: bytes) -> Outcome:
    """What the configuration says of the layer does not matter: that is found out at its end."""
    with FakeRegistry() as registry:
        registry.add_image("evil", "1", layers=(compressed(kind),))
        made = context(directory / "use", f"FROM {registry.host}/evil:1\nWORKDIR /probe\n")
        return run(cli, "build", "--progress", "plain", made)


WAYS: dict[str, Callable[[Cli, Path, bytes], Outcome]] = {
    "context": as_context,
    "images": as_images,
    "import": as_import,
    "add": as_add,
    "layer": as_layer,
}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    cli = Cli(tmp_path / "store")
    Path(cli.environ["BUILDER_CONFIG"]).write_text(f"[limits]\nentries = {LIMIT}\n")
    return cli


@pytest.mark.parametrize("kind", [FILE, DIRECTORY], ids=["files", "directories"])
@pytest.mark.parametrize("way", WAYS)
def test_ten_million_entries(cli: Cli, tmp_path: Path, way: str, kind: bytes) -> None:
    outcome = WAYS[way](cli, tmp_path, kind)
    assert outcome.status == 1, outcome
    assert f"the archive has more than {LIMIT} entries" in outcome.error
    assert "raise entries below [limits] in builder.toml" in outcome.error
    assert "Traceback" not in outcome.error
    assert outcome.memory < 100 * MIB
    assert outcome.taken < (LIMIT * 512) + 16 * MIB  # of 5 GB
    assert cli.leftovers() == []


def test_archives_of_images_have_a_limit_of_their_own(cli: Cli, tmp_path: Path) -> None:
    """Even where `entries` allows more: there is a file for each of theirs until all are read. This is the default."""
    Path(cli.environ["BUILDER_CONFIG"]).write_text("")
    outcome = as_images(cli, tmp_path, DIRECTORY)
    assert outcome.status == 1
    assert "the archive has more than 100000 entries" in outcome.error
    assert "raise load_entries below [limits] in builder.toml" in outcome.error
    assert outcome.memory < 100 * MIB
    Path(cli.environ["BUILDER_CONFIG"]).write_text("[limits]\nload_entries = 10\n")
    assert "more than 10 entries" in as_images(cli, tmp_path, FILE).error
