"""How `imagetools inspect` shows an image of a registry, in buildx's form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import msgspec

from builder.cli.template import Template
from builder.cli.template_functions import FUNCTIONS
from builder.cli.template_values import Record
from builder.oci.reference import Reference
from builder.oci.spec import INDEXES, Descriptor, ImageConfig, Index, Manifest, decode
from builder.registry.indexes import REFERENCE_DIGEST, platform_of
from builder.registry.pull import fetch_document, fetch_entry
from builder.registry.transport import Session

_PREDICATE_TYPE = "in-toto.io/predicate-type"
_SPDX = "https://spdx.dev/Document"
_SLSA = "https://slsa.dev/provenance/"
_FIELDS = {
    "os": "OS",
    "os_version": "OSVersion",
    "os_features": "OSFeatures",
    "urls": "URLs",
    "diff_ids": "DiffIDs",
    "rootfs": "RootFS",
}
"""The fields of Go's structures whose names do not follow from ours: `media_type` is `MediaType`."""
_ALWAYS = frozenset(("mediaType", "digest", "size", "architecture", "os", "config", "rootfs", "type", "diff_ids"))


def describe(reference: Reference, descriptor: Descriptor, data: bytes) -> str:
    """Name, type and digest, and below them what an index lists."""
    lines = _aligned("", {"Name": str(reference), "MediaType": descriptor.media_type, "Digest": descriptor.digest})
    if descriptor.media_type in INDEXES:
        lines += ["", "Manifests:"]
        for position, entry in enumerate(decode(data, Index, str(reference)).manifests):
            lines += [""] * bool(position)
            lines += _entry(reference, entry)
    return "".join(f"{line}\n" for line in lines)


def render(session: Session, name: str, reference: Reference, descriptor: Descriptor, data: bytes, form: str) -> str:
    """An image by a template. Only what the template names is fetched. Raises UsageError, RegistryError."""
    template = Template(form, {"json": FUNCTIONS["prettyjson"]})
    return template.render(_Document(name, _Image(session, reference, descriptor, data)))


class _Image:
    """An image of a registry, read as far as it is asked for."""

    def __init__(self, session: Session, reference: Reference, descriptor: Descriptor, data: bytes) -> None:
        self._session = session
        self._reference = reference
        self._descriptor = descriptor
        self._data = data

    def manifest(self) -> Any:
        """The manifest's descriptor; of an index with what it lists."""
        if self._descriptor.media_type not in INDEXES:
            return struct_of(self._descriptor)
        index = decode(self._data, Index, str(self._reference))
        fields = {
            "SchemaVersion": index.schema_version,
            "MediaType": index.media_type or self._descriptor.media_type,
            "Digest": self._descriptor.digest,
            "Size": self._descriptor.size,
            "Manifests": [struct_of(entry) for entry in index.manifests],
            "Annotations": index.annotations,
        }
        names = {key: key[0].lower() + key[1:] for key in fields}
        return Struct(fields, names, frozenset({"annotations"}))

    def configurations(self) -> Any:
        """The configuration; of several platforms a map of them."""
        found = {}
        for platform, manifest in self._manifests[0].items():
            document = decode(manifest, Manifest, str(self._reference)).config
            data = fetch_document(self._session, self._reference, document)
            found[platform] = struct_of(decode(data, ImageConfig, document.digest))
        return found if len(found) > 1 else next(iter(found.values()), None)

    def provenance(self) -> Any:
        return self._predicates(lambda found: {"SLSA": found[0]}, _SLSA)

    def sbom(self) -> Any:
        return self._predicates(
            lambda found: {"SPDX": found[0], **({"AdditionalSPDXs": found[1:]} if found[1:] else {})}, _SPDX
        )

    @cached_property
    def _manifests(self) -> tuple[dict[str, bytes], dict[str, list[bytes]]]:
        """The images' manifests by platform, and the attestations about each, by platform too."""
        session, reference = self._session, self._reference
        if self._descriptor.media_type not in INDEXES:
            lone = platform_of(session, reference, self._data).normalised()
            return {str(lone): self._data}, {}
        images: dict[str, bytes] = {}
        about: dict[str, list[bytes]] = {}
        platforms: dict[str, str] = {}
        for entry in decode(self._data, Index, str(reference)).manifests:
            if entry.media_type in INDEXES:
                continue
            data = fetch_entry(session, reference, entry)
            subject = (entry.annotations or {}).get(REFERENCE_DIGEST)
            if subject is not None:
                about.setdefault(subject, []).append(data)
                continue
            platform = str(platform_of(session, reference, data, entry.platform).normalised())
            images[platform] = data
            platforms[platform] = entry.digest
        return images, {platform: about[digest] for platform, digest in platforms.items() if digest in about}

    def _predicates(self, shape: Callable[[list[Any]], dict[str, Any]], kind: str) -> Any:
        """What attestations of a kind state, for each platform that has one."""
        images, attestations = self._manifests
        found: dict[str, Any] = {}
        for platform, manifests in attestations.items():
            layers = [layer for data in manifests for layer in decode(data, Manifest, "an attestation").layers]
            stated = [
                msgspec.json.decode(fetch_document(self._session, self._reference, layer)).get("predicate")
                for layer in layers
                if (layer.annotations or {}).get(_PREDICATE_TYPE, "").startswith(kind)
            ]
            if stated:
                found[platform] = shape(stated)
        return found if len(images) > 1 else next(iter(found.values()), {})


class _Document(Record):
    """What a template sees; its fields are fetched when they are asked for."""

    def __init__(self, name: str, image: _Image) -> None:
        super().__init__(dict.fromkeys(("Name", "Manifest", "Image", "SBOM", "Provenance")))
        self._makers: dict[str, Callable[[], Any]] = {
            "Name": lambda: name,
            "Manifest": image.manifest,
            "Image": image.configurations,
            "SBOM": image.sbom,
            "Provenance": image.provenance,
        }

    def __getitem__(self, key: str) -> Any:
        maker = self._makers.pop(key, None)
        if maker is not None:
            self[key] = maker()
        return super().__getitem__(key)

    def items(self) -> Any:
        """The fields that `{{json .}}` shows, as buildx names them."""
        return {key.lower(): self[key] for key in ("Name", "Manifest", "Image")}.items()


class Struct(Record):
    """A Go structure whose fields have other names in JSON (`names`, by field)."""

    def __init__(self, fields: Mapping[str, Any], names: Mapping[str, str], omit: frozenset[str]) -> None:
        super().__init__(fields)
        self.names = names
        self.omit = omit

    def items(self) -> Any:
        """The fields as JSON has them."""
        return {self.names[key]: self[key] for key in self}.items()


def struct_of(value: Any) -> Any:
    """One of our structures of the image specification as Go's of the same name."""
    if isinstance(value, list):
        return [struct_of(item) for item in value]
    if not isinstance(value, msgspec.Struct):
        return value
    own = value.__struct_fields__
    names = {_field(name): encoded for name, encoded in zip(own, value.__struct_encode_fields__, strict=True)}
    fields = {_field(name): struct_of(getattr(value, name)) for name in own}
    return Struct(fields, names, frozenset(names.values()) - _ALWAYS)


def _field(name: str) -> str:
    return _FIELDS.get(name) or "".join(part.capitalize() for part in name.split("_"))


def _entry(reference: Reference, entry: Descriptor) -> list[str]:
    fields = {"Name": f"{reference.name}@{entry.digest}", "MediaType": entry.media_type}
    platform = entry.platform
    if platform is not None:
        fields["Platform"] = "/".join(part for part in (platform.os, platform.architecture, platform.variant) if part)
        fields["OSVersion"] = platform.os_version
        fields["OSFeatures"] = ", ".join(platform.os_features or ())
    fields["URLs"] = ", ".join(entry.urls or ())
    lines = _aligned("  ", {key: value for key, value in fields.items() if value})
    if entry.annotations:
        lines += ["  Annotations:", *_aligned("    ", entry.annotations)]
    return lines


def _aligned(indent: str, fields: Mapping[str, str]) -> list[str]:
    width = max(len(key) for key in fields) + 2
    return [f"{indent}{f'{key}:'.ljust(width)}{value}" for key, value in fields.items()]
