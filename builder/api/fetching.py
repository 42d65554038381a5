"""Fetches the contexts of a build from repositories and URLs, and unpacks those that come as archives."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from builder.config import ArchiveLimits
from builder.context.authorization import Secrets, git_authorization, http_authorization
from builder.context.source import MAX_DOCKERFILE, Context, ContextDirectory, GitContext, HTTPContext, Origin
from builder.errors import ContextError, OfflineError, UsageError
from builder.plan.steps import MAIN_CONTEXT

if TYPE_CHECKING:
    from builder.context.git_url import GitRef

_ONLY_FILE = "context"


class _Downloaded(msgspec.Struct, frozen=True):
    """A file that was fetched, and the server's time for it in seconds."""

    origin: Origin
    modified: int | None


class Fetching:
    """Fetches the contexts of one build into `scratch`: those in `remote`, as people may see them. What they turned out
    to be is added to `origins`. With `commit_times` the files of the main context have the time of their commit."""

    def __init__(
        self,
        scratch: str,
        remote: Mapping[str, str],
        origins: dict[str, Origin],
        *,
        secrets: Secrets,
        agent: str,
        offline: bool,
        commit_times: bool,
        limits: Callable[[], ArchiveLimits],
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._scratch = scratch
        self._remote = remote
        self._origins = origins
        self._secrets = secrets
        self._agent = agent
        self._offline = offline
        self._commit_times = commit_times
        self._limits = limits
        self._environ = environ

    def fetch(self, key: str, source: Context, *, keep_git_dir: bool = False) -> ContextDirectory:
        """The files of a repository, or of an archive at a URL (where a Dockerfile alone may be instead). Raises
        ContextError, OfflineError; UsageError for what is none of a main context's forms."""
        self._check_online(self._remote[key])
        if isinstance(source, GitContext):
            return self._checkout(key, source.ref, keep_git_dir)
        if isinstance(source, HTTPContext):
            path = self._new_path()
            with open(path, "x+b") as file:
                fetched = self._download(source.url, file)
                self._origins[key] = fetched.origin
                file.seek(0)
                found = self.unpack(file, fetched.origin.uri)
            return found if fetched.modified is None else msgspec.structs.replace(found, time=fetched.modified)
        raise UsageError("an image cannot be the main build context", remedy="give a directory, a URL or -")

    def fetch_file(self, key: str, source: HTTPContext) -> ContextDirectory:
        """What is at a URL as the one file `context` of a directory, whatever it is: so BuildKit takes a named context
        (`dockerui/namedcontext.go`). Its mode and time are those that ADD gives a URL. Raises ContextError,
        OfflineError."""
        self._check_online(self._remote[key])
        into = self._new_path()
        os.mkdir(into)
        path = os.path.join(into, _ONLY_FILE)
        with open(path, "xb") as file:
            fetched = self._download(source.url, file)
        self._origins[key] = fetched.origin
        os.chmod(path, 0o600)
        os.utime(path, (fetched.modified or 0,) * 2)
        return ContextDirectory(into)

    def fetch_dockerfile(self, url: str) -> bytes:
        """The text of the Dockerfile at a URL; no more of one that is too large than tells so. Raises ContextError,
        OfflineError."""
        from builder.context.http import redacted

        self._check_online(redacted(url), "Dockerfile")
        with open(self._new_path(), "x+b") as file:
            self._download(url, file)
            file.seek(0)
            return file.read(MAX_DOCKERFILE + 1)

    def unpack(self, stream: BinaryIO, name: str) -> ContextDirectory:
        """What an archive holds, or the Dockerfile that came instead of one; `name` is for messages.

        Raises ContextError."""
        from builder.context.archive import is_archive, peek, unpack

        into = self._new_path()
        os.mkdir(into)
        head, whole = peek(stream)
        if not head:
            raise ContextError("nothing was given", place=name, remedy="pipe a Dockerfile or a tar archive into it")
        if not is_archive(head):
            return ContextDirectory(into, dockerfile=whole.read(MAX_DOCKERFILE + 1))
        unpacked = unpack(whole, into, name=name, limits=self._limits())
        return ContextDirectory(into, unpacked.owners, time=unpacked.newest)

    def _check_online(self, place: str, what: str = "context") -> None:
        if self._offline:
            instead = "give a file" if what == "Dockerfile" else "build from a directory"
            raise OfflineError(
                f"this {what} must be fetched, and the build is offline",
                place=place,
                remedy=f"{instead}, or build without --offline",
            )

    def _new_path(self) -> str:
        return os.path.join(self._scratch, f"context-{os.urandom(4).hex()}")

    def _checkout(self, key: str, ref: GitRef, keep_git_dir: bool) -> ContextDirectory:
        from builder.context.git import checkout

        into = self._new_path()
        os.mkdir(into)
        authorization = git_authorization(self._secrets, ref.remote)
        if key == MAIN_CONTEXT and self._commit_times:
            ref = msgspec.structs.replace(ref, mtime="commit")
        made = checkout(
            ref,
            into,
            keep_git_dir=keep_git_dir or None,
            authorization=authorization,
            agent=self._agent,
            environ=self._environ,
        )
        algorithm = "sha256" if len(made.commit) == 64 else "sha1"
        uri = ref.place + (f"#{ref.ref}" if ref.ref else "")
        self._origins[key] = Origin(uri, f"{algorithm}:{made.commit}", ref.subdir)
        return ContextDirectory(into, time=made.time)

    def _download(self, url: str, into: BinaryIO) -> _Downloaded:
        from builder.context.http import fetch, redacted

        fetched = fetch(url, into, authorization=http_authorization(self._secrets, url), environ=self._environ)
        return _Downloaded(Origin(redacted(url), fetched.digest), fetched.last_modified)
