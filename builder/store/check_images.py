"""Does every name lead to an image that is whole?

An index may list manifests that are not here (other platforms), as in a registry's own indexes; one at least must be.
A layer that is not here and that a registry has is fetched again: only base images without a name here may lack some.
An image whose configuration states other diff IDs than its layers have can be used by nobody: it counts as lost.
"""

from __future__ import annotations

import os
from collections.abc import Collection

import msgspec

from builder.errors import BuilderError, StoreError
from builder.oci.layout import LAYOUT_FILE
from builder.oci.spec import (
    DOCKER_CONFIG,
    IMAGE_NAME,
    INDEXES,
    MANIFESTS,
    OCI_CONFIG,
    REF_NAME,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    decode,
    digest_of,
    encode,
)
from builder.store.builds import DONE, Build, Builds
from builder.store.check_layers import stack_fault
from builder.store.check_session import Session

_LARGEST_DOCUMENT = 8 << 20  # bytes


def check_layout(session: Session) -> None:
    """`oci-layout` and `index.json` themselves. A damaged index is kept aside and made again of what is here."""
    marker, index = session.path("oci-layout"), session.path("index.json")
    fault = _layout_fault(marker)
    if fault:
        repair = ""
        if session.depth.repair:
            _replace(session, marker, LAYOUT_FILE)
            repair = "written anew"
        session.found("layout", marker, fault, repair=repair)
    try:
        session.layout.index()
    except StoreError as error:
        session.damaged.add(index)
        repair = ""
        if session.depth.repair:
            kept = f"the old one {session.quarantine(index)}; " if os.path.lexists(index) else ""
            found = _recover(session)
            _replace(session, index, encode(Index(schema_version=2, manifests=found)))
            session.damaged.discard(index)
            named = sum(1 for one in found if one.annotations)
            repair = f"{kept}made again with {len(found)} images, {named} of them with the names of recorded builds"
        session.found("layout", index, error.cause, repair=repair, remedy="name the images again with 'builder tag'")


def _layout_fault(path: str) -> str:
    try:
        with open(path, "rb") as file:
            document = msgspec.json.decode(file.read(4096), type=dict[str, str])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        return f"it cannot be read: {getattr(error, 'strerror', None) or error}"
    version = document.get("imageLayoutVersion", "")
    return "" if version == "1.0.0" else f"it states version {version!r}"


def _replace(session: Session, path: str, data: bytes) -> None:
    """Write a file whole. It is synced: the names of all images depend on it."""
    temporary = session.path("tmp", f"fsck.{os.urandom(6).hex()}")
    os.makedirs(session.path("tmp"), exist_ok=True)
    with open(temporary, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)


def _recover(session: Session) -> list[Descriptor]:
    """The manifests and indexes among the blobs that no other one lists, with the names that builds gave them."""
    found: dict[str, Descriptor] = {}
    listed: set[str] = set()
    for digest in session.layout.digests():
        data = _document(session, digest)
        if data is None:
            continue
        if (index := _as_index(data)) is not None:
            listed.update(entry.digest for entry in index.manifests)
            media_type = index.media_type or "application/vnd.oci.image.index.v1+json"
            found[digest] = Descriptor(media_type, digest, len(data))
        elif (manifest := _as_manifest(data)) is not None:
            media_type = manifest.media_type or "application/vnd.oci.image.manifest.v1+json"
            found[digest] = Descriptor(media_type, digest, len(data))
    images = [one for digest, one in found.items() if digest not in listed]
    names = _recorded_names(session, {one.digest for one in images})
    named = [
        Descriptor(one.media_type, one.digest, one.size, annotations={IMAGE_NAME: name, REF_NAME: name})
        for name, digest in names.items()
        for one in images
        if one.digest == digest
    ]
    with_name = {one.digest for one in named}
    return [one for one in images if one.digest not in with_name] + named


def _recorded_names(session: Session, here: Collection[str]) -> dict[str, str]:
    """The names that builds gave to the images with these digests, each with the newest one's digest: a build that
    failed gave none, nor one whose image is elsewhere or was removed."""
    names: dict[str, str] = {}
    for build in Builds(session.root, session.path("tmp")).all():  # the newest first
        if build.outcome == DONE and build.digest in here:
            for name in build.names:
                names.setdefault(_full(name), build.digest)
    return names


def _full(name: str) -> str:
    from builder.oci.reference import parse

    return str(parse(name))


def check_images(session: Session) -> None:
    """Follow every entry of the index to its layers."""
    if session.path("index.json") in session.damaged:
        return
    entries = session.layout.index().manifests
    session.counts["images"] = len({entry.digest for entry in entries})
    lost: dict[str, str] = {}
    known: _Faults = {}
    for number, entry in enumerate(entries):
        session.progress("images", number, len(entries))
        if entry.digest not in lost:
            fault = _entry_fault(session, entry, known)
            if fault:
                lost[entry.digest] = fault
    if not lost:
        return
    dropped = _drop(session, lost)
    for entry in session.layout.index().manifests if not dropped else entries:
        if entry.digest in lost:  # an image that was removed meanwhile is nobody's loss
            session.found(
                "image",
                _shown(entry),
                lost[entry.digest],
                repair=dropped,
                remedy=_remedy(session, entry) + ("" if dropped else ", or drop the name with 'builder fsck --repair'"),
            )


def _drop(session: Session, lost: dict[str, str]) -> str:
    if not (session.depth.repair and session.depth.drop):
        return ""
    with session.layout.changing() as manifests:
        manifests[:] = [entry for entry in manifests if entry.digest not in lost]
    return "its name was dropped"


def _shown(entry: Descriptor) -> str:
    annotations = entry.annotations or {}
    return annotations.get(IMAGE_NAME) or annotations.get(REF_NAME) or f"<none>@{entry.digest}"


def _remedy(session: Session, entry: Descriptor) -> str:
    name = _shown(entry)
    build: Build | None = next(
        (one for one in Builds(session.root, session.path("tmp")).all() if one.digest == entry.digest), None
    )
    if build is not None:
        tags = "".join(f" -t {tag}" for tag in build.names)
        file = f" -f {build.dockerfile}" if build.dockerfile not in ("", "-") else ""
        return f"build it again: builder build{tags}{file} {build.context}"
    if name.startswith("<none>"):
        return "build or pull it again"
    return f"get it again: builder pull {name}, or build it again"


_Faults = dict[tuple[str, str, int], str]
"""What was found of manifests and indexes: many indexes may list one, or one many times."""


def _entry_fault(session: Session, entry: Descriptor, known: _Faults) -> str:
    """What is wrong with an image, '' if nothing is."""
    key = entry.digest, entry.media_type, entry.size
    if key not in known:
        known[key] = _find_fault(session, entry, known)
    return known[key]


def _find_fault(session: Session, entry: Descriptor, known: _Faults) -> str:
    fault = _blob_fault(session, entry)
    if fault:
        return fault
    data = _document(session, entry.digest)
    if data is None:
        return f"{entry.digest} is no manifest"
    if entry.media_type in INDEXES:
        index = _as_index(data)
        if index is None:
            return f"{entry.digest} is not an index, though its type is {entry.media_type}"
        return _index_fault(session, index, entry, known)
    if entry.media_type in MANIFESTS:
        manifest = _as_manifest(data)
        if manifest is None:
            return f"{entry.digest} is not a manifest, though its type is {entry.media_type}"
        return _manifest_fault(session, manifest, entry)
    return f"its type {entry.media_type!r} is neither a manifest's nor an index's"


def _index_fault(session: Session, index: Index, entry: Descriptor, known: _Faults) -> str:
    if index.media_type not in ("", entry.media_type):
        return f"the index {entry.digest} says that it is {index.media_type}"
    here = [one for one in index.manifests if session.is_here(one.digest) or one.digest in session.damaged]
    if index.manifests and not here:
        return f"none of the {len(index.manifests)} manifests of the index {entry.digest} is here"
    return next((fault for one in here if (fault := _entry_fault(session, one, known))), "")


def _manifest_fault(session: Session, manifest: Manifest, entry: Descriptor) -> str:
    if manifest.media_type not in ("", entry.media_type):
        return f"the manifest {entry.digest} says that it is {manifest.media_type}"
    fault = _blob_fault(session, manifest.config, "the configuration ")
    if fault:
        return fault
    fault = next((fault for layer in manifest.layers if (fault := _layer_fault(session, layer))), "")
    if fault or manifest.config.media_type not in (OCI_CONFIG, DOCKER_CONFIG) or manifest.artifact_type:
        return fault
    data = _document(session, manifest.config.digest)
    try:
        config = decode(data or b"", ImageConfig, f"configuration {manifest.config.digest}")
    except StoreError as error:
        return error.cause
    return stack_fault(session, manifest.layers, config.rootfs.diff_ids or ())


def _layer_fault(session: Session, layer: Descriptor) -> str:
    record = session.fetchable(layer.digest)
    if record is None or session.is_here(layer.digest):
        return _blob_fault(session, layer, "the layer ")
    if not session.depth.repair or session.fetch is None:
        return _blob_fault(session, layer, "the layer ")
    try:
        session.fetch(record)
    except BuilderError as error:
        return f"the layer {layer.digest} cannot be fetched again: {error}"
    session.damaged.discard(layer.digest)
    session.found(
        "image", layer.digest, "this layer of an image was not here",
        repair=f"fetched again from {record.origin.removeprefix('cache:')}",
    )  # fmt: skip
    return ""


def _blob_fault(session: Session, descriptor: Descriptor, what: str = "") -> str:
    if descriptor.digest in session.damaged:
        return f"{what}{descriptor.digest} is damaged"
    try:
        size = os.stat(session.layout.blob_path(descriptor.digest)).st_size
    except StoreError as error:
        return error.cause
    except OSError as error:
        return f"{what}{descriptor.digest} is missing: {error.strerror}"
    if size != descriptor.size:
        return f"{what}{descriptor.digest} has {size} bytes, its descriptor says {descriptor.size}"
    return ""


def _document(session: Session, digest: str) -> bytes | None:
    """A blob that may be JSON and is what its name says; None for any other."""
    try:
        with open(session.layout.blob_path(digest), "rb") as file:
            if os.fstat(file.fileno()).st_size > _LARGEST_DOCUMENT:
                return None
            data = file.read()
    except (OSError, StoreError):
        return None
    return data if data.lstrip()[:1] == b"{" and digest_of(data) == digest else None


def _as_index(data: bytes) -> Index | None:
    try:
        return decode(data, Index, "")
    except StoreError:
        return None


def _as_manifest(data: bytes) -> Manifest | None:
    try:
        return decode(data, Manifest, "")
    except StoreError:
        return None
