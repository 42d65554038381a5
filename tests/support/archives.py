"""Tar archives made with Python's own module, for tests."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from typing import Any

TIME = 1_577_836_800
Entry = dict[str, Any]
Archive = Callable[..., bytes]


def archive(*entries: tuple[str, Entry], form: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of (name, {data, type, mode, owner, mtime, link, device, pax}); without data and type a directory."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form, errors="surrogateescape") as tar:
        for name, spec in entries:
            info = tarfile.TarInfo(name)
            data = spec.get("data")
            info.type = spec.get("type", tarfile.DIRTYPE if data is None else tarfile.REGTYPE)
            info.mode = spec.get("mode", 0o755 if info.type == tarfile.DIRTYPE else 0o644)
            info.uid, info.gid = spec.get("owner", (0, 0))
            info.mtime = spec.get("mtime", TIME)
            info.linkname = spec.get("link", "")
            info.devmajor, info.devminor = spec.get("device", (0, 0))
            info.pax_headers = spec.get("pax", {})
            info.size = len(data or b"")
            tar.addfile(info, io.BytesIO(data or b""))
    return raw.getvalue()


def diff_id(raw: bytes) -> str:
    """The digest of an uncompressed archive."""
    return "sha256:" + hashlib.sha256(raw).hexdigest()
