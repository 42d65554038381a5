"""New images out of those in registries: an index that lists their manifests, as buildx's `imagetools create` makes it.

The parts stay where they are until the index is pushed; `Remote` then opens them for the push.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, BinaryIO

import msgspec

from builder.errors import NotFoundError, RegistryError, UsageError
from builder.oci.reference import Reference
from builder.oci.spec import (
    DOCKER_INDEX,
    INDEXES,
    MANIFESTS,
    OCI_INDEX,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    PlatformRecord,
    decode,
    digest_of,
)
from builder.registry.blobs import fetch_blob
from builder.registry.platforms import matches
from builder.registry.pull import fetch_document, fetch_manifest
from builder.registry.transport import Session

REFERENCE_DIGEST = "vnd.docker.reference.digest"
"""The annotation of BuildKit's attestations that says which manifest of the index they are about."""
_DOCKER = "application/vnd.docker."


class Source(msgspec.Struct, frozen=True):
    """A manifest or index in a registry: its bytes, and its descriptor with the platform where it is one image's."""

    reference: Reference
    descriptor: Descriptor
    data: bytes


class Combined(msgspec.Struct, frozen=True):
    """A new image: its bytes, and in which repository each manifest that it lists is found."""

    descriptor: Descriptor
    data: bytes
    sources: dict[str, Reference]


def read_source(session: Session, reference: Reference, override: Descriptor | None = None) -> Source:
    """What a reference names now. `override` is a descriptor that people wrote: its platform and annotations count.

    Raises NotFoundError, RegistryError.
    """
    found, data = fetch_manifest(session, reference)
    descriptor = found
    if override is not None:
        if override.size and override.size != found.size:
            raise RegistryError(f"{found.digest} has {found.size} bytes, not {override.size}", place=str(reference))
        descriptor = msgspec.structs.replace(
            override, digest=found.digest, size=found.size, media_type=override.media_type or found.media_type
        )
    if descriptor.media_type in MANIFESTS:
        platform = platform_of(session, reference, data, descriptor.platform)
        descriptor = msgspec.structs.replace(descriptor, platform=platform)
    return Source(reference, descriptor, data)


def platform_of(
    session: Session, reference: Reference, manifest: bytes, given: PlatformRecord | None = None
) -> PlatformRecord:
    """An image's platform: what is `given` of it, else what its configuration says."""
    if given is not None and given.os and given.architecture:
        return given
    document = decode(manifest, Manifest, f"the manifest of {reference.familiar}")
    data = fetch_document(session, reference, document.config)
    config = decode(data, ImageConfig, f"the configuration of {reference.familiar}")
    found = config.platform()
    before = given or PlatformRecord("", "")
    return msgspec.structs.replace(
        before,
        architecture=before.architecture or found.architecture,
        os=before.os or found.os,
        os_version=before.os_version or config.os_version,
        variant=before.variant or ("" if before.architecture else found.variant),
    )


def combine(
    sources: Sequence[Source],
    *,
    annotations: Mapping[str, str] | None = None,
    descriptor_annotations: Sequence[tuple[Platform | None, str, str]] = (),
    prefer_index: bool = True,
    platforms: Sequence[Platform] = (),
) -> Combined:
    """The index of all sources' manifests; those of an index count one by one, and each once.

    One lone source is taken as it is, if it is an index or with `prefer_index` off. With `platforms` only their images
    and the attestations of these are listed. Raises UsageError for what does not go together.
    """
    lone = len(sources) == 1 and not annotations and not descriptor_annotations
    if lone and (sources[0].descriptor.media_type in INDEXES or not prefer_index):
        source = sources[0]
        if source.descriptor.media_type in INDEXES:
            entries = _entries(source)
            kept = _for_platforms(entries, platforms)
            if kept == entries:
                return Combined(source.descriptor, source.data, {entry.digest: source.reference for entry in entries})
            return _index(kept, source.descriptor.media_type, None, {entry.digest: source.reference for entry in kept})
        if not _for_platforms([source.descriptor], platforms):
            raise UsageError(f"{source.reference.familiar} is for none of the platforms that were asked for")
        return Combined(source.descriptor, source.data, {source.descriptor.digest: source.reference})
    listed: dict[str, Descriptor] = {}
    origins: dict[str, Reference] = {}
    for source in sources:
        entries = _entries(source) if source.descriptor.media_type in INDEXES else [source.descriptor]
        for entry in entries:
            listed[entry.digest] = _merged(listed.get(entry.digest), entry)
            origins[entry.digest] = source.reference
    chosen = _for_platforms(list(listed.values()), platforms)
    media_type = DOCKER_INDEX if all(e.media_type.startswith(_DOCKER) for e in chosen) else OCI_INDEX
    if media_type == DOCKER_INDEX and (annotations or descriptor_annotations):
        raise UsageError("an index of Docker's type cannot have annotations", remedy="use images with OCI media types")
    chosen = [_annotated(entry, descriptor_annotations) for entry in chosen]
    return _index(chosen, media_type, annotations, {entry.digest: origins[entry.digest] for entry in chosen})


class Remote:
    """Opens the blobs of a combined image for a push, wherever they are: what the target lacks and cannot mount is
    fetched into a file below `scratch`, verified before a byte of it is sent. Thread-safe.
    """

    def __init__(self, session: Session, image: Combined, scratch: str, target: str) -> None:
        self._session = session
        self._image = image
        self._scratch = scratch
        self._target = target
        self._manifests = dict(image.sources)
        self._blobs: dict[str, tuple[Reference, Descriptor]] = {}
        self._origins: dict[str, list[str]] = {}

    def open(self, digest: str) -> BinaryIO:
        """Raises NotFoundError, RegistryError."""
        if digest == self._image.descriptor.digest:
            self._learn(self._image.data, self._image.descriptor.media_type, self._manifests.get(digest))
            return BytesIO(self._image.data)
        if digest in self._blobs:
            reference, descriptor = self._blobs[digest]
            file = tempfile.TemporaryFile(dir=self._scratch)  # noqa: SIM115  # the push closes it
            try:
                fetch_blob(self._session, reference, descriptor, file)
                file.seek(0)
            except BaseException:
                file.close()
                raise
            return file
        reference = self._manifests[digest]
        found, data = fetch_manifest(self._session, msgspec.structs.replace(reference, tag=None, digest=digest))
        self._learn(data, found.media_type, reference)
        return BytesIO(data)

    def origins(self) -> dict[str, list[str]]:
        """For `push`: from which repositories of the registry `target` blobs of the manifests that were opened, which
        a push does first, can be mounted."""
        return self._origins

    def _learn(self, data: bytes, media_type: str, reference: Reference | None) -> None:
        """Note where the parts of a manifest or index are."""
        if media_type in INDEXES:
            for entry in decode(data, Index, "an index").manifests:
                if reference is not None:
                    self._manifests.setdefault(entry.digest, reference)
            return
        assert reference is not None
        manifest = decode(data, Manifest, f"a manifest of {reference.familiar}")
        for blob in (manifest.config, *manifest.layers):
            self._blobs[blob.digest] = (reference, blob)
            if reference.domain == self._target:
                self._origins.setdefault(blob.digest, []).append(reference.path)


def _document(entries: Sequence[Descriptor], media_type: str, annotations: Mapping[str, str] | None) -> Any:
    """An index as plain data, its fields in the order in which Docker's tools write them."""
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type}
    document["manifests"] = [msgspec.to_builtins(entry) for entry in entries]
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    return document


def _index(
    entries: Sequence[Descriptor], media_type: str, annotations: Mapping[str, str] | None, origins: dict[str, Reference]
) -> Combined:
    if not entries:
        raise NotFoundError("no image is left: there is none for the platforms that were asked for")
    data = msgspec.json.format(msgspec.json.encode(_document(entries, media_type, annotations)), indent=2)
    return Combined(Descriptor(media_type, digest_of(data), len(data)), data, origins)


def _entries(source: Source) -> list[Descriptor]:
    return decode(source.data, Index, f"the index {source.reference.familiar}").manifests


def _merged(before: Descriptor | None, entry: Descriptor) -> Descriptor:
    """An image that is listed twice: what is said later of its platform counts, annotations add up."""
    if before is None:
        return entry
    return msgspec.structs.replace(
        before,
        platform=entry.platform or before.platform,
        annotations={**(before.annotations or {}), **(entry.annotations or {})} or None,
    )


def _for_platforms(entries: list[Descriptor], platforms: Sequence[Platform]) -> list[Descriptor]:
    if not platforms:
        return entries

    def wanted(entry: Descriptor) -> bool:
        return entry.platform is None or any(matches(entry.platform.normalised(), one) for one in platforms)

    kept = {entry.digest for entry in entries if wanted(entry)}
    return [
        entry for entry in entries if entry.digest in kept or (entry.annotations or {}).get(REFERENCE_DIGEST) in kept
    ]


def _annotated(entry: Descriptor, annotations: Sequence[tuple[Platform | None, str, str]]) -> Descriptor:
    fitting = {
        key: value
        for platform, key, value in annotations
        if platform is None or (entry.platform is not None and entry.platform.normalised() == platform)
    }
    if not fitting:
        return entry
    return msgspec.structs.replace(entry, annotations={**(entry.annotations or {}), **fitting})
