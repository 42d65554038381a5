"""`builder manifest`: manifests in registries, and manifest lists made of them."""

from __future__ import annotations

import base64
import json
from typing import Any

import click
import msgspec

from builder.cli.flags import Command
from builder.cli.settings import Settings
from builder.cli.stores import Failures, open_store
from builder.cli.transfers import open_session
from builder.errors import NotFoundError, RegistryError, StoreError, UsageError
from builder.oci import reference as references
from builder.oci.reference import Reference
from builder.oci.spec import (
    DOCKER_INDEX,
    INDEXES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    PlatformRecord,
    decode,
    digest_of,
)
from builder.store.manifest_lists import Listed, ManifestLists

_INSECURE = click.option("--insecure", is_flag=True, help="The registry may have any certificate, or plain HTTP.")


@click.group(
    "manifest",
    epilog="Example: builder manifest inspect debian:bookworm",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
def command() -> None:
    """Inspect manifests in registries; make manifest lists of them, annotate and push these.

    Lists are kept in the store until they are pushed with --purge or removed.
    """


@command.command(
    "inspect",
    cls=Command,
    short_help="Show a manifest or a manifest list",
    epilog="Example: builder manifest inspect -v debian:bookworm",
)
@click.argument("names", metavar="[MANIFEST_LIST] MANIFEST", nargs=-1, required=True)
@_INSECURE
@click.option("-v", "--verbose", is_flag=True, help="With reference, descriptor and content of each manifest.")
@click.pass_obj
def inspect(settings: Settings, names: tuple[str, ...], insecure: bool, verbose: bool) -> None:
    """Show a manifest or a manifest list: one that is being made here, else the registry's."""
    if len(names) > 2:
        raise UsageError("inspect takes one or two names", remedy="write [MANIFEST_LIST] MANIFEST")
    lists = ManifestLists(open_store(settings))
    name = references.parse(names[-1])
    if len(names) == 2:
        _print_manifest(_member(lists, references.parse(names[0]), name), verbose)
        return
    listed = lists.get(name)
    if listed is not None:
        print(json.dumps([_shown(one) for one in listed], indent="\t") if verbose else _list_document(listed).decode())
        return
    from builder.registry.pull import fetch_entry, fetch_manifest

    with open_session(insecure=(name.domain,) if insecure else ()) as session:
        descriptor, data = fetch_manifest(session, name)
        if descriptor.media_type not in INDEXES:
            _print_manifest(
                _listed(session, name, descriptor, data) if verbose else Listed("", descriptor, data), verbose
            )
            return
        if not verbose:
            print(json.dumps(json.loads(data), indent=3, ensure_ascii=False))
            return
        entries = decode(data, Index, f"the index {name.familiar}").manifests
        found = [
            Listed(f"{name}@{entry.digest}", entry, fetch_entry(session, name, entry))
            for entry in entries
            if entry.media_type not in INDEXES
        ]
        print(json.dumps([_shown(one) for one in found], indent="\t", ensure_ascii=False))


@command.command(
    "create", cls=Command, epilog="Example: builder manifest create me/app:1 me/app:1-amd64 me/app:1-arm64"
)
@click.argument("target", metavar="MANIFEST_LIST")
@click.argument("names", metavar="MANIFEST…", nargs=-1, required=True)
@click.option("-a", "--amend", is_flag=True, help="Add to a list that is there.")
@_INSECURE
@click.pass_obj
def create(settings: Settings, target: str, names: tuple[str, ...], amend: bool, insecure: bool) -> None:
    """Make a manifest list of images in a registry. It is kept in the store, to be annotated and pushed."""
    from builder.registry.pull import fetch_manifest

    store = open_store(settings)
    lists = ManifestLists(store)
    name = references.parse(target)
    if not amend and lists.get(name) is not None:
        raise StoreError("there is such a manifest list", place=name.familiar, remedy="use --amend, or manifest rm")
    members = [references.parse(text) for text in names]
    found = []
    with open_session(insecure=tuple({one.domain for one in members}) if insecure else ()) as session:
        for member in members:
            descriptor, data = fetch_manifest(session, member)
            if descriptor.media_type in INDEXES:
                raise RegistryError(
                    f"{member.familiar} is a manifest list",
                    remedy="name one of its manifests by digest, or use 'builder imagetools create'",
                )
            found.append(_listed(session, member, descriptor, data))
    with lists.changing(name) as manifests:
        for one in found:
            _put(manifests, one)
    print(f"Created manifest list {name}")


@command.command(
    "annotate", cls=Command, epilog="Example: builder manifest annotate --variant v7 me/app:1 me/app:1-arm"
)
@click.argument("target", metavar="MANIFEST_LIST")
@click.argument("name", metavar="MANIFEST")
@click.option("--os", "os_", default="", metavar="OS", help="The operating system.")
@click.option("--arch", default="", metavar="ARCH", help="The architecture.")
@click.option("--variant", default="", metavar="VARIANT", help="The architecture's variant.")
@click.option("--os-version", default="", metavar="VERSION", help="The operating system's version.")
@click.option("--os-features", multiple=True, metavar="FEATURE", help="A feature of the operating system.")
@click.pass_obj
def annotate(
    settings: Settings,
    target: str,
    name: str,
    os_: str,
    arch: str,
    variant: str,
    os_version: str,
    os_features: tuple[str, ...],
) -> None:
    """Say for which platform a manifest of a list is."""
    lists = ManifestLists(open_store(settings))
    list_name = references.parse(target)
    member = _member(lists, list_name, references.parse(name))
    before = member.descriptor.platform or PlatformRecord("", "")
    features = [*(before.os_features or ()), *(one for text in os_features for one in text.split(",") if one)]
    platform = PlatformRecord(
        arch or before.architecture,
        os_ or before.os,
        os_version or before.os_version,
        list(dict.fromkeys(features)) or None,
        variant or before.variant,
    )
    if not platform.os or not platform.architecture:
        raise UsageError("a platform needs an operating system and an architecture", remedy="use --os and --arch")
    with lists.changing(list_name) as manifests:
        _put(manifests, msgspec.structs.replace(member, descriptor=_with_platform(member.descriptor, platform)))


@command.command(
    "push", cls=Command, short_help="Push a manifest list", epilog="Example: builder manifest push --purge me/app:1"
)
@click.argument("target", metavar="MANIFEST_LIST")
@_INSECURE
@click.option("-p", "--purge", is_flag=True, help="Remove the list from the store afterwards.")
@click.pass_obj
def push(settings: Settings, target: str, insecure: bool, purge: bool) -> None:
    """Push a manifest list, and what its manifests need and the repository lacks, and print its digest."""
    from builder.registry.indexes import Combined, Remote
    from builder.registry.push import push as push_to

    store = open_store(settings)
    lists = ManifestLists(store)
    name = references.parse(target)
    listed = _required(lists, name)
    data = _list_document(listed)
    sources = {one.descriptor.digest: references.parse(one.reference) for one in listed}
    image = Combined(Descriptor(_list_type(listed), digest_of(data), len(data)), data, sources)
    domains = {name.domain, *(source.domain for source in sources.values())}
    with store.scratch() as scratch, open_session(insecure=tuple(domains) if insecure else ()) as session:
        remote = Remote(session, image, scratch, name.domain)
        push_to(session, name, image.descriptor, remote.open, origins=remote.origins)
    for digest, source in sources.items():
        if source.name != name.name:
            print(f"Pushed ref {name.name}@{digest} with digest: {digest}")
    print(image.descriptor.digest)
    if purge:
        lists.remove(name)


@command.command(
    "rm", cls=Command, short_help="Remove manifest lists from the store", epilog="Example: builder manifest rm me/app:1"
)
@click.argument("names", metavar="MANIFEST_LIST…", nargs=-1, required=True)
@click.pass_obj
def rm(settings: Settings, names: tuple[str, ...]) -> None:
    """Remove manifest lists from the store; what was pushed stays in the registry."""
    lists = ManifestLists(open_store(settings))
    failures = Failures()
    for text in names:
        if not lists.remove(references.parse(text)):
            failures.add(_no_list(references.parse(text)))
    failures.end()


def _listed(session: Any, name: Reference, descriptor: Descriptor, data: bytes) -> Listed:
    """A manifest of a registry, with the platform that its configuration states."""
    from builder.registry.indexes import platform_of

    return Listed(str(name), _with_platform(descriptor, platform_of(session, name, data)), data)


def _with_platform(descriptor: Descriptor, platform: PlatformRecord) -> Descriptor:
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size, platform=platform)


def _put(manifests: list[Listed], one: Listed) -> None:
    """Add a manifest, in the place of one of the same name."""
    for position, other in enumerate(manifests):
        if other.reference == one.reference:
            manifests[position] = one
            return
    manifests.append(one)


def _required(lists: ManifestLists, name: Reference) -> list[Listed]:
    listed = lists.get(name)
    if not listed:
        raise _no_list(name)
    return listed


def _no_list(name: Reference) -> StoreError:
    return StoreError(
        "there is no such manifest list here", place=name.familiar, remedy="make it with 'builder manifest create'"
    )


def _member(lists: ManifestLists, list_name: Reference, name: Reference) -> Listed:
    for one in _required(lists, list_name):
        if one.reference == str(name):
            return one
    raise NotFoundError(f"manifest list {list_name.familiar} has no manifest {name.familiar}")


def _list_type(listed: list[Listed]) -> str:
    return OCI_INDEX if any(one.descriptor.media_type == OCI_MANIFEST for one in listed) else DOCKER_INDEX


def _list_document(listed: list[Listed]) -> bytes:
    """The list as Docker writes it, to the byte."""
    document = {
        "schemaVersion": 2,
        "mediaType": _list_type(listed),
        "manifests": [
            {
                "mediaType": one.descriptor.media_type,
                "size": one.descriptor.size,
                "digest": one.descriptor.digest,
                "platform": msgspec.to_builtins(one.descriptor.platform),
            }
            for one in listed
        ],
    }
    return json.dumps(document, indent=3).encode()


def _print_manifest(one: Listed, verbose: bool) -> None:
    print(json.dumps(_shown(one) if verbose else json.loads(one.data), indent="\t", ensure_ascii=False))


def _shown(one: Listed) -> dict[str, Any]:
    """What `--verbose` shows of a manifest."""
    kind = "OCIManifest" if one.descriptor.media_type == OCI_MANIFEST else "SchemaV2Manifest"
    return {
        "Ref": one.reference,
        "Descriptor": msgspec.to_builtins(one.descriptor),
        "Raw": base64.b64encode(one.data).decode(),
        kind: json.loads(one.data),
    }
