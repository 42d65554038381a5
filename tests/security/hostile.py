"""Archives made to do harm, each as the entries of a tar archive or as its bytes."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

from tests.support.archives import archive

Entries = list[tuple[str, dict[str, Any]]]

UP = "../" * 24
FILE = {"data": b"evil"}


def symlink(target: str) -> dict[str, Any]:
    return {"type": tarfile.SYMTYPE, "link": target}


def hardlink(target: str) -> dict[str, Any]:
    return {"type": tarfile.LNKTYPE, "link": target}


def device(kind: bytes, major: int, minor: int) -> dict[str, Any]:
    return {"type": kind, "device": (major, minor), "mode": 0o666}


def escapes(outside: Path) -> dict[str, Entries]:
    """Attempts to write, link to or change what lies in the directory `outside`, which has a file `secret`."""
    away = str(outside).lstrip("/")
    return {
        "absolute name": [(f"/{away}/secret", FILE)],
        "climbing name": [(f"{UP}{away}/secret", FILE)],
        "climbing in the middle": [(f"a/{UP}{away}/secret", FILE)],
        "climbing directory": [(f"{UP}{away}", {"mode": 0o777, "owner": (7, 7)})],
        "through an absolute link": [("l", symlink(f"/{away}")), ("l/secret", FILE)],
        "through a climbing link": [("l", symlink(f"{UP}{away}")), ("l/secret", FILE)],
        "through a chain of links": [("a", symlink("/")), ("b", symlink("a/..")), (f"b/{away}/secret", FILE)],
        "over a link to a file": [("l", symlink(f"/{away}/secret")), ("l", FILE)],
        "mode and owner through a link": [("l", symlink(f"/{away}")), ("l/", {"mode": 0o777, "owner": (7, 7)})],
        "hard link to an absolute name": [("h", hardlink(f"/{away}/secret"))],
        "hard link to a climbing name": [("h", hardlink(f"{UP}{away}/secret"))],
        "hard link through a link": [("l", symlink(f"/{away}")), ("h", hardlink("l/secret"))],
        "write through a hard link": [("l", symlink(f"/{away}/secret")), ("h", hardlink("l")), ("h", FILE)],
        "directory replaced by a link": [("d", {}), ("d/a", FILE), ("d", symlink(f"/{away}")), ("d/secret", FILE)],
        "link replaced by a directory": [("d", symlink(f"/{away}")), ("d", {}), ("d/secret", FILE)],
        "times through a link": [("d", {}), ("d", symlink(f"/{away}")), ("d/../d", {"mtime": 1})],
        "to a file of a process": [("l", symlink("/proc/self/cwd")), (f"l/{UP}{away}/secret", FILE)],
        "whiteout of dots": [("a", {}), ("a/.wh...", {"data": b""})],
        "whiteout through a link": [("l", symlink(f"/{away}")), ("l/.wh.secret", {"data": b""})],
        "opaque through a link": [("l", symlink(f"/{away}")), ("l/.wh..wh..opq", {"data": b""})],
        "whiteout of a climbing name": [(f"{UP}{away}/.wh.secret", {"data": b""})],
        "attribute through a link": [
            ("l", symlink(f"/{away}/secret")), ("l", {**symlink("x"), "pax": {"SCHILY.xattr.user.evil": "1"}}),
        ],
    }  # fmt: skip


def damaged() -> dict[str, bytes]:
    """Archives that are not what they claim."""
    good = archive(("a", {"data": b"x" * 2000}), ("b", FILE))
    return {
        "cut in a header": good[:300],
        "cut in a file": good[:1000],
        "cut before padding": good[:2512],
        "size larger than the archive": _with(good, 124, b"77777777777\0"),
        "negative size": _with(good, 124, b"\xff" * 12),
        "size that is no number": _with(good, 124, b"12345679abc\0"),
        "wrong checksum": good[:5] + b"!" + good[6:],
        "record that claims more than there is": archive(("a", {**FILE, "pax": {"size": "999999"}})),
        "record with a negative size": archive(("a", {**FILE, "pax": {"size": "-4"}})),
        "record with a size that is no number": archive(("a", {**FILE, "pax": {"size": "4x"}})),
        "extended header without an end": _with(archive(("ä" * 120, FILE)), 124, b"77777777777\0"),
        "NUL in a name": archive(("a", {**FILE, "pax": {"path": "a\0b"}})),
        "unknown type": _with(good, 156, b"%"),
        "no archive": b"\x7fELF" + bytes(2000),
    }


def odd() -> dict[str, bytes]:
    """Archives that are unusual, and lawful."""
    return {
        "duplicate entries": archive(("a", {"data": b"first"}), ("a", FILE)),
        "name of 255 bytes": archive(("n" * 255, FILE)),
        "name that is not UTF-8": archive(("n\udcff\udcfe", FILE), form=tarfile.GNU_FORMAT),
        "name with control characters": archive(("n\n\x1b[31m", FILE)),
        "file in a directory that is missing": archive(("x/y/z", FILE)),
        "empty archive": archive(),
        "dot": archive((".", {"mode": 0o755}), ("./a", FILE)),
    }


def devices() -> dict[str, bytes]:
    return {
        "block device": archive(("dev", {}), ("dev/disk", device(tarfile.BLKTYPE, 7, 0))),
        "memory": archive(("mem", device(tarfile.CHRTYPE, 1, 1))),
        "fifo": archive(("fifo", {"type": tarfile.FIFOTYPE})),
        "whiteout device": archive(("w", device(tarfile.CHRTYPE, 0, 0))),
    }


def too_long() -> dict[str, bytes]:
    """Behind an entry as it should be: ADD copies what does not begin as an archive, as Docker does."""
    entries = {
        "name of 256 bytes": ("n" * 256, FILE),
        "path of 5000 bytes": ("d/" * 2500 + "f", FILE),
        "link of 5000 bytes": ("l", symlink("t" * 5000)),
        "name of 2 MB": ("n" * 2_000_000, FILE),
    }
    return {name: archive(("a", FILE), entry) for name, entry in entries.items()}


def _with(raw: bytes, offset: int, field: bytes) -> bytes:
    """The archive with a field of its first header replaced, under a right checksum."""
    header = bytearray(raw[:512])
    header[offset : offset + len(field)] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + raw[512:]
