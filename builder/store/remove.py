"""Removing images: a name at a time, and the image with its last name."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from builder.errors import StoreError
from builder.oci import reference as references
from builder.oci.layout import Layout
from builder.oci.reference import Reference
from builder.oci.spec import INDEXES, Descriptor, Platform
from builder.store.collect import Needed, Walker
from builder.store.images import NoSuchImage, StoredImage
from builder.store.leases import frozen, held
from builder.store.room import room_to_remove
from builder.store.store import Store

_ABOUT = "vnd.docker.reference.digest"  # which manifest an attestation in an index is about


class Removal(msgspec.Struct, frozen=True):
    """What `remove` did: the names it took away, and the ID of the image that is gone ('' if it has other names)."""

    untagged: tuple[Reference, ...] = ()
    deleted: str = ""


def remove(store: Store, text: str, *, force: bool = False) -> Removal:
    """Take away the name `text`, and the image with its last name. Named by its ID an image goes with all of its names;
    it must be forced if they are in several repositories or have several tags. `NAME[:TAG]@DIGEST` takes away the names
    of that repository (with that tag). The data stays until the next collection.

    Raises StoreError: there is no such image, it must be forced, or a running build uses it.
    """
    with room_to_remove(store):
        return _remove_named(store, text, force)


def _remove_named(store: Store, text: str, force: bool) -> Removal:
    named = store.images.named(text)
    entry = store.images.find(text) if named is None else named
    names = _names(store, entry.descriptor)
    if named is not None:
        meant = _meant(named, text, names)
        if len(meant) < len(names):
            for name in meant:
                store.images.untag(name)
            return Removal(tuple(meant))
    elif not _is_single(names) and not force:
        raise StoreError(
            f"the image has several names: {', '.join(name.familiar for name in names)}",
            place=text,
            remedy="remove it by its names, or use -f",
        )
    return _remove(store, entry, names)


def _meant(named: StoredImage, text: str, names: list[Reference]) -> list[Reference]:
    """Which of an image's names a text means: `NAME@DIGEST` all of the repository, `NAME:TAG@DIGEST` that with the tag
    (moby's `getSameReferences`). Raises NoSuchImage."""
    wanted = references.parse(text)
    if wanted.digest is None:
        return [named.reference] if named.reference else []
    meant = [name for name in names if name.name == wanted.name and wanted.tag in (None, name.tag)]
    if not meant:
        raise NoSuchImage(f"no such image: {text}", remedy="'builder images' lists what there is")
    return meant


def _is_single(names: list[Reference]) -> bool:
    """Whether an image goes by its ID unforced: it has names in one repository, and one tag at most."""
    return len({name.name for name in names}) < 2 and len({name.tag for name in names if name.tag}) < 2


def remove_platforms(store: Store, text: str, platforms: Sequence[Platform]) -> Removal:
    """Remove an image's variants for some platforms; its names keep standing for the index. With the last variant the
    image goes as a whole. The data stays until the next collection.

    Raises StoreError: there is no such image or variant, another image needs it, or a running build uses it.
    """
    entry = store.images.find(text)
    if entry.descriptor.media_type not in INDEXES:
        raise StoreError("the image is for one platform only", place=text, remedy="remove it without --platform")
    here = store.images.manifests(entry.descriptor)
    gone = [one for one in here if one.platform is not None and one.platform.normalised() in platforms]
    found = {one.platform.normalised() for one in gone if one.platform is not None}
    for platform in platforms:
        if platform not in found:
            raise StoreError(f"the image has no variant for {platform} here", place=text)
    digests = {one.digest for one in gone}
    gone += [one for one in here if (one.annotations or {}).get(_ABOUT) in digests]
    if not [one for one in here if one not in gone]:
        return _remove(store, entry, _names(store, entry.descriptor))
    _refuse_shared(store, entry, digests)
    with frozen(store.leases) as pins:
        if any(one.digest in pins for one in gone):
            raise StoreError("a running build uses the image", place=text, remedy="try again when it has ended")
        for one in gone:
            path = Layout(store.root).blob_path(one.digest)
            try:
                os.unlink(path)
            except OSError as error:
                raise StoreError(f"cannot be removed: {error.strerror}", place=path) from error
    return Removal(deleted=", ".join(one.digest for one in gone))


def _refuse_shared(store: Store, entry: StoredImage, digests: set[str]) -> None:
    """Raise StoreError if another image consists of one of these manifests."""
    for other in store.images.all():
        if other.descriptor.digest == entry.descriptor.digest:
            continue
        needed = Needed()
        Walker(Layout(store.root)).reach([other.descriptor.digest], needed)
        if needed.blobs & digests:
            name = other.reference.familiar if other.reference else other.descriptor.digest
            raise StoreError(f"the variant is part of {name} too", remedy=f"remove {name} first")


def remove_entirely(store: Store, entry: StoredImage) -> Removal:
    """Remove an image with all its names. Raises StoreError when a running build uses it."""
    return _remove(store, entry, _names(store, entry.descriptor))


def in_use(store: Store, descriptor: Descriptor, pins: frozenset[str] | None = None) -> bool:
    """Whether a running build (or another command at work) holds an image."""
    pins = held(store.leases) if pins is None else pins
    if descriptor.digest in pins:
        return True
    try:
        return any(manifest.digest in pins for manifest in store.images.manifests(descriptor))
    except StoreError:
        return False


def _names(store: Store, descriptor: Descriptor) -> list[Reference]:
    entries = store.images.all()
    return [one.reference for one in entries if one.descriptor.digest == descriptor.digest and one.reference]


def _remove(store: Store, entry: StoredImage, names: list[Reference]) -> Removal:
    if in_use(store, entry.descriptor):
        name = entry.reference.familiar if entry.reference else entry.descriptor.digest
        raise StoreError("a running build uses the image", place=name, remedy="try again when it has ended")
    try:
        image_id = store.images.image_id(entry.descriptor)
    except StoreError:
        image_id = entry.descriptor.digest  # a damaged image can be removed too
    store.images.remove(entry.descriptor.digest)
    return Removal(tuple(names), image_id)
