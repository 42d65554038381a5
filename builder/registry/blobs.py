"""Downloading one blob: streamed, verified while it is read, resumed where the connection broke."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from builder.errors import RegistryError
from builder.oci.reference import Reference
from builder.oci.spec import Descriptor
from builder.registry.auth import repository_scope
from builder.registry.endpoints import Endpoint
from builder.registry.failures import Transient, refused
from builder.registry.fallback import Unusable, first_that_serves
from builder.registry.replies import Stream
from builder.registry.transport import Session
from builder.registry.urls import is_same_origin, split

if TYPE_CHECKING:
    import hashlib

Progress = Callable[[int, int], object]
_PROGRESSED = 64 << 10  # bytes that count as progress, so that a server that drips cannot keep us for ever


class Sink(Protocol):
    """Where bytes go: a file, or anything that can forget what was written."""

    def write(self, data: bytes, /) -> object: ...
    def seek(self, offset: int, /) -> object: ...
    def truncate(self) -> object: ...


def fetch_blob(
    session: Session,
    reference: Reference,
    descriptor: Descriptor,
    into: Sink | BinaryIO | Callable[[bytes], object],
    progress: Progress | None = None,
    *,
    resume: bool = False,
) -> None:
    """Write the blob's bytes to `into`: a file, written from its start, or a function that is called with each piece.

    The bytes have the descriptor's digest and size when this returns; while it runs they are not to be trusted. Pieces
    have some 64 KiB. `progress` is called with the bytes done and the size. A file lets the next endpoint be tried
    after one served wrong bytes; a function does not, since what it was given cannot be taken back. With `resume` the
    file, which must be readable then, may hold the beginning of the blob as a call that was cut short left it: only
    the rest is asked for. Wrong bytes are taken out of a file before an error is raised. Thread-safe.

    Raises NotFoundError, RegistryError; errors of writing are passed on as they are.
    """
    download = _Download(descriptor, into, progress)
    if resume and download.take_over(cast(BinaryIO, into)):
        return
    subject = f"blob {descriptor.digest} of {reference.familiar_name}"

    def from_endpoint(endpoint: Endpoint) -> None:
        url = endpoint.url(reference.path, f"blobs/{descriptor.digest}")
        scopes = (repository_scope(endpoint.repository(reference.path), "pull"),)

        def attempt(headers: dict[str, str]) -> None:
            with session.stream(endpoint, "GET", url, scopes=scopes, headers=headers) as stream:
                if stream.status not in (200, 206, 416):
                    if stream.status in (401, 403) and not is_same_origin(stream.origin, endpoint.origin):
                        raise Transient(f"{stream.origin} answered {stream.status}: the signed link ran out")
                    body = stream.read().body
                    raise refused(stream.status, body, subject, endpoint.host, session.credentials.path)
                download.take(stream)

        download.run(session, attempt)

    def from_url(url: str) -> None:
        def attempt(headers: dict[str, str]) -> None:
            with session.fetch(url, headers) as stream:
                if stream.status not in (200, 206, 416):
                    raise refused(stream.status, b"", url, split(url).netloc, session.credentials.path)
                download.take(stream)

        download.run(session, attempt)

    # URLs after the registry: an image should not make us send requests to addresses of its choice without need.
    sources: list[Endpoint | str] = [*session.endpoints(reference.domain)]
    if is_foreign(descriptor):
        sources += descriptor.urls or ()
    first_that_serves(sources, lambda source: from_url(source) if isinstance(source, str) else from_endpoint(source))


def is_foreign(descriptor: Descriptor) -> bool:
    """Whether a layer may live outside of registries (`…foreign.diff.tar…`, `…nondistributable.v1.tar…`)."""
    return bool(descriptor.urls) and ("foreign" in descriptor.media_type or "nondistributable" in descriptor.media_type)


def new_hash(digest: str) -> hashlib._Hash:
    """The hash function that a digest names. Raises RegistryError for one that is not registered by the OCI."""
    algorithm = digest.partition(":")[0]
    if algorithm not in ("sha256", "sha384", "sha512"):
        raise RegistryError(f"digest {digest!r} is of an unknown kind")
    import hashlib

    return hashlib.new(algorithm)


class _Download:
    """The state of a blob that is being read, over all connections and endpoints."""

    def __init__(
        self, descriptor: Descriptor, into: Sink | BinaryIO | Callable[[bytes], object], progress: Progress | None
    ) -> None:
        self._digest, self._size = descriptor.digest, descriptor.size
        self._progress = progress
        self._sink = None if callable(into) else into
        self._write: Callable[[bytes], object] = into if callable(into) else into.write
        self._hash = new_hash(self._digest)
        self._done = 0

    def take_over(self, file: BinaryIO) -> bool:
        """Begin with what the file holds. Whether that is all of the blob."""
        file.seek(0)
        while piece := file.read(1 << 20):
            self._hash.update(piece)
            self._done += len(piece)
        if self._done < self._size:
            return False
        if self._done == self._size and self._digest == self._found():
            return True
        self._restart()
        return False

    def run(self, session: Session, attempt: Callable[[dict[str, str]], None]) -> None:
        """Make attempts until all bytes are there and verified."""
        backoff = session.backoff()
        mark = inherited = self._done  # what an earlier endpoint gave is kept: the digest decides in the end
        while True:
            try:
                attempt({"Range": f"bytes={self._done}-"} if self._done else {})
                if self._done == self._size and self._digest == self._found():
                    return
                error = self._wrong(f"its digest is {self._found()}", "the registry")
                if not inherited or isinstance(error, Unusable):
                    raise error
                mark = inherited = 0  # the wrong bytes may be the earlier endpoint's: once more, from the start
            except Transient as failure:
                if self._done - mark >= _PROGRESSED:
                    mark = self._done
                    backoff.progressed()
                backoff.wait(failure)

    def take(self, stream: Stream) -> None:
        """Read an answer to a request that may have asked for the rest only."""
        skip = 0
        if stream.status == 416:
            self._restart()
            raise Transient(f"{stream.origin} refuses to resume")
        if stream.status == 206:
            start = stream.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
            if start != str(self._done):
                self._restart()
                raise Transient(f"{stream.origin} resumed at {start or 'an unknown place'} instead of {self._done}")
        else:
            length = stream.headers.get("content-length", "")
            if length.isdigit() and int(length) != self._size and "content-encoding" not in stream.headers:
                raise self._wrong(f"it has {length} bytes instead of {self._size}", stream.origin)
            skip = self._done  # no Range support: read the beginning again, over what is known already
        for chunk in stream.chunks():
            piece = chunk
            if skip:
                piece = chunk[skip:]
                skip -= len(chunk) - len(piece)
            if not piece:
                continue
            if self._done + len(piece) > self._size:
                raise self._wrong(f"it has more than {self._size} bytes", stream.origin)
            self._hash.update(piece)
            self._write(piece)
            self._done += len(piece)
            if self._progress is not None:
                self._progress(self._done, self._size)
        if self._done < self._size:
            raise Transient(f"{stream.origin} sent {self._done} of {self._size} bytes")

    def _found(self) -> str:
        return f"{self._digest.partition(':')[0]}:{self._hash.hexdigest()}"

    def _wrong(self, what: str, origin: str) -> RegistryError:
        if self._sink is not None:
            self._restart()
        elif self._done:
            return Unusable(f"{origin} served a wrong blob for {self._digest}: {what}")
        return RegistryError(f"{origin} served a wrong blob for {self._digest}: {what}", remedy=_REMEDY)

    def _restart(self) -> None:
        if self._sink is not None:
            self._sink.seek(0)
            self._sink.truncate()
        elif self._done:
            raise Unusable(f"the download of {self._digest} cannot be resumed")
        self._hash = new_hash(self._digest)
        self._done = 0


_REMEDY = "try again; if it persists, the registry, a mirror or a proxy is broken or tampers with images"
