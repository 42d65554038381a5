"""`builder fsck`: each kind of damage is found, mended where that is possible, and the store works afterwards."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.errors import StoreError
from builder.export.registry import _images as images_within
from builder.filesystem.locks import LockTable
from builder.oci.reference import parse
from builder.oci.spec import OCI_INDEX, Descriptor, Index, encode
from builder.store import check_images
from builder.store.check import check
from builder.store.check_listing import Listing
from builder.store.check_session import LEFTOVER, Depth
from builder.store.mounts import hold
from builder.store.store import Store
from tests.support.builds import Cli, busybox_context, needs_sandbox
from tests.support.checks import CHECK, DEEP, DROP, REPAIR, blob_path, database, run, spoil
from tests.support.registry import FakeRegistry

DOCKERFILE = "FROM scratch AS one\nCOPY a /dir/a\nCOPY b /dir/b\nFROM scratch\nCOPY --from=one /dir/b /b\n"


@pytest.fixture
def cli(built: Cli) -> Cli:
    return built


def snapshot_files(cli: Cli) -> Path:
    """The unpacked first stage: the one with the file `a`, or else with `b`."""
    return next(iter((cli.root / "snapshots").glob("*/fs")))


def test_a_store_in_order(cli: Cli) -> None:
    result = run(cli, Depth(deep=True))
    assert result.problems == ()
    assert result.counts["images"] == 1
    assert result.counts["blobs"] >= 3
    assert result.counts["snapshots"] >= 1
    assert result.counts["records"] > 0


def test_an_image_that_is_used_says_what_is_lost(cli: Cli) -> None:
    digest = cli.image_id("x")
    blob_path(cli, digest).unlink()
    done = cli("history", "x")
    assert done.status == 1
    assert f"the image cannot be read: blob {digest} is missing: No such file" in done.err
    assert "help: run 'builder fsck'" in done.err


def test_what_indexes_list_many_times_is_looked_at_once(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """As 'load' takes them from a stranger's archive: here as often as there is memory and time."""
    store = Store(str(cli.root))
    (entry,) = store.images.all()
    found, manifest = entry.descriptor, entry.descriptor
    for _ in range(3):
        index = encode(Index(schema_version=2, media_type=OCI_INDEX, manifests=[found] * 5))
        found = Descriptor(OCI_INDEX, store.layout.put(index), len(index))
    store.images.tag(found, [parse("many")])
    read: list[str] = []
    reading = check_images._find_fault

    def spy(session: Any, entry: Descriptor, *known: Any) -> str:
        read.append(entry.digest)
        return reading(session, entry, *known)

    monkeypatch.setattr(check_images, "_find_fault", spy)
    assert run(cli, CHECK).problems == ()
    assert len(read) == len(set(read)) == 4
    assert [image.digest for image in images_within(store, found)] == [manifest.digest]
    store.close()


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store here"):
        check(str(tmp_path / "nothing"), CHECK, lambda *_: None)
    assert not (tmp_path / "nothing").exists()


def test_checking_changes_nothing(cli: Cli) -> None:
    spoil(blob_path(cli, cli.manifest("x")["layers"][0]["digest"]))
    (cli.root / "tmp/left").touch()

    def state() -> dict[str, int]:
        return {
            str(path): path.lstat().st_mtime_ns for path in cli.root.rglob("*") if not path.name.startswith("cache")
        }

    before = state()
    assert run(cli, DEEP).remaining()
    assert state() == before


def test_a_damaged_layer_is_set_aside_and_made_again(cli: Cli, source: Path) -> None:
    digest = cli.manifest("x")["layers"][0]["digest"]
    spoil(blob_path(cli, digest))
    areas = {problem.area for problem in run(cli).problems}
    assert {"blob", "image"} <= areas
    result = run(cli, REPAIR)
    assert [problem.area for problem in result.remaining()] == ["image"]
    (lost,) = result.remaining()
    assert lost.place == "docker.io/library/x:latest"
    assert digest in lost.cause
    assert lost.remedy.startswith("build it again: builder build -t x")
    assert str(source) in lost.remedy
    assert len(list((cli.root / "quarantine").iterdir())) == 1
    cli.build("-t", "x", source)
    assert run(cli, DEEP).problems == ()
    assert cli.files("x")["b"].content == b"b" * 2000


@pytest.mark.parametrize("spoilt", [True, False])
def test_a_layer_of_a_registry_is_fetched_again(tmp_path: Path, source: Path, spoilt: bool) -> None:
    cli = Cli(tmp_path / "other")
    with FakeRegistry() as registry:
        name = f"{registry.host}/app:1"
        cli.build("-t", name, source, "--push")
        assert cli("rmi", name).status == 0
        assert cli("prune", "-a", "-f").status == 0
        assert cli("pull", name).status == 0
        manifest = json.loads(cli.blob(cli.entries()[name]["digest"]))
        digest = manifest["layers"][0]["digest"]
        layer = blob_path(cli, digest)
        if spoilt:
            layer.write_bytes(b"")
        else:
            layer.unlink()
        assert len(run(cli).remaining()) == 1 + spoilt
        done = cli("fsck")
        assert done.status == 0, done.out
        assert f"fetched again from {name}".encode() in done.out
        assert cli.blob(digest)
        layer.unlink()
    done = cli("fsck")
    assert done.status == 1
    assert b"cannot be fetched again" in done.out
    assert b"build it again" in done.out


def test_a_missing_configuration(cli: Cli) -> None:
    blob_path(cli, cli.image_id("x")).unlink()
    (problem,) = run(cli, REPAIR).remaining()
    assert "configuration" in problem.cause
    assert "--repair" in problem.remedy
    dropped = run(cli, DROP)
    assert not dropped.remaining()
    assert "x:latest" in dropped.problems[0].place
    assert "builder build -t x" in dropped.problems[0].remedy
    assert cli.entries() == {}
    assert run(cli).problems == ()


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"size": 17}, "its descriptor says 17"),
        ({"mediaType": "application/vnd.oci.image.index.v1+json"}, "not an index"),
        ({"mediaType": "text/plain"}, "neither a manifest's nor an index's"),
        ({"digest": "sha256:" + "0" * 64}, "is missing"),
        ({"digest": "md5:00"}, "unsupported digest"),
    ],
)
def test_a_wrong_entry_of_the_index(cli: Cli, change: dict[str, Any], cause: str) -> None:
    index = json.loads((cli.root / "index.json").read_text())
    index["manifests"][0].update(change)
    (cli.root / "index.json").write_text(json.dumps(index))
    (problem,) = run(cli).remaining()
    assert cause in problem.cause


def test_a_damaged_index_is_kept_aside_and_made_again(cli: Cli) -> None:
    before = cli.entries()
    (cli.root / "index.json").write_text('{"schemaVersion": 2, "manifests": [')
    done = cli("images")
    assert done.status == 1
    assert "index.json" in done.err
    assert "Traceback" not in done.err
    (problem,) = run(cli).remaining()
    assert problem.area == "layout"
    result = run(cli, REPAIR)
    assert not result.remaining()
    assert "1 of them with the names" in result.problems[0].repair
    (kept,) = (cli.root / "quarantine").iterdir()
    assert kept.read_text().endswith("[")
    assert cli.entries().keys() == before.keys()
    assert run(cli).problems == ()


def test_a_missing_index(cli: Cli) -> None:
    (cli.root / "index.json").unlink()
    (cli.root / "oci-layout").write_text("{}")
    assert len(run(cli).remaining()) == 2
    assert not run(cli, REPAIR).remaining()
    assert "docker.io/library/x:latest" in cli.entries()


@pytest.mark.parametrize("then", ["COPY missing /\n", "LABEL a=b\n"])
def test_a_name_goes_to_the_newest_image_that_is_here(cli: Cli, source: Path, then: str) -> None:
    """A build that failed has its name recorded, too, and one whose image is lost."""
    ((name, before),) = cli.entries().items()
    with (source / "Dockerfile").open("a") as file:
        file.write(then)
    if cli("build", "-t", "x", source).status == 0:
        blob_path(cli, cli.entries()[name]["digest"]).unlink()
    (cli.root / "index.json").unlink()
    assert not run(cli, REPAIR).remaining()
    assert cli.entries()[name]["digest"] == before["digest"]


def test_a_database_that_is_none(cli: Cli, source: Path) -> None:
    path = cli.root / "cache.db"
    for beside in cli.root.glob("cache.db-*"):
        beside.unlink()
    path.write_bytes(b"SQLite format 3\0" + os.urandom(8192))
    (problem,) = run(cli).remaining()
    assert problem.area == "record"
    assert not run(cli, REPAIR).remaining()
    cli.build("-t", "x", source)
    assert run(cli).problems == ()


@pytest.mark.parametrize(
    ("statement", "severity"),
    [
        (f"INSERT INTO layers (diff_id, digest, media_type, size) VALUES ('sha256:1', 'sha256:{'1' * 64}', 'x', 5)",
         LEFTOVER),
        ("UPDATE layers SET size = 3", "damage"),
        (f"UPDATE steps SET diff_id = 'sha256:{'2' * 64}'", LEFTOVER),
        (f"INSERT INTO memos VALUES ('image', 'k', x'00', 0, 'sha256:{'3' * 64}')", LEFTOVER),
        ("UPDATE recipes SET recipe = x'7b7b'", "damage"),
        ("DELETE FROM recipes", "damage"),
    ],
)  # fmt: skip
def test_records(cli: Cli, source: Path, statement: str, severity: str) -> None:
    database(cli, statement)
    found = {problem.severity for problem in run(cli).problems if problem.area == "record"}
    assert severity in found
    assert not run(cli, REPAIR).remaining()
    assert run(cli).problems == ()
    cli.build("-t", "x", source)


def truncate(files: Path) -> None:
    os.truncate(next(path for path in files.rglob("*") if path.is_file()), 5)


def add(files: Path) -> None:
    (files / "more").touch()


def remove(files: Path) -> None:
    next(path for path in files.rglob("*") if path.is_file()).unlink()


def retype(files: Path) -> None:
    path = next(path for path in files.rglob("*") if path.is_file())
    path.unlink()
    path.mkdir()


def change_mode(files: Path) -> None:
    next(path for path in files.rglob("*") if path.is_file()).chmod(0o600)


def rewrite(files: Path) -> None:
    spoil(next(path for path in files.rglob("*") if path.is_file()))


def vanish(files: Path) -> None:
    shutil.rmtree(files)


@pytest.mark.parametrize(
    ("change", "depth"),
    [(truncate, CHECK), (remove, CHECK), (retype, CHECK), (change_mode, CHECK), (rewrite, DEEP), (vanish, CHECK)],
)
def test_snapshots(cli: Cli, change: Callable[[Path], None], depth: Depth) -> None:
    files = snapshot_files(cli)
    change(files)
    (problem,) = run(cli, depth).remaining()
    assert problem.area == "snapshot"
    assert not run(cli, Depth(repair=True, deep=depth.deep)).remaining()
    assert not files.parent.exists()
    assert run(cli, DEEP).problems == ()


def test_a_snapshot_that_a_collection_takes_meanwhile(cli: Cli) -> None:
    files = snapshot_files(cli)

    def take(what: str, done: int, of: int) -> None:
        if what == "snapshots":
            shutil.rmtree(files.parent, ignore_errors=True)

    assert check(str(cli.root), CHECK, take).problems == ()
    assert not files.parent.exists()


@pytest.mark.parametrize("again", [False, True])
def test_a_snapshot_that_a_collection_takes_while_its_files_are_looked_for(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Also where it is being unpacked again by then."""
    files = snapshot_files(cli)
    compare = Listing.compare

    def take(listing: Listing, path: str) -> str:
        shutil.move(files.parent, cli.root / "taken")
        if again:
            files.mkdir(parents=True)
        return compare(listing, path)

    monkeypatch.setattr(Listing, "compare", take)
    assert run(cli, CHECK).problems == ()


UNCHANGED = "cat <> /tmp/a; cat <> /tmp/b; chmod 700 /tmp/run; chmod 755 /tmp/run; mkdir /tmp/x; rmdir /tmp/x"
"""What leaves files in a step's directory that are not in its layer, since they are as they were."""


@pytest.fixture
def ran(cli: Cli, tmp_path: Path) -> tuple[Cli, Path]:
    """An image whose last step changed one file and touched others; the directory that the step wrote."""
    context = busybox_context(
        tmp_path / "context", f"RUN mkdir /tmp/run; echo a >/tmp/a; echo b >/tmp/b\nRUN {UNCHANGED}; echo >/c\n"
    )
    cli.build("-t", "x", context)
    (files,) = (path.parent for path in (cli.root / "snapshots").glob("*/fs/c"))
    return cli, files


@needs_sandbox
@pytest.mark.parametrize("origin", ["", "docker.io/library/x:latest"])
def test_what_a_step_left_as_it_was(ran: tuple[Cli, Path], origin: str) -> None:
    """It is in the directory of the step's layer no more than in the layer."""
    cli, files = ran
    assert sorted(path.name for path in files.rglob("*")) == ["c"]
    database(cli, f"UPDATE layers SET origin = '{origin}'")
    assert run(cli, DEEP).problems == ()


@needs_sandbox
@pytest.mark.parametrize("path", ["more", "tmp/a", "new/deep/more"])
def test_a_file_too_many(ran: tuple[Cli, Path], path: str) -> None:
    cli, files = ran
    (files / path).parent.mkdir(parents=True, exist_ok=True)
    (files / path).write_text("a\n")
    (problem,) = run(cli).remaining()
    assert problem.cause == f"{path.partition('/')[0]} is not in its archive"
    assert run(cli, REPAIR).problems[0].repair
    assert run(cli, DEEP).problems == ()


def test_a_snapshot_in_use_stays(cli: Cli) -> None:
    from builder.store.leases import Lease

    files = snapshot_files(cli)
    truncate(files)
    lease = Lease(str(cli.root / "leases"))
    lease.pin(f"sha256:{files.parent.name}")
    (problem,) = run(cli, REPAIR).remaining()
    assert "running build" in problem.remedy
    assert files.exists()
    lease.release()
    assert not run(cli, REPAIR).remaining()


def test_leftovers(cli: Cli) -> None:
    (cli.root / "tmp/work.1.abc").mkdir()
    (cli.root / "leases/1.abc").write_text("sha256:0\n")
    (cli.root / "partial").mkdir(exist_ok=True)
    (cli.root / "partial/strange").touch()
    digest = cli.image_id("x").partition(":")[2]
    (cli.root / "partial" / digest).touch()  # the blob is here
    (cli.root / "partial" / ("0" * 64)).touch()  # and this one is not: its transfer will go on
    mount = cli.root / "mounts" / ("0" * 32)
    (mount / "data.new").mkdir(parents=True)
    (mount / "lock").touch()
    (cli.root / "snapshots/tmp-1").mkdir()
    found = run(cli)
    assert {problem.severity for problem in found.problems} == {LEFTOVER}
    assert len(found.problems) == 6
    assert not found.remaining()
    assert len(run(cli, REPAIR).problems) == 6
    assert run(cli).problems == ()
    assert [path.name for path in (cli.root / "partial").iterdir()] == ["0" * 64]


@pytest.mark.parametrize("mode", [fcntl.LOCK_EX, fcntl.LOCK_SH], ids=["locked", "shared"])
def test_a_cache_mount_that_a_step_fills_stays(cli: Cli, mode: int) -> None:
    """Steps that share a mount hold a shared lock while one of them fills it."""
    mount = cli.root / "mounts" / ("0" * 32)
    (mount / "data.new").mkdir(parents=True)
    held = hold(str(mount), mode)
    try:
        assert run(cli, REPAIR).problems == ()
        assert (mount / "data.new").exists()
    finally:
        os.close(held)
    assert len(run(cli, REPAIR).problems) == 1
    assert not (mount / "data.new").exists()


def test_no_step_gets_a_cache_mount_that_is_being_mended(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = cli.root / "mounts" / ("0" * 32)
    (mount / "data.new").mkdir(parents=True)
    (mount / "lock").touch()

    def remove(path: str) -> None:
        with pytest.raises(BlockingIOError):
            hold(str(mount), fcntl.LOCK_SH | fcntl.LOCK_NB)
        shutil.rmtree(path)

    monkeypatch.setattr("builder.store.check_leftovers.remove_tree", remove)
    (problem,) = run(cli, REPAIR).problems
    assert problem.repair == "removed"


def test_a_layer_that_is_being_unpacked_stays(cli: Cli) -> None:
    """Its owner holds the lock."""
    temporary = cli.root / "snapshots" / ("tmp-" + "0" * 64)
    temporary.mkdir()
    with LockTable(str(cli.root / "snapshots/lock")).exclusive("0" * 64):
        (problem,) = run(cli, REPAIR).problems
        assert not problem.repair
        assert temporary.exists()
    (problem,) = run(cli, REPAIR).problems
    assert problem.repair == "removed"
    assert not temporary.exists()
    assert run(cli).problems == ()


def test_what_cannot_be_read_is_set_aside(cli: Cli) -> None:
    (record,) = (cli.root / "builds").glob("*.json")
    record.write_bytes(b"\0" * 100)
    (cli.root / "mounts/strange").mkdir(parents=True)
    (cli.root / "blobs/sha256/strange").touch()
    assert len(run(cli).remaining()) == 3
    assert not run(cli, REPAIR).remaining()
    assert len(list((cli.root / "quarantine").iterdir())) == 3
    assert run(cli).problems == ()


def test_from_the_command_line(cli: Cli) -> None:
    done = cli("fsck")
    assert (done.status, done.err) == (0, "")
    assert done.out.endswith(b"everything is in order\n")
    blob_path(cli, cli.image_id("x")).unlink()
    done = cli("fsck", "-n")
    assert done.status == 1
    assert b"docker.io/library/x:latest" in done.out
    document = json.loads(cli("fsck", "--format", "json").out)
    assert document["remaining"] == 1
    assert document["problems"][0]["area"] == "image"
    done = cli("fsck", "--repair")
    assert done.status == 0
    assert b"its name was dropped" in done.out
    assert cli("fsck", "-n", "--repair").status == 2
