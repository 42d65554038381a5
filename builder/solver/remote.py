"""ADD of URLs and git repositories. What was fetched once is used again while the remote says it is unchanged."""

from __future__ import annotations

import os

import msgspec

from builder.context.git import checkout
from builder.context.git import resolve as resolve_git
from builder.context.git_url import parse_git_url
from builder.context.http import add_filename, fetch
from builder.context.local import LocalTree
from builder.errors import StepFailed
from builder.filesystem.tree import FileInfo, Kind
from builder.plan.steps import MAIN_CONTEXT, CopyFiles, CopyGit, CopyUrl, FromContext
from builder.solver.environment import Environment
from builder.solver.gather import FetchedSource, FilesSource, MemoryTree

_KIND = "url-1"


class _Remembered(msgspec.Struct, frozen=True):
    """The validators of a URL that was fetched, and the blob that holds its content."""

    etag: str | None
    last_modified: int | None
    digest: str
    size: int


def url_source(environment: Environment, source: CopyUrl, scratch: str) -> FetchedSource:
    """The file at a URL: mode 0600 and the server's time, as in BuildKit. Raises ContextError, StepFailed."""
    known = _remembered(environment, source.url)
    path = os.path.join(scratch, f"url-{os.urandom(4).hex()}")
    with open(path, "xb") as file:
        got = fetch(
            source.url,
            file,
            etag=known.etag if known else None,
            last_modified=known.last_modified if known and not known.etag else None,
        )
    if got.unchanged and known is not None:
        path, digest, size, modified = (
            environment.store.layout.blob_path(known.digest),
            known.digest,
            known.size,
            known.last_modified,
        )
    else:
        digest, size, modified = got.digest, got.size, got.last_modified
    if source.checksum is not None and digest != source.checksum:
        raise StepFailed(
            f"{source.url} has the checksum {digest}, not {source.checksum}",
            remedy="correct --checksum, if this is the file that you want",
        )
    if not (got.unchanged and known is not None):
        _remember(environment, source.url, _Remembered(got.etag, got.last_modified, digest, size), path)
        path = environment.store.layout.blob_path(digest)
    info = FileInfo(Kind.FILE, 0o600, 0, 0, size, (modified or 0) * 1_000_000_000)
    name = add_filename(source.url)
    tree = MemoryTree({name: (info, path)})
    files = FilesSource(
        CopyFiles(tree=FromContext(MAIN_CONTEXT), path=_literal(name), unpack=source.unpack), lambda: tree, ()
    )
    return FetchedSource(files, {"url": name, "digest": digest, "unpack": source.unpack})


def _literal(name: str) -> str:
    """A name without wildcards in it."""
    return "".join({"\\": "[\\\\]"}.get(c, f"[{c}]" if c in "*?[" else c) for c in name)


def _remembered(environment: Environment, url: str) -> _Remembered | None:
    data = environment.store.database.memo(_KIND, url)
    if data is None:
        return None
    known = msgspec.msgpack.decode(data, type=_Remembered)
    return known if environment.store.layout.has(known.digest) else None


def _remember(environment: Environment, url: str, what: _Remembered, path: str) -> None:
    layout = environment.store.layout
    if not layout.has(what.digest):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        layout.adopt(path, what.digest)
    environment.store.database.add_memo(_KIND, url, msgspec.msgpack.encode(what), holds=what.digest)


def git_source(source: CopyGit, excludes: tuple[str, ...], scratch: str) -> FetchedSource:
    """The files of a commit. Raises ContextError."""
    ref = parse_git_url(source.url)
    assert ref is not None
    if source.checksum:
        ref = msgspec.structs.replace(ref, checksum=source.checksum)
    keep = source.keep_git_dir or bool(ref.keep_git_dir)
    resolved = resolve_git(ref)
    identity = {
        "git": ref.remote,
        "commit": resolved.commit,
        "subdir": ref.subdir,
        "keep": keep,
        "excludes": list(excludes),
    }
    into = os.path.join(scratch, f"git-{os.urandom(4).hex()}")
    opened: list[LocalTree] = []

    def open_tree() -> LocalTree:
        if not opened:
            os.mkdir(into)
            checkout(ref, into, keep_git_dir=keep, resolved=resolved)
            opened.append(LocalTree(into))
        return opened[0]

    files = FilesSource(CopyFiles(tree=FromContext(MAIN_CONTEXT), path="/"), open_tree, excludes)
    return FetchedSource(files, identity)
