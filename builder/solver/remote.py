"""ADD of URLs and git repositories. What was fetched once is used again while the remote says it is unchanged."""

# No postponed annotations: msgspec would compile each of them before it first decodes one of the classes here.
import os

import msgspec

from builder.context.authorization import git_authorization, http_authorization
from builder.context.git import Resolved, checkout, is_commit
from builder.context.git import resolve as resolve_git
from builder.context.git_url import GitRef, parse_git_url
from builder.context.http import add_filename, fetch, redacted
from builder.context.local import LocalTree
from builder.errors import OfflineError, StepFailed
from builder.filesystem import kinds
from builder.filesystem.tree import FileInfo
from builder.oci.digests import hex_of
from builder.plan.steps import MAIN_CONTEXT, CopyFiles, CopyGit, CopyUrl, FromContext
from builder.solver.environment import Environment
from builder.solver.gather import FetchedSource, FilesSource
from builder.solver.inline import MemoryTree
from builder.store.records import COMMITS
from builder.store.store import Store

_KIND = "url-2"


class _Remembered(msgspec.Struct, frozen=True):
    """The validators of a URL that was fetched, and the blob that holds its content."""

    etag: str | None
    last_modified: int | None
    digest: str
    size: int


class _UrlFile(msgspec.Struct, frozen=True):
    """The content of a URL, for now at `path`; `modified` is in seconds."""

    path: str
    digest: str
    size: int
    modified: int | None


def url_source(environment: Environment, source: CopyUrl, scratch: str) -> FetchedSource:
    """The file at a URL: mode 0600 and the server's time, as in BuildKit. Offline it is what was fetched last. With a
    checksum it is known without a request, and fetched only where no cached step has it (`source/http/source.go`).

    Raises ContextError, StepFailed, OfflineError, with a checksum not before the tree is opened."""
    had = _url_file(environment, source, scratch) if source.checksum is None else None
    digest = had.digest if had is not None else source.checksum
    assert digest is not None
    environment.materials.urls[source.url] = digest
    name = add_filename(source.instead_of or source.url)

    def open_tree() -> MemoryTree:
        file = had if had is not None else _url_file(environment, source, scratch)
        info = FileInfo(kinds.FILE, 0o600, 0, 0, file.size, (file.modified or 0) * 1_000_000_000)
        return MemoryTree({name: (info, file.path)})

    taken = CopyFiles(tree=FromContext(MAIN_CONTEXT), path=name, unpack=source.unpack, literal=True)
    return FetchedSource(FilesSource(taken, open_tree, ()), {"url": name, "digest": digest, "unpack": source.unpack})


def _url_file(environment: Environment, source: CopyUrl, scratch: str) -> _UrlFile:
    """Fetch it, unless the server says that what is here is unchanged."""
    known = _remembered(environment.store, source.url)
    if environment.offline:
        if known is None:
            raise not_here(f"{redacted(source.url)} was not fetched before")
        got = None
    else:
        path = os.path.join(scratch, f"url-{os.urandom(4).hex()}")
        with open(path, "xb") as file:
            got = fetch(
                source.url,
                file,
                etag=known.etag if known else None,
                last_modified=known.last_modified if known and not known.etag else None,
                authorization=http_authorization(environment.secrets, source.url),
                check=environment.check_cancelled,
                environ=environment.environ,
            )
    if known is not None and (got is None or got.unchanged):
        _check(source, known.digest)
        return _UrlFile(environment.store.layout.blob_path(known.digest), known.digest, known.size, known.last_modified)
    assert got is not None
    _check(source, got.digest)
    _remember(environment, source.url, _Remembered(got.etag, got.last_modified, got.digest, got.size), path)
    return _UrlFile(environment.store.layout.blob_path(got.digest), got.digest, got.size, got.last_modified)


def _check(source: CopyUrl, digest: str) -> None:
    if source.checksum is not None and digest != source.checksum:
        raise StepFailed(
            f"{redacted(source.url)} has the checksum {digest}, not {source.checksum}",
            remedy="correct --checksum, if this is the file that you want",
        )


def _remembered(store: Store, url: str) -> _Remembered | None:
    data = store.database.memo(_KIND, _key(url))
    if data is None:
        return None
    known = msgspec.msgpack.decode(data, type=_Remembered)
    return known if store.layout.has(known.digest) else None


def _key(url: str) -> str:
    """What a URL is remembered by: it may hold a password, which the store has no business to keep."""
    return hex_of(url.encode("utf-8", "surrogateescape"))


def _remember(environment: Environment, url: str, what: _Remembered, path: str) -> None:
    layout = environment.store.layout
    if not layout.has(what.digest):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        layout.adopt(path, what.digest)
    environment.store.database.add_memo(_KIND, _key(url), msgspec.msgpack.encode(what), holds=what.digest)


def git_source(environment: Environment, source: CopyGit, excludes: tuple[str, ...], scratch: str) -> FetchedSource:
    """The files of a commit. Over ssh the agent `default` is used, if one was given. Offline the commit is the one that
    was found last, and its files cannot be had: only the cache can give them. Raises ContextError, OfflineError."""
    ref = _git_ref(source)
    keep = source.keep_git_dir or bool(ref.keep_git_dir)
    agent = environment.agents.get("default", "")
    resolved = _resolve(environment, ref, agent)
    remote = _without_credentials(ref.remote)
    environment.materials.commits[source.url] = (remote + (f"#{ref.ref}" if ref.ref else ""), resolved.commit)
    into = os.path.join(scratch, f"git-{os.urandom(4).hex()}")
    opened: list[LocalTree] = []

    def open_tree() -> LocalTree:
        if not opened:
            if environment.offline:
                raise not_here(f"{ref.place} cannot be fetched, and this step is not cached")
            os.mkdir(into)
            authorization = git_authorization(environment.secrets, ref.remote)
            checkout(
                ref,
                into,
                keep_git_dir=keep,
                resolved=resolved,
                authorization=authorization,
                agent=agent,
                check=environment.check_cancelled,
                environ=environment.environ,
            )
            opened.append(LocalTree(into))
        return opened[0]

    files = FilesSource(CopyFiles(tree=FromContext(MAIN_CONTEXT), path="/"), open_tree, excludes)
    return FetchedSource(files, git_identity(ref, resolved, keep=keep, excludes=excludes))


def git_identity(ref: GitRef, resolved: Resolved, *, keep: bool, excludes: tuple[str, ...]) -> dict[str, object]:
    """What the files of a checkout depend on. A `.git` that is kept names the branch or tag, too."""
    found: dict[str, object] = {
        "git": _without_credentials(ref.remote),
        "commit": resolved.commit,
        "subdir": ref.subdir,
        "keep": keep,
        "excludes": list(excludes),
    }
    if keep:
        found["ref"] = resolved.name
    if ref.submodules is False:
        found["submodules"] = False
    if ref.mtime != "checkout":
        found["mtime"] = ref.mtime
    return found


def missing_source(store: Store, source: CopyUrl | CopyGit) -> str | None:
    """What an offline build lacks for a source, or None: a file whose checksum was not given, or a commit that is not
    known. With those a step may be cached."""
    if isinstance(source, CopyUrl):
        return redacted(source.url) if source.checksum is None and _remembered(store, source.url) is None else None
    ref = _git_ref(source)
    return ref.place if not _is_pinned(ref) and store.database.memo(COMMITS, _commit_key(ref)) is None else None


def not_here(cause: str) -> OfflineError:
    return OfflineError(f"{cause}; the build is offline", remedy="build once without --offline")


def _git_ref(source: CopyGit) -> GitRef:
    ref = parse_git_url(source.url)
    assert ref is not None
    return msgspec.structs.replace(ref, checksum=source.checksum) if source.checksum else ref


def _resolve(environment: Environment, ref: GitRef, agent: str) -> Resolved:
    """The commit, from the remote or, offline, as it was the last time."""
    database, key = environment.store.database, _commit_key(ref)
    if environment.offline and not _is_pinned(ref):
        data = database.memo(COMMITS, key)
        if data is None:
            raise not_here(f"{ref.place} was not fetched before")
        return msgspec.msgpack.decode(data, type=Resolved)
    resolved = resolve_git(
        ref,
        authorization=git_authorization(environment.secrets, ref.remote),
        agent=agent,
        check=environment.check_cancelled,
        environ=environment.environ,
    )
    if not _is_pinned(ref):
        data = msgspec.msgpack.encode(resolved)
        if database.memo(COMMITS, key) != data:
            database.add_memo(COMMITS, key, data)
    return resolved


def _is_pinned(ref: GitRef) -> bool:
    """Whether the commit is told by the reference itself."""
    return is_commit(ref.ref) or (ref.fetch_by_commit and is_commit(ref.checksum))


def _commit_key(ref: GitRef) -> str:
    return f"{_without_credentials(ref.remote)} {ref.ref} {ref.checksum}"


def _without_credentials(remote: str) -> str:
    """A repository's URL without who fetched it: the commit says what it is, and recipes are kept and shown."""
    scheme, separator, rest = remote.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}" if separator else remote
