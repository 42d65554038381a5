"""Writing images to a registry: blobs first, then manifests from the inside out, the tags last.

Nothing is sent that the repository has, or that the registry can take over from another of its repositories; a
reader never sees a manifest whose blobs are missing. Source: distribution-spec 1.1, "Push".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO
from urllib.parse import quote

import msgspec

from builder.errors import BuilderError, NotFoundError, RegistryError, StoreError
from builder.oci.reference import DEFAULT_TAG, Reference
from builder.oci.spec import INDEXES, Descriptor, Index, Manifest, decode
from builder.progress import Reporter, Transfer, ignore
from builder.registry.auth import repository_scope
from builder.registry.backoff import Backoff
from builder.registry.blobs import is_foreign
from builder.registry.endpoints import Endpoint
from builder.registry.failures import Transient, refused, said
from builder.registry.replies import Reply
from builder.registry.transport import Session
from builder.registry.urls import join, split

JOBS = 4  # uploads at once
CHUNK = 1 << 20  # bytes read from a blob at a time

OpenBlob = Callable[[str], BinaryIO]
Origins = Callable[[], Mapping[str, Sequence[str]]]


class Pushed(msgspec.Struct, frozen=True):
    """What a push did: the digest under which the image can be pulled, and the blobs by what became of them."""

    digest: str
    uploaded: tuple[str, ...] = ()
    mounted: tuple[str, ...] = ()
    present: tuple[str, ...] = ()


def push(
    session: Session,
    reference: Reference,
    image: Descriptor,
    open_blob: OpenBlob,
    *,
    tags: Sequence[str] = (),
    origins: Origins | None = None,
    reporter: Reporter = ignore,
) -> Pushed:
    """Push the manifest or index `image`, all that it refers to, and its tags.

    The tags are the reference's own (`latest` when it has neither tag nor digest) and `tags`. `open_blob` opens any
    blob by its digest, manifests too; it is called from several threads. `origins` says in which other repositories
    (`library/debian`) of the same registry blobs are known to be, so that they are mounted instead of sent; it is
    asked when there are blobs to send, after the manifests were opened. A manifest of an index that is not at hand
    must be in the registry already.

    Raises RegistryError; what `open_blob` raises is passed on.
    """
    endpoint = session.endpoints(reference.domain, push=True)[0]
    names = [reference.tag] if reference.tag else [] if reference.digest else [DEFAULT_TAG]
    names += [tag for tag in tags if tag not in names]
    return _Push(session, endpoint, reference.path, open_blob, origins or dict, reporter).image(image, names)


class _Push:
    def __init__(
        self,
        session: Session,
        endpoint: Endpoint,
        repository: str,
        open_blob: OpenBlob,
        origins: Origins,
        reporter: Reporter,
    ) -> None:
        self._session = session
        self._endpoint = endpoint
        self._repository = repository
        self._open_blob = open_blob
        self._ask_origins = origins
        self._origins: Mapping[str, Sequence[str]] = {}
        self._reporter = reporter
        self._scope = repository_scope(endpoint.repository(repository), "pull", "push")
        self._uploaded: list[str] = []
        self._mounted: list[str] = []
        self._present: list[str] = []
        self._stopped = threading.Event()

    def image(self, image: Descriptor, tags: Sequence[str]) -> Pushed:
        missing = [tag for tag in tags if not self._has_manifest(tag, image)]
        if missing or not tags:
            if not self._has_manifest(image.digest, image):
                blobs: dict[str, Descriptor] = {}
                manifests: dict[str, tuple[Descriptor, bytes]] = {}
                self._collect(image, blobs, manifests)
                self._origins = self._ask_origins()
                self._send_blobs(list(blobs.values()))
                for descriptor, data in manifests.values():
                    if descriptor.digest != image.digest or not tags:
                        self._put_manifest(descriptor.digest, descriptor, data)
            if missing:
                data = self._read(image)
                for tag in missing:
                    self._put_manifest(tag, image, data)
        return Pushed(image.digest, tuple(self._uploaded), tuple(self._mounted), tuple(self._present))

    def _collect(
        self, descriptor: Descriptor, blobs: dict[str, Descriptor], manifests: dict[str, tuple[Descriptor, bytes]]
    ) -> None:
        """Gather what an image consists of; `manifests` in the order in which they must be sent, children first."""
        if descriptor.digest in manifests:
            return
        try:
            data = self._read(descriptor)
        except StoreError:
            if self._has_manifest(descriptor.digest, descriptor):
                return
            raise
        if descriptor.media_type in INDEXES:
            for child in decode(data, Index, f"index {descriptor.digest}").manifests:
                self._collect(child, blobs, manifests)
        else:
            manifest = decode(data, Manifest, f"manifest {descriptor.digest}")
            for blob in (*manifest.layers, manifest.config):
                if not is_foreign(blob):
                    blobs[blob.digest] = blob
        manifests[descriptor.digest] = (descriptor, data)

    def _send_blobs(self, blobs: list[Descriptor]) -> None:
        if len(blobs) <= 1:
            for blob in blobs:
                self._send_blob(blob)
            return

        from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

        # The largest first, so that the last to end is a small one.
        blobs = sorted(blobs, key=lambda blob: -blob.size)
        with ThreadPoolExecutor(min(JOBS, len(blobs)), "push") as pool:
            try:
                futures = [pool.submit(self._send_blob, blob) for blob in blobs]
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException as error:
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                if not isinstance(error, Exception):
                    self._session.close()  # an interrupt does not wait for a server that stalls
                raise

    def _send_blob(self, blob: Descriptor) -> None:
        if self._ask("HEAD", f"blobs/{blob.digest}").status == 200:
            self._present.append(blob.digest)
            self._report(blob, blob.size, "present")
            return
        backoff = self._session.backoff()
        while True:
            try:
                self._upload(blob, backoff)
                return
            except Transient as failure:
                # What arrived of a broken upload is not known: it starts anew, under another location.
                backoff.wait(failure)

    def _upload(self, blob: Descriptor, backoff: Backoff) -> None:
        """Open an upload and send the blob in one request (POST, then PUT), unless the registry can mount it."""
        origin = next((name for name in self._origins.get(blob.digest, ()) if name != self._repository), None)
        query = (
            f"?mount={quote(blob.digest)}&from={quote(self._endpoint.repository(origin), safe='')}" if origin else ""
        )
        extra = (repository_scope(self._endpoint.repository(origin), "pull"),) if origin else ()
        try:
            reply = self._ask("POST", f"blobs/uploads/{query}", extra)
        except RegistryError:
            if not origin:
                raise
            reply = None  # no token for the other repository: as if it could not be mounted
        if origin and (reply is None or reply.status not in (201, 202)):
            reply = self._ask("POST", "blobs/uploads/")
        assert reply is not None
        if origin and reply.status == 201:
            self._mounted.append(blob.digest)
            self._report(blob, blob.size, f"mounted from {origin}")
            return
        if reply.status != 202:
            raise self._refused(reply, self._name())
        location = self._location(reply)
        url = f"{location}{'&' if split(location).query else '?'}digest={quote(blob.digest)}"
        reply = self._session.request(
            self._endpoint,
            "PUT",
            url,
            scopes=(self._scope,),
            headers={"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)},
            body=(lambda: self._chunks(blob, backoff)) if blob.size else b"",
            retry=False,
        )
        if reply.status not in (200, 201, 204):
            raise self._refused(reply, f"blob {blob.digest} of {self._name()}")
        self._check_digest(reply, blob.digest)
        self._uploaded.append(blob.digest)
        self._report(blob, blob.size, "sent")

    def _location(self, reply: Reply) -> str:
        location = reply.headers.get("location")
        if not location:
            raise RegistryError(f"{self._endpoint} opens an upload without saying where")
        url = join(self._endpoint.origin, location)
        if self._endpoint.scheme == "https" and split(url).scheme != "https":
            raise RegistryError(
                f"{self._endpoint} wants uploads over plain HTTP ({url.partition('?')[0]})",
                remedy="let the proxy before the registry send X-Forwarded-Proto: https",
            )
        return url

    def _chunks(self, blob: Descriptor, backoff: Backoff) -> Iterator[bytes]:
        done = 0
        with self._open_blob(blob.digest) as file:
            while chunk := file.read(CHUNK):
                if self._stopped.is_set():
                    raise RegistryError("the push was stopped")
                done += len(chunk)
                if done > blob.size:
                    break
                yield chunk
                backoff.renew()
                if done < blob.size:  # the last piece counts when the registry has confirmed it
                    self._report(blob, done)
        if done != blob.size:
            raise StoreError(
                f"blob {blob.digest} does not have its size of {blob.size} bytes", remedy="run builder fsck"
            )

    def _put_manifest(self, key: str, descriptor: Descriptor, data: bytes) -> None:
        reply = self._session.request(
            self._endpoint,
            "PUT",
            self._endpoint.url(self._repository, f"manifests/{key}"),
            scopes=(self._scope,),
            headers={"Content-Type": descriptor.media_type},
            body=data,
        )
        if reply.status not in (200, 201, 202, 204):
            raise self._refused(reply, f"manifest {key} of {self._name()}")
        self._check_digest(reply, descriptor.digest)

    def _has_manifest(self, key: str, descriptor: Descriptor) -> bool:
        """Whether the repository has this very manifest under a tag or its digest."""
        reply = self._ask("HEAD", f"manifests/{key}", accept=descriptor.media_type)
        return reply.status == 200 and reply.headers.get("docker-content-digest") == descriptor.digest

    def _ask(self, method: str, rest: str, extra: tuple[str, ...] = (), accept: str = "*/*") -> Reply:
        """A request without a body; 401 and 403 are errors, as nothing after them can succeed."""
        url = self._endpoint.url(self._repository, rest)
        scopes = (self._scope, *extra)
        reply = self._session.request(self._endpoint, method, url, scopes=scopes, headers={"Accept": accept})
        if reply.status in (401, 403):
            raise self._refused(reply, self._name())
        return reply

    def _read(self, descriptor: Descriptor) -> bytes:
        with self._open_blob(descriptor.digest) as file:
            return file.read()

    def _check_digest(self, reply: Reply, digest: str) -> None:
        stated = reply.headers.get("docker-content-digest", digest)
        if stated != digest:
            raise RegistryError(f"{self._endpoint} stored {stated} when it was sent {digest}")

    def _refused(self, reply: Reply, subject: str) -> BuilderError:
        if reply.status == 404:  # ECR, Artifact Registry and Quay's organisations make no repository by being pushed to
            return NotFoundError(
                f"{self._name()} was not found, and {self._endpoint.host} does not make it",
                remedy="make the repository there first, or check its name",
                details=said(reply.body, self._endpoint.host),
            )
        return refused(reply.status, reply.body, subject, self._endpoint.host, self._session.credentials.path)

    def _name(self) -> str:
        return f"{self._endpoint.host}/{self._repository}"

    def _report(self, blob: Descriptor, done: int, outcome: str = "") -> None:
        self._reporter(Transfer(f"pushing {blob.digest[:19]}", done, blob.size, outcome))
