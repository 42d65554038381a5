"""What can be asked of a build, and what comes back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from builder.errors import StoreError, UsageError
from builder.export.destination import WrittenFile
from builder.export.output import Output
from builder.oci.spec import Platform
from builder.progress import Warned
from builder.solver.annotations import Annotation
from builder.solver.limits import Limits
from builder.store.builds import BuiltStep

if TYPE_CHECKING:
    from builder.api.image import Image
    from builder.export.attestations import Attestations
    from builder.export.cache_options import CacheSource, CacheTarget


ENTITLEMENTS = ("network.host", "security.insecure", "buildx.local.delete")
"""What a build may be allowed beyond what every build may."""


SOURCE_POLICY = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"
DEFAULT_POLICY = "BUILDX_DEFAULT_POLICY"
"""Variables by which buildx has source policies (`api.policies`)."""
REGO = ".rego"
"""What the name of a Dockerfile's policy ends with."""


class SecretSource(msgspec.Struct, frozen=True):
    """Where a secret's bytes are: a file of the host, a variable of the environment, or here."""

    path: str = ""
    variable: str = ""
    value: bytes | None = None

    def __repr__(self) -> str:
        kept = "value=***" if self.value is not None else f"path={self.path!r}, variable={self.variable!r}"
        return f"SecretSource({kept})"


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that an image, each of its layers, and what no one can see of it may have; `waste_share` is the latter as a
    fraction of the image's size. None for no limit."""

    size: int | None = None
    layer: int | None = None
    waste: int | None = None
    waste_share: float | None = None


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A build. `context` is a directory, a URL, a git reference or `-`; `dockerfile` a path, `-`, or '' (the default).

    `squash` is '' (keep the layers), `all` (one layer) or `new` (one layer above the base's). `no_cache` is None for
    caching, an empty set for none at all, or the names of stages that run anew. `environ` is what
    variables (SOURCE_DATE_EPOCH, credentials) are looked up in. `agents` are SSH agents by ID: the path of a socket, or
    those of files with private keys. `cache_from` are caches to look steps up in too, `cache_to` caches to write.

    `network` is that of RUN steps: `none`, `host` or `default`; '' means the latter too, but gives way to `offline`,
    with which nothing is fetched and steps have no network. `isolation` is `default` (the best that this machine
    allows) or `chroot`. `attestations` are what is said beside the image. `report` and `trace` are files to be written
    about the build, also if it fails: a page (HTML) and a Chrome trace (JSON). `told_provenance` (`min` or `max`) is
    what the result says of how the images were made. `rego` says whether policies in Rego count, which are refused: a
    Dockerfile's own, and buildx's.

    `keep_failed` keeps the state of a step that fails (`BuilderError.kept`); `break_at` stops before one, in the same
    way: a position as it is shown (`build 2/5`, `2`), a line (`:7`), or a stage.
    """

    context: str = "."
    dockerfile: str = ""
    tags: tuple[str, ...] = ()
    build_args: dict[str, str] = {}
    contexts: dict[str, str] = {}
    target: str = ""
    platforms: tuple[Platform, ...] = ()
    labels: dict[str, str] = {}
    annotations: tuple[Annotation, ...] = ()
    no_cache: frozenset[str] | None = None
    pull: bool = False
    squash: str = ""
    outputs: tuple[Output, ...] = ()
    attestations: Attestations | None = None
    cache_from: tuple[CacheSource, ...] = ()
    cache_to: tuple[CacheTarget, ...] = ()
    network: str = ""
    offline: bool = False
    rego: bool = True
    isolation: str = "default"
    allow: frozenset[str] = frozenset()
    secrets: dict[str, SecretSource] = {}
    agents: dict[str, tuple[str, ...]] = {}
    limits: Limits = Limits()
    jobs: int = 0
    budget: Budget | None = None
    keep_failed: bool = False
    break_at: str = ""
    report: str = ""
    trace: str = ""
    told_provenance: str = ""
    root: str = ""
    environ: Mapping[str, str] = {}


class BuildResult(msgspec.Struct, frozen=True, kw_only=True):
    """A finished build.

    `digest` is that of the manifest, or of the index for several platforms or attestations; `media_type` and `size`
    (bytes) are of the same. `image_id` is what Docker calls the image's ID: the digest of the configuration, or of the
    index if there is one. All are empty when only files were exported. `tags` are
    the image's names as people write them, those that outputs state among them, `platforms` what it was built for.

    `steps` are the steps in the order of the Dockerfile, with `outcome` (`cached`, `ran`, `not needed`), `reason` and
    `seconds`; `warnings` what was dubious. `build` is the name under which the build is recorded, `seconds` how long it
    took, `root` the store. `archives` tells the files apart that images were written to. `provenance`
    has an SLSA predicate (v0.2) for each platform, or for '' where only one image was built, if it was asked for.
    """

    image_id: str = ""
    digest: str = ""
    media_type: str = ""
    size: int = 0
    tags: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    steps: tuple[BuiltStep, ...] = ()
    warnings: tuple[Warned, ...] = ()
    build: str = ""
    seconds: float = 0.0
    root: str = ""
    archives: tuple[WrittenFile, ...] = ()
    provenance: Mapping[str, dict[str, Any]] = {}

    @property
    def image(self) -> Image:
        """The image in the store. Raises StoreError if it went elsewhere only, or is gone by now."""
        from builder.api.image import Store

        if not self.digest:
            raise StoreError("the build made files, and no image", remedy="leave out outputs=, or add type=image to it")
        return Store(self.root).image(self.digest)


def check_cpus(cpus: float) -> float:
    """A number of processors, 0 for no limit. Raises UsageError for less than the hundredth that the kernel can give
    at least (its scheduler/sched-bwc.rst: a millisecond, of the period of 100) and for more than any machine has."""
    if cpus and not 0.01 <= cpus < 1_000_000:
        raise UsageError(f"--cpus {cpus} is no number of processors", remedy="write 0.01 or more, or 0 for no limit")
    return cpus


def check_entitlements(names: Iterable[str]) -> frozenset[str]:
    """The names of entitlements, as a set. Raises UsageError for what is not known."""
    found = frozenset(names)
    for name in sorted(found.difference(ENTITLEMENTS)):
        raise UsageError(f"unknown entitlement {name!r} in --allow", remedy=f"known: {', '.join(ENTITLEMENTS)}")
    return found
