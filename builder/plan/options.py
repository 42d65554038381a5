"""What a user asks of a plan, apart from the Dockerfile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from builder.oci.spec import Platform

if TYPE_CHECKING:
    from builder.plan.source_policy import SourcePolicy


class ContextKind(msgspec.Struct, frozen=True):
    """A named context, as far as a plan cares: an image (`reference`, from an OCI layout at `layout` if that is
    given; `scratch` is the empty one), another stage (`stage`), or, with neither, a tree of files. Of a layout's image
    the policy of the build knows `digest`."""

    reference: str = ""
    layout: str = ""
    stage: str = ""
    digest: str = ""


class PlanOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`build_args` holds what --build-arg gave; `platforms` what --platform gave (none: the host's).

    `contexts` are the named contexts under their normalised names (`stages.context_key`).
    `no_cache`: None for caching, else the stages to be run anew (empty: all of them).
    `allow`: the entitlements given with --allow.
    `cache_namespace`: put in front of the names of RUN's caches.
    `all_stages`: plan also the stages that the target does not need (for build checks).
    `policy`: which sources may be taken, and instead of which others (None: all, as they are).
    """

    host: Platform
    build_args: dict[str, str] = {}
    platforms: tuple[Platform, ...] = ()
    target: str = ""
    labels: dict[str, str] = {}
    contexts: dict[str, ContextKind] = {}
    no_cache: frozenset[str] | None = None
    network: str = "default"
    allow: frozenset[str] = frozenset()
    cache_namespace: str = ""
    all_stages: bool = False
    policy: SourcePolicy | None = None
