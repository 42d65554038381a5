"""Reading images from a registry: from a reference to a verified manifest and configuration.

Nothing is trusted that does not have the digest by which it was asked for, and a manifest that was asked for by tag
must have the digest that the registry itself states. Bytes are kept as they were received.
"""

# No postponed annotations: msgspec would compile each of them before it first decodes one of the classes here.
from collections.abc import Callable
from typing import Any

import msgspec

from builder.errors import NotFoundError, RegistryError, StoreError, Unsupported
from builder.oci.platform import host_platform
from builder.oci.reference import Reference
from builder.oci.spec import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEXES,
    MANIFESTS,
    NOT_JSON,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    decode,
    digest_of,
)
from builder.registry.auth import repository_scope
from builder.registry.blobs import fetch_blob, new_hash
from builder.registry.endpoints import Endpoint
from builder.registry.failures import refused
from builder.registry.fallback import first_that_serves
from builder.registry.platforms import DEEPEST, matches, select
from builder.registry.replies import MAX_REPLY
from builder.registry.transport import Session

ACCEPT = ", ".join((OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST))
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"


Keep = Callable[[Descriptor, Callable[[], bytes]], bytes]
"""Gives a document (a manifest or configuration): one that is at hand, or what the function fetches."""


class Resolved(msgspec.Struct, frozen=True):
    """An image as a registry serves it now.

    `descriptor` and `data` are what the reference names: an index, or the manifest itself. `manifest_descriptor`,
    `manifest_data` and `manifest` are those of the chosen platform; `config_data` and `config` its configuration.
    """

    reference: Reference
    descriptor: Descriptor
    data: bytes
    manifest_descriptor: Descriptor
    manifest_data: bytes
    manifest: Manifest
    config_data: bytes
    config: ImageConfig

    @property
    def layers(self) -> list[Descriptor]:
        """The layers, lowest first."""
        return self.manifest.layers


def resolve(
    session: Session, reference: Reference, platform: Platform | None = None, keep: Keep | None = None
) -> Resolved:
    """Find the image that `reference` names, for `platform` (None: the one this machine runs).

    Out of an index the platform is chosen by containerd's rule (see `platforms`). An image that is no index is taken
    whatever its platform; compare `config.platform()`. `keep` may spare fetching what is at hand; what the reference
    itself names is always asked for. Raises NotFoundError, RegistryError, Unsupported.
    """
    wanted = platform or host_platform()
    source = _Source(session, reference, keep or _fetch_always)
    descriptor, data = fetch_manifest(session, reference)
    if descriptor.media_type in MANIFESTS:
        image = source.image(descriptor, data)
    else:
        found = source.choose(data, wanted, DEEPEST)
        if found is None:
            offered = ", ".join(_offered(reference, data)) or "none"
            raise NotFoundError(
                f"{reference.familiar} has no image for {wanted}; it has: {offered}",
                remedy="ask for one of these platforms, or for another image",
            )
        image = found
    manifest_descriptor, manifest_data, manifest, config_data, config = image
    return Resolved(reference, descriptor, data, manifest_descriptor, manifest_data, manifest, config_data, config)


def fetch_manifest(session: Session, reference: Reference) -> tuple[Descriptor, bytes]:
    """The manifest or index that `reference` names (by its digest if it has one) and its bytes, verified."""

    def ask(endpoint: Endpoint) -> tuple[Descriptor, bytes]:
        reply = session.request(
            endpoint,
            "GET",
            endpoint.url(reference.path, f"manifests/{reference.manifest_key}"),
            scopes=(repository_scope(endpoint.repository(reference.path), "pull"),),
            headers={"Accept": ACCEPT},
        )
        if reply.status != 200:
            path = session.credentials.path
            raise refused(reply.status, reply.body, str(reference), endpoint.host, path)
        stated = reference.digest or reply.headers.get("docker-content-digest")
        digest = _verified(reply.body, stated, str(reference), endpoint)
        media_type = _media_type(reply.body, reply.headers.get("content-type", ""), reference)
        return Descriptor(media_type, digest, len(reply.body)), reply.body

    return first_that_serves(session.endpoints(reference.domain), ask)


def fetch_entry(session: Session, reference: Reference, entry: Descriptor) -> bytes:
    """A manifest out of the index that `reference` names. Raises RegistryError if it is not what the index states."""
    if entry.size > MAX_REPLY:
        raise RegistryError(f"{reference.familiar} has a manifest of absurd size ({entry.size} bytes)")
    found, data = fetch_manifest(session, msgspec.structs.replace(reference, tag=None, digest=entry.digest))
    if len(data) != entry.size or found.media_type != entry.media_type:
        raise RegistryError(f"manifest {entry.digest} of {reference.familiar} is not what its index states")
    return data


def fetch_document(session: Session, reference: Reference, descriptor: Descriptor) -> bytes:
    """A small blob of the repository, as a configuration is, in memory. Raises NotFoundError, RegistryError."""
    if descriptor.size > MAX_REPLY:
        raise RegistryError(f"{reference.familiar} has a document of absurd size ({descriptor.size} bytes)")
    parts: list[bytes] = []
    fetch_blob(session, reference, descriptor, _Memory(parts))
    return b"".join(parts)


_Image = tuple[Descriptor, bytes, Manifest, bytes, ImageConfig]


class _Source(msgspec.Struct, frozen=True):
    """Where one image is read from."""

    session: Session
    reference: Reference
    keep: Keep
    tried: set[tuple[str, str, int, int]] = msgspec.field(default_factory=set)
    """The entries of indexes that were not it, and how deep: many indexes may list one, or one many times."""

    def choose(self, data: bytes, wanted: Platform, depth: int) -> _Image | None:
        """The best image of an index, or None. Entries without a platform are judged by their configuration."""
        for entry in select(_decode(data, Index, self.reference).manifests, wanted):
            if entry.platform is None or entry.media_type in INDEXES:
                key = entry.digest, entry.media_type, entry.size, depth
                if key in self.tried:
                    continue
                self.tried.add(key)
            if entry.media_type in INDEXES:
                if depth > 0:
                    found = self.choose(self._entry(entry), wanted, depth - 1)
                    if found is not None:
                        return found
                continue
            if entry.media_type not in MANIFESTS:
                continue
            manifest = self._entry(entry)
            if entry.platform is not None:
                return self.image(entry, manifest)
            if _decode(manifest, Manifest, self.reference).artifact_type:
                continue
            try:
                image = self.image(entry, manifest)
            except Unsupported:
                continue  # an artifact, not an image
            if matches(image[4].platform(), wanted):
                return image
        return None

    def image(self, descriptor: Descriptor, data: bytes) -> _Image:
        reference = self.reference
        manifest = _decode(data, Manifest, reference)
        if not _is_image_config(manifest.config.media_type):
            raise Unsupported(
                f"{reference.familiar} is not an image: its configuration is of type {manifest.config.media_type}"
            )
        config_data = self._document(manifest.config, lambda: fetch_document(self.session, reference, manifest.config))
        config = _decode(config_data, ImageConfig, reference)
        return descriptor, data, manifest, config_data, config

    def _entry(self, entry: Descriptor) -> bytes:
        """A manifest out of an index."""
        return self._document(entry, lambda: fetch_entry(self.session, self.reference, entry))

    def _document(self, descriptor: Descriptor, fetch: Callable[[], bytes]) -> bytes:
        data = self.keep(descriptor, fetch)
        if len(data) != descriptor.size:
            raise RegistryError(
                f"{self.reference.familiar} is malformed: {descriptor.digest} has {len(data)} bytes,"
                f" not {descriptor.size} as is stated"
            )
        return data


def _fetch_always(descriptor: Descriptor, fetch: Callable[[], bytes]) -> bytes:
    return fetch()


class _Memory:
    """A sink that keeps what is written in a list."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts

    def write(self, data: bytes, /) -> None:
        self._parts.append(data)

    def seek(self, offset: int, /) -> None:
        assert offset == 0

    def truncate(self) -> None:
        self._parts.clear()


def _offered(reference: Reference, data: bytes) -> list[str]:
    platforms = {str(e.platform.normalised()) for e in _decode(data, Index, reference).manifests if e.platform}
    return sorted(platforms - {"unknown/unknown"})


def _is_image_config(media_type: str) -> bool:
    # Some old tools wrote application/octet-stream or nothing.
    return "image" in media_type or "container" in media_type or media_type in ("", "application/octet-stream")


def _verified(body: bytes, stated: str | None, subject: str, endpoint: Endpoint) -> str:
    """The SHA-256 digest of a manifest's bytes, by which it is kept, whatever the algorithm of the digest that was
    stated. Raises RegistryError if that is another manifest's."""
    if stated:
        function = new_hash(stated)
        function.update(body)
        found = f"{function.name}:{function.hexdigest()}"
        if found != stated:
            raise RegistryError(
                f"{endpoint} served a wrong manifest for {subject}: its digest is {found} instead of {stated}",
                remedy="try again; if it persists, the registry, a mirror or a proxy is broken or tampers with images",
            )
    return digest_of(body)


class _Kind(msgspec.Struct, rename="camel"):
    schema_version: int = 0
    media_type: str = ""
    manifests: Any = None
    layers: Any = None
    config: Any = None


def _media_type(body: bytes, content_type: str, reference: Reference) -> str:
    """What a document is, by what it says of itself, else by the answer's header, else by its fields.

    A document that could be read as both an index and a manifest is refused (CVE-2021-41190).
    """
    stated = content_type.partition(";")[0].strip().lower()
    try:
        kind = msgspec.json.decode(body, type=_Kind)
    except NOT_JSON as error:
        raise RegistryError(f"the manifest of {reference.familiar} is not valid JSON: {error}") from error
    if kind.schema_version == 1 or stated.startswith(_SCHEMA_1):
        raise Unsupported(
            f"{reference.familiar} has a manifest of Docker's schema 1, which registries gave up in 2019",
            remedy="pull and push it again with a current tool",
        )
    known = INDEXES | MANIFESTS
    if kind.manifests is not None and (kind.layers is not None or kind.config is not None):
        raise RegistryError(f"the manifest of {reference.familiar} is ambiguous: both an index and an image")
    media_type = kind.media_type or (stated if stated in known else "")
    if not media_type:
        media_type = OCI_INDEX if kind.manifests is not None else OCI_MANIFEST
    if media_type not in known:
        raise Unsupported(f"{reference.familiar} is not an image but {media_type}")
    is_index = kind.manifests is not None or (media_type in INDEXES and kind.layers is None and kind.config is None)
    if (media_type in INDEXES) != is_index:
        raise RegistryError(f"the manifest of {reference.familiar} is not what its type {media_type} says")
    return media_type


def _decode(data: bytes, kind: Any, reference: Reference) -> Any:
    try:
        return decode(data, kind, f"what the registry serves for {reference.familiar}")
    except StoreError as error:
        raise RegistryError(error.cause) from error
