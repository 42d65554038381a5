"""The image that a copy makes beside its layer: what unpacking the layer gives, or nothing."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from builder.errors import LayerError
from builder.filesystem import kinds
from builder.filesystem.decompress import decompressor
from builder.filesystem.erofs_layer import ErofsLayer, write_erofs
from builder.filesystem.snapshot_entries import EROFS
from builder.filesystem.tree import FileInfo
from builder.filesystem.unpack import Unpacked
from builder.solver.assemble import write_layer
from builder.solver.erofs_copy import ErofsCopy
from builder.solver.roots import EmptyTree
from builder.solver.staging import Staged, Staging
from tests.solver.support import OneFile
from tests.support.builds import Cli, busybox_context, needs_sandbox

TIME = 1_577_836_800_987_654_321


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    (tmp_path / "large").write_bytes(b"l" * (3 << 20) + b"e")
    (tmp_path / "small").write_bytes(b"s" * 5000)
    staging = Staging(EmptyTree())
    staging.put(Staged("d", FileInfo(kinds.DIRECTORY, 0o750, 1, 2, mtime_ns=TIME)))
    for name in ("large", "small"):
        size = (tmp_path / name).stat().st_size
        staging.put(Staged(f"d/{name}", FileInfo(kinds.FILE, 0o640, 3, 4, size, TIME), OneFile(tmp_path / name)))
    staging.put(Staged("d/text", FileInfo(kinds.FILE, 0o644, size=2, mtime_ns=TIME), b"hi", {"user.note": b"1"}))
    staging.put(Staged("d/link", FileInfo(kinds.SYMLINK, 0o777, link="text", mtime_ns=-TIME)))
    staging.put(Staged("d/same", FileInfo(kinds.FILE, 0o644, size=2, mtime_ns=TIME), hardlink="d/text"))
    return staging


def test_it_is_the_layers_own_image(staging: Staging, tmp_path: Path) -> None:
    erofs = ErofsCopy(str(tmp_path / "beside"))
    blob = write_layer(staging, str(tmp_path), erofs=erofs)
    assert erofs.complete
    with open(blob.path, "rb") as file:
        assert write_erofs(decompressor(file), str(tmp_path / "after")).diff_id == blob.diff_id
    assert (tmp_path / "beside").read_bytes() == (tmp_path / "after").read_bytes()


@pytest.mark.parametrize("where", ["__init__", "write", "add", "finish"])
def test_a_disk_without_room_for_it_is_no_error(
    staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if where == "write":
        monkeypatch.setattr("builder.filesystem.erofs_writer.ErofsWriter.write", full)
    else:
        monkeypatch.setattr(ErofsLayer, where, full)
    erofs = ErofsCopy(str(tmp_path / "beside"))
    blob = write_layer(staging, str(tmp_path), erofs=erofs)
    assert blob.size
    assert not erofs.complete


def test_a_layer_that_has_no_place_in_one(tmp_path: Path) -> None:
    staging = Staging(EmptyTree())
    staging.put(Staged("f", FileInfo(kinds.FILE, 0o644, size=1), b"1", {"system.posix_acl_access": b"\2\0\0\0"}))
    erofs = ErofsCopy(str(tmp_path / "beside"))
    write_layer(staging, str(tmp_path), erofs=erofs)
    assert not erofs.complete


def test_nothing_stays_open_after_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"short")
    staging = Staging(EmptyTree())
    staging.put(Staged("f", FileInfo(kinds.FILE, 0o644, size=50), OneFile(tmp_path / "f")))
    erofs = ErofsCopy(str(tmp_path / "beside"))
    with pytest.raises(LayerError):
        write_layer(staging, str(tmp_path), erofs=erofs)
    erofs.close()
    opened = {os.path.realpath(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd")}
    assert str(tmp_path / "beside") not in opened
    assert not erofs.complete


@pytest.fixture
def context(cli: Cli, tmp_path: Path) -> Path:
    """One whose COPY is worth an image."""
    made = busybox_context(tmp_path / "context")
    for number in range(100):
        (made / "base" / f"f{number}").write_bytes(os.urandom(1000))
    return made


@needs_sandbox
def test_what_a_command_needs_is_not_unpacked(
    cli: Cli, context: Path, monkeypatch: pytest.MonkeyPatch, mounts_erofs: None
) -> None:
    """The copy has made the image; one file changed later, only that is read, and the layer is unpacked."""
    unpacked = []

    def note(*layer: Any, **bounds: Any) -> Unpacked:
        unpacked.append(1)
        return write_erofs(*layer, **bounds)

    monkeypatch.setattr("builder.filesystem.erofs_layer.write_erofs", note)
    with (context / "Dockerfile").open("a") as file:
        file.write("RUN cat /f7 >/copied\n")
    cli.build("-t", "x", context)
    assert cli.files("x")["copied"].content == (context / "base/f7").read_bytes()
    assert len(list((cli.root / "snapshots").glob(f"*/{EROFS}"))) == 1
    assert unpacked == []
    (context / "base/f7").write_bytes(b"changed")
    cli.build("-t", "x", context)
    assert cli.files("x")["copied"].content == b"changed"
    assert unpacked == [1]
    assert cli("fsck", "-n", "--deep").out.endswith(b"everything is in order\n")


# Linux on x86-64: it exits with its effective user's number.
_CODE = bytes.fromhex("b86b000000 0f05 89c7 b83c000000 0f05")
_LENGTH = 120 + len(_CODE)
WHO = (
    struct.pack("<16s2HI3QI6H", b"\x7fELF\2\1\1", 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    + struct.pack("<2I6Q", 1, 5, 0, 0x400000, 0x400000, _LENGTH, _LENGTH, 0x1000)
    + _CODE
)


@needs_sandbox
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="a program for x86-64")
def test_a_program_gets_its_owners_rights(cli: Cli, context: Path, mounts_erofs: None) -> None:
    """As from a directory: it is the overlay's flags that count, not those with which an image is mounted."""
    for name, mode in (("root", 0o4755), ("self", 0o755)):
        (context / "base" / name).write_bytes(WHO)
        (context / "base" / name).chmod(mode)
    with (context / "Dockerfile").open("a") as file:
        file.write("USER 7\nRUN /root && ! /self\n")
    cli.build("-t", "x", context)
    assert len(list((cli.root / "snapshots").glob(f"*/{EROFS}"))) == 1


def test_what_no_command_needs_gets_no_image(cli: Cli, context: Path) -> None:
    cli.build("-t", "x", context)
    assert not list((cli.root / "snapshots").glob("*"))
