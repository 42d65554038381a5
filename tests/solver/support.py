"""Steps on a real store in a temporary directory, and the layers they make, read back with Python's tarfile."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from builder.context.local import LocalTree
from builder.errors import BuilderError
from builder.filesystem.tree import FileTree
from builder.oci.spec import Platform
from builder.plan.steps import CopyFiles, CopyNode, CopySource, FromContext, Tree
from builder.progress import Event
from builder.solver.cache import Made
from builder.solver.contexts import Contexts
from builder.solver.copy import copy
from builder.solver.environment import Environment
from builder.solver.trace import Trace
from builder.store.store import Store
from tests.support.layers import layer_bytes

HOST = Platform("linux", "amd64")
OLD = 1_577_836_800
"""2020-01-01: the time of all files that `write` makes."""

Layers = tuple[str, ...]


class OneFile:
    """A file's content, which may be longer or shorter than it was when it was looked at."""

    offset = None
    name = "f"

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> int:
        return os.open(self._path, os.O_RDONLY)


def write(root: Path, files: Mapping[str, str | bytes | None]) -> Path:
    """Files by path (`None` for a directory, `-> target` for a link), 0644 and 0755, all of the year 2020."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, str) and content.startswith("-> "):
            path.symlink_to(content[3:])
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            path.chmod(0o644)
    for directory, folders, names in os.walk(root, topdown=False):
        for name in names:
            os.utime(os.path.join(directory, name), (OLD, OLD), follow_symlinks=False)
        for name in folders:
            path = Path(directory, name)
            if not path.is_symlink():
                path.chmod(0o755)
            os.utime(path, (OLD, OLD), follow_symlinks=False)
    return root


def environment(store: Store, context: Path | None = None, **named: Path) -> tuple[Environment, list[Event]]:
    """An environment with a main context and others by name; its events are collected."""
    events: list[Event] = []
    openers: dict[str, Callable[[], FileTree]] = {name: partial(LocalTree, str(path)) for name, path in named.items()}
    if context is not None:
        openers[""] = partial(LocalTree, str(context))
    return Environment(store, Contexts(openers), events.append, epoch=OLD), events


def node(*sources: str | CopySource, to: str = "/", tree: Tree | None = None, **fields: Any) -> CopyNode:
    """A COPY of paths in the main context (or `tree`), or of sources as they are."""
    made = tuple(
        CopyFiles(tree=tree or FromContext(""), path=source) if isinstance(source, str) else source
        for source in sources
    )
    return CopyNode(label="COPY", stage="s", platform=HOST, parent=0, sources=made, destination=to, **fields)


def run_copy(
    environment: Environment, step: CopyNode, parent: Layers = (), roots: dict[int, Layers] | None = None
) -> Made:
    return copy(environment, step, parent, roots or {}, Trace("0", "lineage"))


def base_layer(store: Store, root: Path) -> str:
    """A layer with what a directory holds; returns its diff ID."""
    made, _ = environment(store, root)
    return run_copy(made, node("/", link=True)).diff_id


def entries(store: Store, diff_id: str, *, times: bool = False) -> dict[str, str]:
    """A layer's entries in a few words each: `file 644 0:0 content`, `dir 755 0:0`, `link -> x`, `hard => x`."""
    found: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(layer_bytes(store, diff_id))) as archive:
        for member in archive:
            found[member.name] = _words(archive, member, times)
    return found


def _words(archive: tarfile.TarFile, member: tarfile.TarInfo, times: bool) -> str:
    owner = f"{member.mode:o} {member.uid}:{member.gid}"
    if member.isdir():
        text = f"dir {owner}"
    elif member.issym():
        text = f"link {member.uid}:{member.gid} -> {member.linkname}"
    elif member.islnk():
        text = f"hard => {member.linkname}"
    elif member.isfile():
        content = archive.extractfile(member)
        assert content is not None
        text = f"file {owner} {content.read().decode('utf-8', 'backslashreplace')}"
    else:
        text = f"type {member.type!r} {owner} {member.devmajor}:{member.devminor}"
    text += "".join(f" {key}={value}" for key, value in sorted(member.pax_headers.items()) if "xattr" in key)
    return f"{text} @{int(member.mtime)}" if times else text


def outcome(action: Callable[[], Any]) -> Any:
    """What a call returns, or its error's cause."""
    try:
        return action()
    except BuilderError as error:
        return error.cause
