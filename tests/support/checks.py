"""Stores that are damaged on purpose, and checks of them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builder.store.check import Checked, check
from builder.store.check_session import Depth
from tests.support.builds import Cli, full_name

CHECK, REPAIR, DROP, DEEP = Depth(), Depth(repair=True), Depth(repair=True, drop=True), Depth(deep=True)


def run(cli: Cli, depth: Depth = CHECK) -> Checked:
    """Check the store of `cli`, without a registry to fetch anything from."""
    return check(str(cli.root), depth, lambda *_: None)


def blob_path(cli: Cli, digest: str) -> Path:
    return cli.root / "blobs" / digest.replace(":", "/")


def add_blob(cli: Cli, data: bytes) -> str:
    """Put a blob into the store; its digest."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    blob_path(cli, digest).write_bytes(data)
    return digest


def spoil(path: Path) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def database(cli: Cli, statement: str) -> list[Any]:
    """Execute a statement in the cache database; its rows."""
    connection = sqlite3.connect(cli.root / "cache.db")
    with connection:
        rows = connection.execute(statement).fetchall()
    connection.close()
    return rows


def edit_config(cli: Cli, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Give an image another configuration, by a manifest and an entry of the index that fit."""
    config, manifest = cli.config(name), cli.manifest(name)
    change(config)
    data = json.dumps(config).encode()
    manifest["config"].update(digest=add_blob(cli, data), size=len(data))
    document = json.dumps(manifest).encode()
    index = json.loads((cli.root / "index.json").read_text())
    (entry,) = (one for one in index["manifests"] if one["annotations"]["io.containerd.image.name"] == full_name(name))
    entry.update(digest=add_blob(cli, document), size=len(document))
    (cli.root / "index.json").write_text(json.dumps(index))
