"""Cache mounts as steps leave them, or have them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder.store.mounts import hold, note_use


def make_mount(root: Path, name: str, mount_id: str, *, used: float | None = None, **files: str | bytes) -> Path:
    """A mount in the store below `root`, last used at a time."""
    path = root / "mounts" / name
    os.close(hold(str(path), fcntl.LOCK_EX))
    note_use(str(path), mount_id)
    (path / "data").mkdir()
    for file, content in files.items():
        (path / "data" / file).write_bytes(content.encode() if isinstance(content, str) else content)
    if used is not None:
        os.utime(path / "lock", (used, used))
    return path


@contextmanager
def in_use(path: Path, mode: int = fcntl.LOCK_SH) -> Iterator[None]:
    """Have a mount, as a step does."""
    descriptor = hold(str(path), mode)
    try:
        yield
    finally:
        os.close(descriptor)
