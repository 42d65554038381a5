"""A full disk and a store that can only be read: one clear message, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builds import Cli, busybox_context, context, needs_sandbox

Disk = Callable[[str], Path]


def problems(cli: Cli) -> list[str]:
    """What `fsck -n` finds that is worse than a leftover."""
    document = json.loads(cli("fsck", "-n", "--format", "json").out)
    return [str(problem) for problem in document["problems"] if problem["severity"] != "leftover"]


def fill(disk: Path, free: int) -> Path:
    """Leave `free` bytes on a disk."""
    status = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(b"x" * max(0, status.f_bavail * status.f_frsize - free))
    return filler


@pytest.mark.parametrize("free", [0, 40_000, 300_000, 1_500_000])
def test_full_while_files_are_copied(small_disk: Disk, tmp_path: Path, free: int) -> None:
    disk = small_disk("16m")
    cli = Cli(disk / "store")
    source = context(tmp_path / "context", "FROM scratch\nCOPY a /a\n", a="a")
    cli.build("-t", "old", source)
    (source / "a").write_bytes(os.urandom(3 << 20))
    (source / "Dockerfile").write_text("FROM scratch\nCOPY a /a\nCOPY a /b\n")
    filler = fill(disk, free)
    done = cli("build", "-t", "new", source)
    assert done.status == 1
    assert "No space left" in done.err or "disk is full" in done.err or "disk I/O error" in done.err, done.err
    assert "Traceback" not in done.err
    assert "internal error" not in done.err
    assert cli.leftovers() == []
    assert problems(cli) == []
    assert cli.files("old")["a"].content == b"a"
    filler.unlink()
    cli.build("-t", "new", source)
    assert cli.files("new")["a"].content == (source / "a").read_bytes()
    assert problems(cli) == []


@needs_sandbox
@pytest.mark.parametrize("command", ["cat /bin/busybox /bin/busybox /bin/busybox /bin/busybox > /big", "sleep 0"])
def test_full_while_a_step_writes(small_disk: Disk, tmp_path: Path, command: str) -> None:
    disk = small_disk("24m")
    cli = Cli(disk / "store")
    source = busybox_context(tmp_path / "context")
    cli.build("-t", "base", source)
    with (source / "Dockerfile").open("a") as file:
        file.write(f"RUN {command}\n")
    filler = fill(disk, 1_000_000 if "cat" in command else 0)
    done = cli("build", "-t", "x", source)
    assert done.status == 1
    assert "Traceback" not in done.err
    assert "internal error" not in done.err
    assert cli.leftovers() == []
    assert problems(cli) == []
    filler.unlink()
    cli.build("-t", "x", source)
    assert problems(cli) == []


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


def test_a_store_that_can_only_be_read(small_disk: Disk, tmp_path: Path) -> None:
    disk = small_disk("16m")
    cli = Cli(disk / "store")
    source = context(tmp_path / "context", "FROM scratch\nCOPY a /a\n", a="a" * 5000)
    cli.build("-t", "x", source)
    remount(disk, "ro")
    for words in (
        ["images"],
        ["inspect", "x"],
        ["history", "x"],
        ["layers", "x"],
        ["cat", "x", "/a"],
        ["ls", "x", "/"],
    ):
        done = cli(*words)
        assert done.status == 0, (words, done.err)
    saved = cli("save", "-o", str(tmp_path / "x.tar"), "x")
    assert saved.status == 0, saved.err
    done = cli("fsck")
    assert done.status == 0, done.err
    assert b"can only be read" in done.out
    (source / "a").write_text("b")
    for words in (["build", "-t", "x", str(source)], ["tag", "x", "y"], ["rmi", "x"], ["prune", "-f"]):
        done = cli(*words)
        assert done.status == 1, words
        assert "Traceback" not in done.err
        assert "internal error" not in done.err, (words, done.err)
    remount(disk, "rw")
    layer = cli.root / "blobs" / cli.manifest("x")["layers"][0]["digest"].replace(":", "/")
    layer.write_bytes(b"spoilt")
    remount(disk, "ro")
    done = cli("fsck", "--repair")
    assert done.status == 1
    assert b"nothing is repaired" in done.out
    assert layer.read_bytes() == b"spoilt"
