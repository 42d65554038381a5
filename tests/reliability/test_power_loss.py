"""The machine stops: what was written and not flushed may have holes, or may be missing. No image has any of that.

A reboot is played by giving all that remembers its boot the name of another one.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.filesystem.snapshot_entries import EROFS
from tests.support.builds import Cli, busybox_context, context, needs_sandbox

pytestmark = needs_sandbox

STEPS = "RUN echo one > /one\nCOPY data /data\nRUN cat /data > /two\n"


def reboot(cli: Cli) -> list[Path]:
    """Make this another boot; returns the blobs that were never flushed."""
    connection = sqlite3.connect(cli.root / "cache.db")
    with connection:
        digests = [row[0] for row in connection.execute("SELECT digest FROM unsettled")]
        connection.execute("UPDATE unsettled SET boot = 'an earlier one'")
    connection.close()
    for file in cli.root.glob("snapshots/*/boot"):
        file.write_text("an earlier one")
    return [cli.root / "blobs" / digest.replace(":", "/") for digest in digests]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def lose(path: Path) -> None:
    path.unlink()


def keep(path: Path) -> None:
    """It reached the disk after all."""


def fail(cli: Cli, source: Path) -> None:
    """A build that stops before an image names its layers, so that nothing was flushed."""
    text = (source / "Dockerfile").read_text()
    (source / "Dockerfile").write_text(f"{text}RUN false\n")
    assert cli("build", "-t", "x", source).status == 1
    (source / "Dockerfile").write_text(text)


@pytest.mark.parametrize("harm", [truncate, empty, zero, lose, keep])
def test_layers_that_were_not_flushed(cli: Cli, tmp_path: Path, harm: Callable[[Path], None]) -> None:
    source = busybox_context(tmp_path / "context", STEPS)
    (source / "data").write_bytes(os.urandom(100_000))
    fail(cli, source)
    blobs = reboot(cli)
    assert len(blobs) >= 4
    for blob in blobs:
        harm(blob)
    for file in cli.root.glob("snapshots/*/fs/data"):  # these were not flushed, either
        empty(file)
    document = json.loads(cli("fsck", "-n", "--format", "json").out)
    assert {problem["severity"] for problem in document["problems"]} <= {"leftover"}
    done = cli.build("-t", "x", source)
    assert (done.cached() >= 4) == (harm is keep)
    files = cli.files("x")
    assert files["two"].content == files["data"].content == (source / "data").read_bytes()
    assert files["one"].content == b"one\n"
    assert cli("fsck", "--deep").status == 0
    assert cli("fsck", "-n", "--deep").out.endswith(b"everything is in order\n")


def test_fsck_clears_what_was_not_flushed(cli: Cli, tmp_path: Path) -> None:
    source = busybox_context(tmp_path / "context", STEPS)
    (source / "data").write_bytes(os.urandom(1000))
    fail(cli, source)
    for blob in reboot(cli):
        zero(blob)
    assert cli("fsck").status == 0
    assert not (cli.root / "quarantine").exists()
    assert cli("fsck", "-n").out.endswith(b"everything is in order\n")
    assert cli.build("-t", "x", source).cached() == 0
    assert cli.files("x")["two"].content == (source / "data").read_bytes()


def test_what_an_image_names_was_flushed(cli: Cli, tmp_path: Path) -> None:
    source = busybox_context(tmp_path / "context", STEPS)
    (source / "data").write_bytes(os.urandom(1000))
    cli.build("-t", "x", source)
    assert reboot(cli) == []
    assert cli.build("-t", "x", source).cached() >= 4


def marks(cli: Cli) -> list[Path]:
    """Of unpacked layers that were not flushed yet."""
    return sorted(cli.root.glob("snapshots/*/boot"))


def unpacked(cli: Cli) -> dict[str, int]:
    """The unpacked layers, which are others where one was unpacked again."""
    files = (path for name in ("fs", EROFS) for path in cli.root.glob(f"snapshots/*/{name}"))
    return {path.parent.name: path.stat().st_ino for path in files}


def test_unpacked_layers_are_flushed_beside_a_later_build(cli: Cli, tmp_path: Path) -> None:
    cli.build("-t", "base", busybox_context(tmp_path / "base"))
    source = context(tmp_path / "context", "FROM base\nRUN echo 1 > /one\n")
    cli.build("-t", "x", source)
    early = marks(cli)
    assert early  # not within the hour
    for made in (early[0], cli.root / "snapshots/lock"):
        os.utime(made, (0, 0))
    assert cli.build("-t", "x", source).cached() == 1
    assert marks(cli) == early  # not by a rebuild that finds everything
    (source / "Dockerfile").write_text("FROM base\nRUN echo 2 > /one\n")
    cli.build("-t", "x", source)
    for _ in range(100):  # nobody waits for it but this test
        if not set(marks(cli)) & set(early):
            break
        time.sleep(0.05)
    assert not set(marks(cli)) & set(early)


@pytest.mark.parametrize("command", [("prune", "-f"), ("fsck",)])
def test_unpacked_layers_are_flushed_by_who_keeps_house(cli: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
    source = busybox_context(tmp_path / "context", STEPS)
    (source / "data").write_text("1")
    cli.build("-t", "x", source)
    assert marks(cli)
    assert cli(*command).status == 0
    assert marks(cli) == []
    before = unpacked(cli)
    reboot(cli)
    (source / "data").write_text("2")
    cli.build("-t", "x", source)
    assert unpacked(cli).items() >= before.items()
    assert cli("fsck", "-n", "--deep").out.endswith(b"everything is in order\n")


def test_unpacked_layers_that_were_not_flushed_are_unpacked_again(cli: Cli, tmp_path: Path) -> None:
    cli.build("-t", "base", busybox_context(tmp_path / "base"))
    source = context(tmp_path / "context", "FROM base\nRUN echo 1 > /one\n")
    cli.build("-t", "x", source)
    before = unpacked(cli)
    reboot(cli)
    (source / "Dockerfile").write_text("FROM base\nRUN echo 2 > /one\n")
    cli.build("-t", "x", source)
    after = unpacked(cli)
    (base,) = (layer[7:] for layer in cli.config("base")["rootfs"]["diff_ids"])
    assert after[base] != before[base]


def test_a_damaged_database_says_how_to_go_on(cli: Cli, tmp_path: Path) -> None:
    source = busybox_context(tmp_path / "context", STEPS)
    (source / "data").write_text("x")
    cli.build("-t", "x", source)
    for beside in cli.root.glob("cache.db-*"):
        beside.unlink()
    (cli.root / "cache.db").write_bytes(os.urandom(20_000))
    assert cli("images", "-q").out.strip()
    done = cli("build", "-t", "x", source)
    if done.status:  # a clear message, and what it advises helps
        assert "cache.db" in done.err
        assert "Traceback" not in done.err
        assert cli("fsck").status == 0
        cli.build("-t", "x", source)
    assert cli("fsck", "-n").out.endswith(b"everything is in order\n")
