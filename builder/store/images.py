"""The images of the store: names, and the manifests that they stand for, as `index.json` holds them.

A name is kept in two annotations, `io.containerd.image.name` (as containerd and Docker write it) and
`org.opencontainers.image.ref.name` (which skopeo and umoci look for); both hold the full reference. What else is
annotated (`build --annotation manifest-descriptor:…`) stays with each name.
"""

from __future__ import annotations

import msgspec

from builder.errors import InvalidReference, StoreError
from builder.oci import reference as references
from builder.oci.layout import Layout
from builder.oci.reference import Reference
from builder.oci.spec import (
    IMAGE_NAME,
    INDEXES,
    REF_NAME,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    decode,
    is_image,
    without_names,
)


class NoSuchImage(StoreError):
    """Nothing in the store has this name or ID. `meant` is a name like it that something has, or ''."""

    def __init__(self, cause: str, *, remedy: str | None = None, meant: str = "") -> None:
        super().__init__(cause, remedy=f"did you mean {meant}? {remedy}" if meant else remedy)
        self.meant = meant


class NoSuchVariant(StoreError):
    """The image has none for the platform that was asked for, or not all of it is here."""


class StoredImage(msgspec.Struct, frozen=True):
    """A name (None for a dangling image) and the descriptor of its manifest or index."""

    reference: Reference | None
    descriptor: Descriptor


class Images:
    """The images of one layout."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def all(self) -> list[StoredImage]:
        """Every entry, newest last."""
        return [_stored(descriptor) for descriptor in self.layout.index().manifests]

    def find(self, text: str) -> StoredImage:
        """The image that `text` names: a reference, a digest, or the first digits of an ID (3 at least).

        Raises NoSuchImage; StoreError when several IDs begin so.
        """
        entries = self.all()
        named = self.named(text, entries)
        if named is not None:
            return named
        found = {entry.descriptor.digest: entry for entry in reversed(entries) if self._has_id(entry.descriptor, text)}
        if len(found) > 1:
            raise StoreError(f"{text!r} is the beginning of {len(found)} image IDs", remedy="give more digits")
        if found:
            return next(iter(found.values()))
        raise NoSuchImage(
            f"no such image: {text}", remedy="'builder images' lists what there is", meant=_meant(text, entries)
        )

    def named(self, text: str, entries: list[StoredImage] | None = None) -> StoredImage | None:
        """The image of this name, as people write it; None if the text is no name, or nothing has it."""
        try:
            wanted = references.parse(text)
        except InvalidReference:
            return None
        for entry in reversed(self.all() if entries is None else entries):
            if entry.reference is not None and _same(entry, wanted):
                return entry
        return None

    def get(self, reference: Reference) -> StoredImage | None:
        """The image of exactly this name."""
        return next(
            (entry for entry in reversed(self.all()) if entry.reference is not None and _same(entry, reference)), None
        )

    def _has_id(self, descriptor: Descriptor, text: str) -> bool:
        wanted = id_digits(text)
        if not wanted:
            return False
        if descriptor.digest.partition(":")[2].startswith(wanted):
            return True
        try:
            return self.image_id(descriptor).partition(":")[2].startswith(wanted)
        except StoreError:
            return False  # a damaged image must not hide the others

    def image_id(self, descriptor: Descriptor) -> str:
        """Docker's image ID: the digest of the configuration; an index stands for itself."""
        if descriptor.media_type in INDEXES:
            return descriptor.digest
        return self.manifest(descriptor).config.digest

    def tag(self, descriptor: Descriptor, names: list[Reference]) -> None:
        """Give an image names. One that loses its last name stays as a dangling image, as one without any is."""
        bare = msgspec.structs.replace(without_names(descriptor), urls=None, artifact_type=None)
        with self.layout.changing() as manifests:
            displaced = []
            for name in names:
                for entry in [entry for entry in manifests if _name(entry) == str(name)]:
                    manifests.remove(entry)
                    displaced.append(entry)
                manifests.append(_named(bare, name))
            if not names and not any(entry.digest == bare.digest for entry in manifests):
                manifests.append(bare)
            for entry in displaced:
                if not any(other.digest == entry.digest for other in manifests):
                    manifests.insert(0, without_names(entry))
            for entry in [entry for entry in manifests if entry.digest == bare.digest and _name(entry) is None]:
                if names:
                    manifests.remove(entry)

    def untag(self, reference: Reference) -> bool:
        """Take a name away; the image goes with its last name. Returns whether the image is gone."""
        with self.layout.changing() as manifests:
            gone = [entry for entry in manifests if _name(entry) == str(reference)]
            for entry in gone:
                manifests.remove(entry)
            return not any(entry.digest == other.digest for entry in gone for other in manifests)

    def remove(self, digest: str) -> list[Reference | None]:
        """Remove an image with all its names, which are returned."""
        with self.layout.changing() as manifests:
            gone = [entry for entry in manifests if entry.digest == digest]
            for entry in gone:
                manifests.remove(entry)
        return [_stored(entry).reference for entry in gone]

    # --- reading

    def manifest(self, descriptor: Descriptor) -> Manifest:
        return decode(self.layout.read(descriptor.digest), Manifest, f"manifest {descriptor.digest}")

    def manifests(self, descriptor: Descriptor) -> list[Descriptor]:
        """The manifests that a descriptor stands for: itself, or what its index lists and the store holds."""
        if descriptor.media_type not in INDEXES:
            return [descriptor]
        index = decode(self.layout.read(descriptor.digest), Index, f"index {descriptor.digest}")
        return [entry for entry in index.manifests if self.layout.has(entry.digest)]

    def complete(self, descriptor: Descriptor) -> list[Descriptor]:
        """Those of its manifests whose configuration and layers are here, too: of a base image for another platform,
        a plan fetches no more than what it says of itself. All of them if no image is: reading it says what is lost."""
        here = self.manifests(descriptor)
        found = [entry for entry in here if self._is_complete(entry)]
        return found if any(is_image(entry) for entry in found) else here

    def _is_complete(self, descriptor: Descriptor) -> bool:
        if descriptor.media_type in INDEXES:
            return True
        manifest = self.manifest(descriptor)
        return all(self.layout.has(blob.digest) for blob in (manifest.config, *manifest.layers))

    def config(self, descriptor: Descriptor) -> ImageConfig:
        manifest = self.manifest(descriptor)
        return decode(self.layout.read(manifest.config.digest), ImageConfig, f"configuration {manifest.config.digest}")


def id_digits(text: str) -> str:
    """The first digits, or all, of the image ID that a text may be; '' if it cannot be one."""
    digits = text.removeprefix("sha256:")
    return digits if len(digits) >= 3 and not digits.strip("0123456789abcdef") else ""


def _meant(text: str, entries: list[StoredImage]) -> str:
    from difflib import get_close_matches

    known = {entry.reference.familiar.removesuffix(":latest") for entry in entries if entry.reference is not None}
    return next(iter(get_close_matches(text, sorted(known), 1, 0.75)), "")


def _name(descriptor: Descriptor) -> str | None:
    annotations = descriptor.annotations or {}
    return annotations.get(IMAGE_NAME) or annotations.get(REF_NAME)


def _named(descriptor: Descriptor, name: Reference) -> Descriptor:
    names = {IMAGE_NAME: str(name), REF_NAME: str(name)}
    return msgspec.structs.replace(descriptor, annotations={**(descriptor.annotations or {}), **names})


def _stored(descriptor: Descriptor) -> StoredImage:
    name = _name(descriptor)
    try:
        return StoredImage(references.parse(name) if name else None, descriptor)
    except InvalidReference:
        return StoredImage(None, descriptor)


def _same(entry: StoredImage, wanted: Reference) -> bool:
    found = entry.reference
    assert found is not None
    if found.name != wanted.name:
        return False
    if wanted.digest is not None:
        return entry.descriptor.digest == wanted.digest
    return found.tag == wanted.tag
