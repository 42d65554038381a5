"""`builder cache`: cache mounts as people list, move and remove them."""

from __future__ import annotations

import fcntl
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from builder.store.mounts import hold
from tests.support.archives import archive
from tests.support.builds import Cli, busybox_context, needs_sandbox, reading
from tests.support.mounts import in_use, make_mount

NAMES = ("1" * 32, "2" * 32, "2" * 31 + "3")


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    (tmp_path / "one").mkdir()
    cli = Cli(tmp_path / "one" / "root")
    make_mount(cli.root, NAMES[0], "npm", a="aaaa")
    make_mount(cli.root, NAMES[1], "/root/.cache", b="b")
    make_mount(cli.root, NAMES[2], "/root/.cache", c="c" * 2000)
    return cli


@pytest.fixture
def other(tmp_path: Path) -> Cli:
    (tmp_path / "two").mkdir()
    return Cli(tmp_path / "two" / "root")


def listed(cli: Cli) -> list[dict[str, Any]]:
    return [json.loads(line) for line in cli("cache", "ls", "--no-trunc", "--format", "json").out.splitlines()]


def test_ls(cli: Cli, other: Cli) -> None:
    with in_use(cli.root / "mounts" / NAMES[0]):
        rows = listed(cli)
    assert [(row["ID"], row["Name"], row["Size"], row["InUse"]) for row in rows] == [
        ("/root/.cache", NAMES[1], "1B", "false"),
        ("/root/.cache", NAMES[2], "2kB", "false"),
        ("npm", NAMES[0], "4B", "true"),
    ]
    assert all(row["LastUsed"].endswith(" ago") for row in rows)
    assert cli("cache", "ls").out.decode().splitlines()[0].split("  ")[0] == "NAME"
    assert cli("cache", "ls", "-q").out.split() == [b"2" * 12, b"2" * 12, b"1" * 12]
    assert cli("cache", "ls", "--format", "{{.ID}} {{.Size}}").out.splitlines()[-1] == b"npm 4B"
    assert other("cache", "ls", "-q").out == b""


def test_rm(cli: Cli) -> None:
    busy = cli.root / "mounts" / NAMES[0]
    with in_use(busy):
        done = cli("cache", "rm", "npm", "nope", NAMES[2])
    assert done.status == 1
    assert done.out.decode().splitlines() == [f"Deleted: {NAMES[2][:12]} /root/.cache", "Total reclaimed space: 2kB"]
    assert "no such cache mount: nope" in done.err
    assert "npm is in use" in done.err
    assert [row["Name"] for row in listed(cli)] == [NAMES[1], NAMES[0]]
    assert cli("cache", "rm", "--all", stdin=b"n\n").status == 1
    assert len(listed(cli)) == 2
    assert cli("cache", "rm", "--all", stdin=b"y\n").status == 0
    assert cli("cache", "rm", "-a", "-f").status == 0
    assert listed(cli) == []
    assert cli.leftovers() == []
    for arguments in (["rm"], ["rm", "-a", "npm"], ["export"]):
        assert cli("cache", *arguments).status == 2


def test_export_and_import(cli: Cli, other: Cli, tmp_path: Path) -> None:
    path = tmp_path / "mounts.tar.zst"
    data = cli.root / "mounts" / NAMES[0] / "data"
    (data / "link").symlink_to("a")
    (data / "a").chmod(0o640)
    os.link(data / "a", data / "b")
    os.utime(data / "a", (1_500_000_000, 1_500_000_000))
    data.chmod(0o1777)
    assert cli("cache", "export", "-o", path, "npm", "/root/.cache").status == 0
    assert other("cache", "import", "-i", path).out.decode().splitlines() == [
        f"Imported: {NAMES[0][:12]} npm",
        f"Imported: {NAMES[1][:12]} /root/.cache",
        f"Imported: {NAMES[2][:12]} /root/.cache",
    ]
    assert [(row["Name"], row["ID"], row["Size"]) for row in listed(other)] == [
        (row["Name"], row["ID"], row["Size"]) for row in listed(cli)
    ]
    new = other.root / "mounts" / NAMES[0] / "data"
    assert os.readlink(new / "link") == "a"
    assert ((new / "a").stat().st_mode, (new / "a").stat().st_mtime) == (0o100640, 1_500_000_000)
    assert new.stat().st_mode & 0o7777 == 0o1777
    assert (new / "a").samefile(new / "b")
    (new / "a").write_text("changed here")
    assert b"Kept: " + b"1" * 12 in other("cache", "import", stdin=path.read_bytes()).out
    assert (new / "a").read_text() == "changed here"
    assert other("cache", "import", "--force", stdin=path.read_bytes()).status == 0
    assert (new / "a").read_text() == "aaaa"
    assert other.leftovers() == []


def test_the_archive_is_a_tar_of_everyday(cli: Cli) -> None:
    data = cli("cache", "export", "npm").out
    assert data == cli("cache", "export", "1111").out
    plain = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        assert tar.getnames() == [NAMES[0], f"{NAMES[0]}/id", f"{NAMES[0]}/data", f"{NAMES[0]}/data/a"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "holds no cache mounts"),
        ([("x/data", {}), ("x/id", {"data": b"i"})], "is no archive of cache mounts"),
        ([(NAMES[0], {}), (f"{NAMES[0]}/id", {"data": b"i"})], "is no archive of cache mounts"),
        ([(f"{NAMES[0]}/data", {})], "has no id"),
        ([(f"{NAMES[0]}/data", {}), (f"{NAMES[0]}/id", {"type": b"2", "link": "/etc/passwd"})], "has no id"),
        ([(f"{NAMES[0]}/data", {"type": b"2", "link": "/etc"}), (f"{NAMES[0]}/id", {"data": b"i"})], "is no archive"),
        ([(f"{NAMES[0]}/data", {}), (f"{NAMES[0]}/id", {"data": b"i" * 5000})], "is too long"),
        ([(NAMES[0], {"type": b"2", "link": "/etc"})], "is no archive of cache mounts"),
        ([("../../escaped", {"data": b"x"})], ""),
    ],
)
def test_what_is_no_archive_of_mounts(
    entries: list[tuple[str, dict[str, Any]]], message: str, other: Cli, tmp_path: Path
) -> None:
    done = other("cache", "import", stdin=archive(*entries))
    assert done.status == 1
    assert message in done.err
    assert listed(other) == []
    assert not (tmp_path / "escaped").exists()
    assert other.leftovers() == []
    assert other("cache", "import", stdin=b"no tar").status == 1


@needs_sandbox
@pytest.mark.parametrize(
    ("limit", "said"), [("entries = 3", "more than 3 entries"), ("size = 5000", "more than the 5000")]
)
def test_an_archive_beyond_the_limits(other: Cli, limit: str, said: str) -> None:
    Path(other.environ["BUILDER_CONFIG"]).write_text(f"[limits]\n{limit}\n")
    name = "1" * 32
    entries = [(name, {}), (f"{name}/id", {"data": b"x"}), (f"{name}/data", {}), (f"{name}/data/f", {"data": b""})]
    done = other("cache", "import", stdin=archive(*entries))
    assert (done.status, said in done.err) == (1, True), done.err
    assert listed(other) == []


def test_a_build_uses_what_was_imported(other: Cli, tmp_path: Path) -> None:
    """The id is the one in the Dockerfile, or the target; what a step left on one machine serves on another."""
    (tmp_path / "three").mkdir()
    third = Cli(tmp_path / "three" / "root")
    directory = busybox_context(
        tmp_path / "context",
        "RUN --mount=type=cache,id=npm,target=/c --mount=type=cache,target=/d/ echo one >> /c/f; echo two >> /d/f\n"
        "RUN --mount=type=cache,id=npm,target=/c cat /c/f > /f\n",
    )
    other.build(directory)
    assert sorted(row["ID"] for row in listed(other)) == ["/d", "npm"]
    assert third("cache", "import", stdin=other("cache", "export", "-a").out).status == 0
    third.build("-t", "x", directory)
    assert third.files("x")["f"].content == b"one\none\n"


@needs_sandbox
def test_a_removed_mount_is_made_anew_for_who_waits(other: Cli, tmp_path: Path) -> None:
    """A step that waits for a mount which is removed meanwhile gets a new one."""
    directory = busybox_context(
        tmp_path / "context", "RUN --mount=type=cache,id=m,target=/c,sharing=locked echo x >> /c/f; cat /c/f\n"
    )
    other.build(directory)
    (mount,) = (other.root / "mounts").iterdir()
    descriptor = hold(str(mount), fcntl.LOCK_EX)
    with reading(other.start("build", "--no-cache", "--progress", "plain", directory)) as log:
        try:
            log.wait_for("waits for the cache mount m, which another uses")
            mount.rename(tmp_path / "aside")
        finally:
            os.close(descriptor)
        assert log.process.wait(60) == 0, log.text
    assert (mount / "data/f").read_text() == "x\n"
