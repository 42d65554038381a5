"""Attestations: what is said of an image beside it (`--provenance`, `--sbom`, `--attest`), and how that is stored.

Each image's statements (in-toto) are the layers of a manifest of their own, which stands in the index behind the
images with the platform unknown/unknown, so that nobody runs it. Source: BuildKit's
docs/attestations/attestation-storage.md and exporter/containerimage/writer.go.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from builder.errors import Unsupported, UsageError
from builder.export.output import Output
from builder.export.purl import image_purl
from builder.oci.reference import Reference
from builder.oci.spec import OCI_CONFIG, OCI_MANIFEST, Descriptor, Platform, PlatformRecord, encode
from builder.store.store import Store

ARTIFACT = "application/vnd.docker.attestation.manifest.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
IN_TOTO = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "in-toto.io/predicate-type"
REFERENCE_TYPE = "vnd.docker.reference.type"
REFERENCE_DIGEST = "vnd.docker.reference.digest"

_MODES = {"min": "min", "max": "max", "full": "max"}
_VERSIONS = ("v1", "v0.2")
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """How the provenance is to be. `mode` is `min` or `max`, `version` that of SLSA's predicate (`v1`, `v0.2`);
    `inline_only` keeps it to images in the store and registries; `complete` refuses a build some of whose materials are
    not known by digest."""

    mode: str = "max"
    version: str = "v1"
    builder_id: str = ""
    filename: str = "provenance.json"
    reproducible: bool = False
    inline_only: bool = False
    complete: bool = False


class Attestations(msgspec.Struct, frozen=True, kw_only=True):
    """Which attestations a build makes: by default none, unlike buildx."""

    provenance: Provenance | None = None
    sbom: bool = False

    def for_output(self, output: Output) -> Attestations:
        """Those that go with an output."""
        if self.provenance is not None and self.provenance.inline_only and output.type != "image":
            return msgspec.structs.replace(self, provenance=None)
        return self

    def __bool__(self) -> bool:
        return self.provenance is not None or self.sbom


def parse_attestations(provenance: str, sbom: str, attest: Iterable[str]) -> Attestations:
    """Read the three options. Of one type the last counts, and --provenance and --sbom more than --attest, as in
    buildx. Raises UsageError; Unsupported for what BuildKit has and we do not."""
    texts = [("--attest", text) for text in attest]
    texts += [("--provenance", _in_full("provenance", provenance))] if provenance else []
    texts += [("--sbom", _in_full("sbom", sbom))] if sbom else []
    given: dict[str, dict[str, str] | None] = {}
    for option, text in texts:
        fields = _fields(option, text)
        kind = fields.pop("type", "")
        if kind not in ("provenance", "sbom"):
            raise UsageError(
                f"unknown attestation type {kind!r} in {option}", remedy="the types are provenance and sbom"
            )
        given[kind] = None if _flag(fields, "disabled", option) else fields
    wanted = given.get("provenance")
    return Attestations(
        provenance=_provenance(wanted) if wanted is not None else None, sbom=_wants_sbom(given.get("sbom"))
    )


def _in_full(kind: str, text: str) -> str:
    """`--provenance=TEXT` as --attest has it."""
    if text.lower() in (*_TRUE, *_FALSE):
        return f"type={kind},disabled={'true' if text.lower() in _FALSE else 'false'}"
    return f"type={kind},{text}"


def _fields(option: str, text: str) -> dict[str, str]:
    try:
        parts = next(csv.reader([text]), [])
    except csv.Error as error:
        raise UsageError(f"invalid {option} {text!r}: {error}", remedy="write key=value pairs with commas") from error
    fields: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"invalid field {part!r} in {option}", remedy=f"write for example {option} type=sbom")
        fields[key.strip().lower()] = value
    return fields


def _flag(fields: dict[str, str], key: str, option: str) -> bool:
    text = fields.pop(key, "false").lower()
    if text not in (*_TRUE, *_FALSE):
        raise UsageError(f"{key}={text!r} in {option} is neither true nor false")
    return text in _TRUE


def _provenance(fields: dict[str, str]) -> Provenance:
    option = "--provenance"
    mode, version = fields.pop("mode", "max"), fields.pop("version", "v1")
    filename = fields.pop("filename", "provenance.json")
    if mode not in _MODES:
        raise UsageError(f"invalid mode {mode!r} of the provenance", remedy="write mode=min or mode=max")
    if version not in _VERSIONS:
        raise UsageError(f"unknown version {version!r} of SLSA's provenance", remedy="write version=v1 or version=v0.2")
    if not filename or "/" in filename or filename in (".", ".."):
        raise UsageError(f"invalid filename {filename!r} for the provenance", remedy="give a name without a directory")
    if _flag(fields, "capture-usage", option):
        raise Unsupported(
            "capture-usage=true: what steps use of the machine is not recorded in the provenance", remedy="leave it out"
        )
    made = Provenance(
        mode=_MODES[mode],
        version=version,
        builder_id=fields.pop("builder-id", ""),
        filename=filename,
        reproducible=_flag(fields, "reproducible", option),
        inline_only=_flag(fields, "inline-only", option),
        complete=_flag(fields, "complete-materials", option),
    )
    if fields:
        raise UsageError(f"unknown option {next(iter(fields))!r} of the provenance")
    return made


def _wants_sbom(fields: Mapping[str, str] | None) -> bool:
    if fields is None:
        return False
    if "generator" in fields:
        raise Unsupported(
            f"generator={fields['generator']}: SBOMs are made by the builder itself; no scanner's image is run",
            remedy="write --sbom=true",
        )
    if fields:
        raise UsageError(f"unknown option {next(iter(fields))!r} of the SBOM", remedy="write --sbom=true")
    return True


def check_outputs(attestations: Attestations, outputs: Iterable[Output]) -> None:
    """Raises UsageError for an output whose form cannot hold attestations."""
    for output in outputs:
        if not attestations.for_output(output):
            continue
        if output.type == "docker":
            raise UsageError(
                "type=docker holds no index, which attestations need",
                remedy="use type=oci, or leave out --provenance, --sbom and --attest",
            )
        if output.oci_media_types is False:
            raise UsageError(
                "Docker's media types have no attestations",
                remedy="leave out oci-mediatypes=false, or the attestations",
            )


# --- statements


class Predicate(msgspec.Struct, frozen=True):
    """What is said, its type (a URI), and the name of its file where files are written."""

    type: str
    value: dict[str, Any]
    filename: str


def statement(predicate: Predicate, subjects: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """An in-toto statement. Subjects are names and digests (`sha256:…`)."""
    return {
        "_type": STATEMENT,
        "predicateType": predicate.type,
        "subject": [
            {"name": name, "digest": dict([digest.split(":", 1)])} for name, digest in subjects
        ],
        "predicate": predicate.value,
    }  # fmt: skip


def image_subjects(names: Sequence[Reference], platform: Platform, digest: str) -> list[tuple[str, str]]:
    """An image under each of its names; `_` for one without."""
    return [(image_purl(name, platform), digest) for name in names] or [("_", digest)]


def attestation_manifest(
    store: Store, image: Descriptor, statements: Sequence[dict[str, Any]], *, artifact: bool
) -> Descriptor:
    """Put the statements about an image's manifest into the store; the entry for the index.

    With `artifact` the manifest is an OCI artifact with the image as its subject, as BuildKit has it now; without, it
    looks like an image, for registries that take nothing else.
    """
    layers = []
    for made in statements:
        data = encode(made)
        annotations = {PREDICATE_TYPE: str(made["predicateType"])}
        layers.append(_document(IN_TOTO, store.layout.put(data), len(data), annotations=annotations))
    manifest: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST}
    if artifact:
        store.layout.put(b"{}")
        manifest["artifactType"] = ARTIFACT
        manifest["config"] = {
            **_document(EMPTY, "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", 2),
            "data": "e30=",
        }
        manifest["subject"] = _document(image.media_type, image.digest, image.size)
    else:
        rootfs = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
        config = encode({"architecture": "unknown", "os": "unknown", "config": {}, "rootfs": rootfs})
        manifest["config"] = _document(OCI_CONFIG, store.layout.put(config), len(config))
    data = encode({**manifest, "layers": layers})
    return Descriptor(
        OCI_MANIFEST,
        store.layout.put(data),
        len(data),
        annotations={REFERENCE_TYPE: "attestation-manifest", REFERENCE_DIGEST: image.digest},
        platform=PlatformRecord("unknown", "unknown"),
    )


def _document(media_type: str, digest: str, size: int, **more: object) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size, **more}
