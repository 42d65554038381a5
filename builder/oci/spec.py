"""What an image is, field for field: descriptors, manifests, indexes and image configurations.

Sources: OCI image-spec 1.1 and Docker's image specification 1.3 (`Healthcheck`, `OnBuild`, `Shell`). Structures are
read leniently (unknown fields are kept aside by whoever keeps the bytes) and written with sorted, omitted-when-empty
fields. A digest is always of the bytes that were received or written, never of a structure encoded again.
"""

# No postponed annotations: msgspec would compile each of them before it first decodes one of the classes here.
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from builder.errors import StoreError
from builder.oci.digests import hex_of, is_sha256

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})

REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"

_ALIASES = {
    "x86_64": ("amd64", ""), "x86-64": ("amd64", ""), "aarch64": ("arm64", ""), "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"), "i386": ("386", ""), "i486": ("386", ""), "i586": ("386", ""), "i686": ("386", ""),
}  # fmt: skip


class Platform(msgspec.Struct, frozen=True, omit_defaults=True, order=True):
    """An operating system and a processor architecture, normalised as containerd does (`linux/arm64` has no `v8`)."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def normalise_platform(os: str, architecture: str, variant: str = "") -> Platform:
    """Containerd's normal form: `aarch64` → `arm64`, `arm` → `arm/v7`, `arm64/v8` → `arm64`, `amd64/v1` → `amd64`."""
    os, architecture, variant = os.lower(), architecture.lower(), variant.lower()
    if os == "macos":
        os = "darwin"
    if architecture in _ALIASES:
        architecture, default = _ALIASES[architecture]
        variant = variant or default
    if variant.isdigit():
        variant = f"v{variant}"
    if (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
        variant = ""
    if (architecture, variant) == ("arm", ""):
        variant = "v7"
    return Platform(os, architecture, variant)


class PlatformRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A platform as an index states it (not normalised)."""

    architecture: str
    os: str
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: list[str] | None = msgspec.field(default=None, name="os.features")
    variant: str = ""

    def normalised(self) -> Platform:
        return normalise_platform(self.os, self.architecture, self.variant)


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Points at a blob. `size` in bytes; `digest` like `sha256:…` of the stored bytes."""

    media_type: str
    digest: str
    size: int
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None
    platform: PlatformRecord | None = None
    artifact_type: str | None = None


def without_names(descriptor: Descriptor) -> Descriptor:
    """The descriptor with those of its annotations that do not name it."""
    kept = {key: value for key, value in (descriptor.annotations or {}).items() if key not in (IMAGE_NAME, REF_NAME)}
    return msgspec.structs.replace(descriptor, annotations=kept or None)


def is_image(descriptor: Descriptor) -> bool:
    """Whether an entry of an index may be an image: neither an attestation (platform unknown/unknown) nor another
    artifact."""
    return not descriptor.artifact_type and (descriptor.platform is None or descriptor.platform.os != "unknown")


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One image: its configuration and its layers, lowest first."""

    schema_version: int
    config: Descriptor
    layers: list[Descriptor]
    media_type: str = ""
    annotations: dict[str, str] | None = None
    subject: Descriptor | None = None
    artifact_type: str | None = None


class Index(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A list of manifests, usually one for each platform."""

    schema_version: int
    manifests: list[Descriptor]
    media_type: str = ""
    annotations: dict[str, str] | None = None


class Healthcheck(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """Docker's health check; times are nanoseconds. `test` is `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`."""

    test: list[str] = msgspec.field(default_factory=list)
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """What a container of the image runs with. `None` and empty are told apart for Cmd and Entrypoint, until
    the configuration is written (`without_empty`)."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    on_build: list[str] | None = None
    shell: list[str] | None = None


def without_empty(config: ContainerConfig) -> ContainerConfig:
    """The configuration as it is written: what is empty is left out, as by Go's `omitempty`."""
    empty = (name for name, value in msgspec.structs.asdict(config).items() if value in ([], {}))
    return msgspec.structs.replace(config, **dict.fromkeys(empty))


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of an image's history; `created` is RFC 3339."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class RootFS(msgspec.Struct, frozen=True):
    """The diff IDs of the layers, lowest first."""

    type: str = "layers"
    diff_ids: list[str] | None = None


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """An image's configuration. Its digest is the image ID."""

    architecture: str
    os: str
    rootfs: RootFS = msgspec.field(default_factory=RootFS)
    config: ContainerConfig = msgspec.field(default_factory=ContainerConfig)
    history: list[History] | None = None
    created: str | None = None
    author: str = ""
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: list[str] | None = msgspec.field(default=None, name="os.features")

    def platform(self) -> Platform:
        return normalise_platform(self.os, self.architecture, self.variant)


_SIZES = 1 << 63
"""A size is an int64 (image-spec, `descriptor.md`), and not below 0."""


_NUL = b"\\u0000"
"""A NUL as JSON writes it, unless its backslash belongs to another one."""


def is_blob(descriptor: Descriptor) -> bool:
    """Whether there can be a blob with this digest and size, of the one algorithm that is known here."""
    return is_sha256(descriptor.digest) and 0 <= descriptor.size < _SIZES


def paired_layers(manifest: Manifest, config: ImageConfig, name: str) -> Sequence[tuple[str, Descriptor]]:
    """An image's layers with their diff IDs, lowest first. Raises StoreError, with its `name`, where an image says what
    cannot be."""
    diff_ids = config.rootfs.diff_ids or []
    wrong = ""
    if len(diff_ids) != len(manifest.layers):
        wrong = f"its manifest has {len(manifest.layers)} layers, its configuration {len(diff_ids)}"
    for layer in manifest.layers:
        if not is_blob(layer):
            wrong = f"its manifest has a layer of {layer.size} bytes with the digest {layer.digest[:80]!r}"
    for diff_id in diff_ids:
        if not is_sha256(diff_id):
            wrong = f"its configuration has the diff ID {diff_id[:80]!r}"
    if wrong:
        raise StoreError(f"{name} is malformed: {wrong}")
    return list(zip(diff_ids, manifest.layers, strict=True))


def refuse_nul(config: ContainerConfig, name: str) -> None:
    """Raises StoreError, with the image's `name`, for a NUL character in what becomes a path, an argument or a
    variable: the system takes none. Labels may be anything."""
    for field, value in msgspec.to_builtins(config).items():
        if field != "Labels" and _NUL in msgspec.json.encode(value).replace(b"\\\\", b""):
            raise StoreError(f"{name} is malformed: {field} of its configuration has a NUL character")


NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading bytes as JSON of some kind raises, for bytes that are none: deeply nested ones, too."""


def digest_of(data: bytes) -> str:
    """The SHA-256 digest of some bytes, in the form `sha256:…`."""
    return "sha256:" + hex_of(data)


def encode(value: msgspec.Struct | dict[str, Any]) -> bytes:
    """JSON in one canonical form (compact, fields in their declared order, dictionaries sorted)."""
    return msgspec.json.encode(value, order="deterministic")


_T = TypeVar("_T", Manifest, Index, ImageConfig)


def decode(data: bytes, kind: type[_T], name: str) -> _T:
    """Read JSON as `kind`; `name` says in the error what was being read. Raises StoreError."""
    try:
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.ValidationError:
            if b"null" not in data:
                raise
            return msgspec.convert(_without_nulls(data), kind)
    except NOT_JSON as error:
        raise StoreError(f"{name} is not a valid {kind.__name__}: {error}") from error


def _without_nulls(data: bytes) -> dict[str, Any]:
    """A manifest or index with empty lists where Go's tools write null: BuildKit for an image without layers, umoci for
    a layout without images."""
    document = msgspec.json.decode(data, type=dict[str, Any])
    return document | {name: [] for name in ("layers", "manifests") if document.get(name, ()) is None}
