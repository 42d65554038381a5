"""What can be asked of a build, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from builder.export.output import Output
from builder.oci.spec import Platform
from builder.solver.annotations import Annotation
from builder.solver.limits import Limits


class SecretSource(msgspec.Struct, frozen=True):
    """Where a secret's bytes are: a file of the host, or a variable of the environment."""

    path: str = ""
    variable: str = ""


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A build. `context` is a directory, a URL, a git reference or `-`; `dockerfile` a path, `-`, or '' (the default).

    `squash` is '' (keep the layers), `all` (one layer) or `new` (one layer above the base's). `no_cache` is None for
    caching, an empty set for none at all, or the names of stages that run anew. `environ` is what
    variables (SOURCE_DATE_EPOCH, credentials) are looked up in.
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
    network: str = "default"
    allow: frozenset[str] = frozenset()
    secrets: dict[str, SecretSource] = {}
    agents: dict[str, str] = {}
    limits: Limits = Limits()
    jobs: int = 0
    root: str = ""
    environ: Mapping[str, str] = {}


class BuildResult(msgspec.Struct, frozen=True, kw_only=True):
    """A finished build. `image_id` is the digest of the (first) configuration, `digest` that of the manifest or index;
    both are '' when only files were exported. `seconds` is how long it took."""

    image_id: str = ""
    digest: str = ""
    media_type: str = ""
    size: int = 0
    names: tuple[str, ...] = ()
    seconds: float = 0.0
