"""What `builder push` does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from builder.cli.settings import Settings
from builder.cli.stores import open_store, platform_of
from builder.cli.transfers import PUSHED, TransferView, open_session
from builder.errors import NotFoundError, StoreError, UsageError
from builder.oci import reference as references
from builder.oci.reference import DEFAULT_TAG, Reference
from builder.oci.spec import INDEXES, Descriptor, Index, Platform, decode, is_image
from builder.store.images import NoSuchImage
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.registry.transport import Session

_DEFAULTED = f"Using default tag: {DEFAULT_TAG}"


def run_push(settings: Settings, given: dict[str, Any]) -> None:
    """Push images; `given` are the arguments and options as click reads them, by the names that `push` gives them.
    Raises BuilderError."""
    names, quiet, all_tags = given["names"], given["quiet"], given["all_tags"]
    store = open_store(settings)
    wanted = platform_of(given["platform"])
    pushed: list[tuple[Descriptor, list[Reference]]] = []
    whole = True
    with store.lease(), TransferView(PUSHED, quiet=quiet) as view, open_session(report=view) as session:
        for descriptor, tags in _images(store, names, wanted, all_tags, view):
            view.line(_heading(tags))
            sent = _push(store, session, descriptor, tags, view)
            for tag in tags:
                view.line(_ending(tag, sent))
            if quiet:
                print(*tags, sep="\n")
            pushed.append((sent, tags))
            whole = whole and sent is descriptor
        if settings.asked is not None and whole:
            from builder.api.repeat.push import remember

            remember(settings.asked, pushed, _words_again(store, names, pushed, quiet, all_tags), os.environ)


def _heading(tags: Sequence[Reference]) -> str:
    return f"The push refers to repository [{tags[0].name}]"


def _ending(tag: Reference, sent: Descriptor) -> str:
    return f"{tag.tag}: digest: {sent.digest} size: {sent.size}"


def _words_again(
    store: Store,
    names: Sequence[str],
    pushed: Sequence[tuple[Descriptor, Sequence[Reference]]],
    quiet: bool,
    all_tags: bool,
) -> str:
    """What the same push says when the registry has all of it."""
    lines = []
    if not quiet and not all_tags:
        lines += [_DEFAULTED for text in names if not references.parse(text, default_tag=False).tag]
    for image, tags in pushed:
        if quiet:
            lines += map(str, tags)
            continue
        lines.append(_heading(tags))
        lines += [_present(layer) for layer in dict.fromkeys(_layers(store, image))]
        lines += [_ending(tag, image) for tag in tags]
    return "".join(f"{line}\n" for line in lines)


def _present(layer: str) -> str:
    return f"{layer[7:19]}: {PUSHED['present']}"


def _images(
    store: Store, names: Sequence[str], platform: Platform | None, all_tags: bool, view: TransferView
) -> list[tuple[Descriptor, list[Reference]]]:
    """What is to be pushed: images, each with its tags in one repository. Raises UsageError, NoSuchImage."""
    groups: dict[tuple[str, str], tuple[Descriptor, list[Reference]]] = {}
    for text in names:
        given = references.parse(text, default_tag=False)
        if given.digest:
            raise UsageError(f"{text!r} has a digest, which cannot be pushed to", remedy="write NAME[:TAG]")
        if all_tags and given.tag:
            raise UsageError("a tag cannot be used with --all-tags", remedy="name the repository alone")
        if not all_tags and not given.tag:
            view.line(_DEFAULTED)
        found = [
            (entry.reference, entry.descriptor)
            for entry in store.images.all()
            if (name := entry.reference) and name.name == given.name and name.tag
            if all_tags or name.tag == (given.tag or DEFAULT_TAG)
        ]
        if not found:
            raise NoSuchImage(
                f"there is no image to push as {given.familiar}",
                remedy=f"name one so with 'builder tag IMAGE {given.familiar}'; 'builder images' lists what there is",
            )
        for name, descriptor in found:
            assert name is not None
            if platform is not None:
                descriptor = _variant(store, name, descriptor, platform)
            _, tags = groups.setdefault((name.name, descriptor.digest), (descriptor, []))
            if name not in tags:
                tags.append(name)
    return list(groups.values())


def _variant(store: Store, name: Reference, image: Descriptor, platform: Platform) -> Descriptor:
    from builder.registry.platforms import matches, select

    if image.media_type in INDEXES:
        chosen = select(store.images.complete(image), platform)
        if chosen:
            return _bare(chosen[0])
    elif matches(store.images.config(image).platform(), platform):
        return image
    raise NotFoundError(
        f"{name.familiar} has no image for {platform} here", remedy="'builder images --tree' lists what there is"
    )


def _push(
    store: Store, session: Session, image: Descriptor, tags: Sequence[Reference], view: TransferView
) -> Descriptor:
    """Push an image; of an index that is not all here, and not in the repository, the one image that is. What was
    pushed. Raises StoreError when there are several."""
    from builder.export.registry import push_image

    lone = None
    try:
        pushed = push_image(store, session, image, tags, view)
    except StoreError as error:
        lacking = _lacking(store, image)
        if not lacking:
            raise
        here = [entry for entry in store.images.complete(image) if _is_image(store, entry)]
        if len(here) != 1:
            raise StoreError(
                f"neither the store nor the repository has all of the image: there is no {', '.join(lacking)}",
                place=tags[0].familiar,
                remedy="pull these platforms, or push one that is here with --platform",
            ) from error
        lone = _bare(here[0])
        pushed = push_image(store, session, lone, tags, view)
    sent = lone or image
    told = {*pushed.uploaded, *pushed.mounted, *pushed.present}
    for layer in dict.fromkeys(_layers(store, sent)):
        if layer not in told:  # the repository had the image: nothing was asked about its parts
            view.line(_present(layer))
    if lone is not None:
        view.line(
            "Not all multiplatform-content is present and only the available single-platform image was pushed\n"
            f"{image.digest} -> {lone.digest}"
        )
    return sent


def _lacking(store: Store, image: Descriptor) -> list[str]:
    """The platforms of an index that are not in the store as a whole."""
    if image.media_type not in INDEXES:
        return []
    entries = decode(store.layout.read(image.digest), Index, image.digest).manifests
    here = {entry.digest for entry in store.images.complete(image)}
    return [
        str(entry.platform.normalised()) if entry.platform else entry.digest
        for entry in entries
        if entry.digest not in here
    ]


def _is_image(store: Store, manifest: Descriptor) -> bool:
    """Whether it is an image, and no attestation of one."""
    return manifest.media_type not in INDEXES and is_image(manifest) and store.images.config(manifest).os != "unknown"


def _layers(store: Store, image: Descriptor) -> list[str]:
    if image.media_type not in INDEXES:
        return [layer.digest for layer in store.images.manifest(image).layers]
    return [layer for entry in store.images.complete(image) for layer in _layers(store, entry)]


def _bare(descriptor: Descriptor) -> Descriptor:
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size)
