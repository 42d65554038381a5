"""A full disk: what is in order is found in order, what removes things makes room, and the rest says what to do."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.errors import DiskFull
from builder.store.leases import held
from builder.store.room import RESERVE, SIZE
from builder.store.store import Store
from tests.support.builds import Cli, context

Disk = Callable[[str], Path]

DOCKERFILE = "FROM scratch AS one\nCOPY a /a\nFROM scratch\nCOPY --from=one /a /a\nCOPY b /b\n"  # unpacks `one`


class Full:
    """A store with the image `ok` on a disk that is full afterwards."""

    def __init__(self, disk: Path, tmp_path: Path) -> None:
        self.disk = disk
        self.cli = Cli(disk / "store")
        self.source = context(tmp_path / "context", DOCKERFILE, a="a", b="b")
        (self.source / "a").write_bytes(os.urandom(1 << 20))
        self.cli.build("-t", "ok", self.source)

    def fill(self) -> None:
        """Leave nothing."""
        with (self.disk / "filler").open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while file.write(b"x" * size):
                        pass
                except OSError:
                    continue
        assert self.free() == 0

    def free(self) -> int:
        return _free(self.disk)

    def problems(self) -> list[str]:
        document = json.loads(self.cli("fsck", "-n", "--format", "json").out)
        return [str(problem) for problem in document["problems"] if problem["severity"] != "leftover"]


def _free(disk: Path) -> int:
    status = os.statvfs(disk)
    return status.f_bavail * status.f_frsize


@pytest.fixture
def full(small_disk: Disk, tmp_path: Path) -> Full:
    made = Full(small_disk("14m"), tmp_path)
    made.fill()
    return made


@pytest.fixture
def bare(small_disk: Disk, tmp_path: Path) -> Full:
    """The same without the room that is kept."""
    made = Full(small_disk("14m"), tmp_path)
    (made.cli.root / RESERVE).write_bytes(b"")  # as a process that is killed leaves it
    made.fill()
    return made


def _write_ahead(cli: Cli) -> None:
    """Leave the database as a killed process does: with its last changes in the log."""
    path = cli.root / "cache.db"
    before = {name: Path(f"{path}{name}") for name in ("", "-wal")}
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("INSERT INTO memos VALUES ('test', 'key', x'', 0, '')")
    kept = {name: file.read_bytes() for name, file in before.items()}
    connection.close()
    for name, file in before.items():
        file.write_bytes(kept[name])
    assert kept["-wal"]


@pytest.mark.parametrize("options", [[], ["-n"]])
@pytest.mark.parametrize("written_ahead", [False, True])
def test_what_is_in_order_is_found_in_order(
    small_disk: Disk, tmp_path: Path, options: list[str], written_ahead: bool
) -> None:
    full = Full(small_disk("14m"), tmp_path)
    (full.cli.root / RESERVE).unlink()
    if written_ahead:
        _write_ahead(full.cli)
    full.fill()
    done = full.cli("fsck", *options)
    assert done.status == 0, done.out + done.err.encode()
    assert b"everything is in order" in done.out
    assert b"1 images" in done.out
    assert not (full.cli.root / "quarantine").exists()
    (full.disk / "filler").unlink()
    assert "CACHED" in full.cli.build("-t", "ok", full.source).err


def test_a_database_that_cannot_be_opened_is_not_moved(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "store")
    cli.build("-t", "x", context(tmp_path / "context", DOCKERFILE, a="a", b="b"))
    log = cli.root / "cache.db-wal"
    log.mkdir()
    done = cli("fsck")
    assert done.status == 1
    assert f"error: {cli.root}/cache.db: the cache database cannot be read: " in done.err
    assert "\nhelp: " in done.err
    assert not (cli.root / "quarantine").exists()
    log.rmdir()
    assert cli("fsck").status == 0


@pytest.mark.parametrize("how", [["rmi", "ok"], ["image", "prune", "-af"], ["prune", "-af"]])
def test_removing_makes_room(full: Full, how: list[str]) -> None:
    done = full.cli(*how)
    assert done.status == 0, done.err
    assert full.cli.entries() == {}
    assert full.problems() == []
    assert (full.cli.root / RESERVE).stat().st_size > SIZE // 2, "the next time there is room again"
    if how[0] != "prune":
        assert "help: 'builder prune' removes the build cache, which keeps layers" in done.err
        full.fill()
        done = full.cli("prune", "-af")
        assert done.status == 0, done.err
    assert full.free() > 1 << 20
    (full.disk / "filler").unlink()
    full.cli.build("-t", "ok", full.source)
    assert full.problems() == []


def test_unused_build_cache_goes(small_disk: Disk, tmp_path: Path) -> None:
    full = Full(small_disk("14m"), tmp_path)
    full.cli("rmi", "ok")
    full.fill()
    done = full.cli("prune", "-f")
    assert done.status == 0, done.err
    assert b"Deleted build cache records" in done.out
    assert full.free() > 1 << 20
    assert full.problems() == []


@pytest.mark.parametrize("how", [["rmi", "ok"], ["image", "prune", "-af"], ["prune", "-f"], ["prune", "-af"]])
def test_without_a_reserve_unpacked_layers_go_first(bare: Full, how: list[str]) -> None:
    done = bare.cli(*how)
    assert done.status == 0, done.err
    assert bare.free() > 0
    assert bare.problems() == []
    (bare.disk / "filler").unlink()
    bare.cli.build("-t", "ok", bare.source)
    assert bare.cli.files("ok")["a"].content == (bare.source / "a").read_bytes()


def test_with_nothing_to_let_go_it_says_what_else_to_do(small_disk: Disk, tmp_path: Path) -> None:
    bare = Full(small_disk("14m"), tmp_path)
    (bare.cli.root / RESERVE).unlink()
    assert bare.cli("prune", "-af").status == 0
    bare.cli.build("--output", "type=image,name=ok", bare.source)
    (bare.cli.root / RESERVE).unlink(missing_ok=True)
    shutil.rmtree(bare.cli.root / "snapshots")
    logs = next((bare.cli.root / "builds").glob("*.json")).with_suffix("")
    logs.mkdir(exist_ok=True)
    (logs / "1.log").write_bytes(b"x" * (256 << 10))
    bare.fill()
    done = bare.cli("rmi", "ok")
    assert done.status == 1
    assert done.err == (
        f"error: {bare.cli.root}/index.json: cannot be written: the disk is full\n"
        "help: remove something else from this disk, or the logs of builds: builder builds rm --all\n"
    )
    assert bare.problems() == []
    assert bare.cli("builds", "rm", "--all").status == 0
    assert bare.free() >= 256 << 10
    assert bare.cli("rmi", "ok").status == 0


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["build", "-t", "new", "SOURCE"], ""),
        (["build", "--no-cache", "-t", "new", "SOURCE"], ""),
        (["run", "ok", "true"], ""),
        (["tag", "ok", "other"], "index.json"),
        (["save", "-o", "/dev/null", "ok"], "leases"),
        (["du"], "cache.db"),
        (["plan", "SOURCE"], ""),
    ],
)
def test_what_needs_room_says_so(full: Full, words: list[str], place: str) -> None:
    done = full.cli(*(word.replace("SOURCE", str(full.source)) for word in words))
    assert done.status == (125 if words[0] == "run" else 1)
    error, remedy = done.err.strip().split("\n")[-2:]
    assert error.startswith(f"error: {full.cli.root}/{place}"), done.err
    assert error.endswith(": the disk is full"), done.err
    assert remedy == "help: 'builder prune' makes room", done.err


def test_output_that_has_no_room(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as nowhere, Cli(tmp_path / "store").start("images", stdout=nowhere) as process:
        _, err = process.communicate(timeout=60)
    error, remedy = err.decode().splitlines()
    assert error == "error: input/output: No space left on device"
    assert remedy == "help: make room on the disk; 'builder prune' does where the store is"
    assert process.returncode == 1


def test_the_reserve_comes_back(full: Full) -> None:
    (full.disk / "filler").unlink()
    (full.cli.root / RESERVE).write_bytes(b"")  # as after a kill
    assert full.cli("tag", "ok", "other").status == 0
    assert (full.cli.root / RESERVE).stat().st_size == SIZE


def test_a_lease_has_whole_lines(small_disk: Disk) -> None:
    disk = small_disk("1m")
    store = Store(str(disk / "store"))
    digests = [f"sha256:{number:064x}" for number in range(200)]
    with store.lease():
        filler = disk / "filler"
        filler.write_bytes(b"x" * (_free(disk) - 4096))  # a page is left, in which the last line has no place
        with pytest.raises(DiskFull, match="what is in use cannot be noted") as caught:
            list(map(store.layout.pin, digests))
        assert "leases" in (caught.value.place or "")
        assert caught.value.remedy == "'builder prune' makes room"
        filler.unlink()
        for digest in digests:
            store.layout.pin(digest)
        assert held(store.leases) == set(digests)
    store.close()


class _Killed(BaseException):
    """Stands for SIGKILL: nothing but what is on the disk is left."""


@pytest.mark.parametrize("where", ["collect.Layout.digests", "collect._forget", "database.Database.forget"])
def test_a_prune_that_is_killed_loses_no_image(full: Full, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def kill(*_: object) -> None:
        raise _Killed

    (full.disk / "filler").unlink()
    (full.source / "b").write_text("other")
    full.cli.build("-t", "ok", full.source)  # what was ok is dangling now
    full.fill()
    with monkeypatch.context() as patch:
        patch.setattr(f"builder.store.{where}", kill)
        patch.setattr("builder.store.room.keep_room", lambda *_, **__: None)
        with pytest.raises(_Killed):
            full.cli("prune", "-f")
    assert full.problems() == []
    assert full.cli.files("ok")["b"].content == b"other"
    done = full.cli("prune", "-f")
    assert done.status == 0, done.err
    assert full.cli.files("ok")["a"].content == (full.source / "a").read_bytes()
    (full.disk / "filler").unlink()
    (full.source / "b").write_text("b")
    full.cli.build("-t", "ok", full.source)
    assert full.problems() == []
