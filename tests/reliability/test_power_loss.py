"""The machine stops: what was written and not flushed may have holes, or may be missing. No image has any of that.

A reboot is played by giving all that remembers its boot the name of another one.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builds import Cli, busybox_context, needs_sandbox

pytestmark = needs_sandbox

STEPS = "RUN echo one > /one\nCOPY data /data\nRUN cat /data > /two\n"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "store")


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
    for file in cli.root.glob("snapshots/*/fs/data"):  # a snapshot is never flushed
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
