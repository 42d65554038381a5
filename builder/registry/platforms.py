"""Which manifest of an index serves a platform.

The rule is containerd's `platforms.Only`: the platform itself first, then what the same processor also runs, best
first: lower variants (`arm/v7` → `arm/v6`, `v5`; `amd64/v3` → `v2`, `v1`; `arm64/v9` → `v8.5` …), 32 bits below 64
(`amd64` → `386`, `arm64` → `arm/v8`, `v7`, …).
"""

from __future__ import annotations

from collections.abc import Iterable

from builder.oci.platform import is_small_number
from builder.oci.spec import Descriptor, Platform, normalise_platform

DEEPEST = 4
"""Indexes within an index, one below the other, that are looked into."""


def candidates(platform: Platform) -> list[Platform]:
    """`platform` and what it can run as well, best first, all normalised."""
    platform = _normalise(platform)
    os, variant = platform.os, platform.variant
    version = int(variant[1:]) if variant[:1] == "v" and is_small_number(variant[1:]) else 0
    match platform.architecture:
        case "amd64":
            lower = [normalise_platform(os, "amd64", f"v{number}") for number in range(version - 1, 0, -1)]
            return [platform, *lower, Platform(os, "386")]
        case "arm":
            return [platform, *(Platform(os, "arm", f"v{number}") for number in range(version - 1, 4, -1))]
        case "arm64":
            return [*_arm64(os, variant or "v8"), *candidates(Platform(os, "arm", "v8"))]
        case _:
            return [platform]


def select(manifests: Iterable[Descriptor], platform: Platform) -> list[Descriptor]:
    """The descriptors that may serve `platform`, best first.

    Those that state no platform come last: whether they fit is only known from their configuration. Attestations
    (`unknown/unknown`) and artifacts are left out.
    """
    order = {candidate: rank for rank, candidate in enumerate(candidates(platform))}
    ranked: list[tuple[int, Descriptor]] = []
    for descriptor in manifests:
        if descriptor.artifact_type:
            continue
        if descriptor.platform is None:
            ranked.append((len(order), descriptor))
            continue
        rank = order.get(_normalise(descriptor.platform.normalised()))
        if rank is not None:
            ranked.append((rank, descriptor))
    ranked.sort(key=lambda pair: pair[0])  # stable: the index's order decides among equals
    return [descriptor for _, descriptor in ranked]


def matches(actual: Platform, wanted: Platform) -> bool:
    """Whether an image for `actual` serves `wanted`."""
    return _normalise(actual) in candidates(wanted)


def _normalise(platform: Platform) -> Platform:
    normal = normalise_platform(platform.os, platform.architecture, platform.variant)
    if normal.architecture == "arm64":  # arm64/v8.0 and v9.0 are v8 and v9
        return normalise_platform(normal.os, "arm64", normal.variant.removesuffix(".0"))
    return normal


def _arm64(os: str, variant: str) -> list[Platform]:
    """Armv9.N implies Armv8.(N+5), each minor version all below it (Arm's architecture manual, containerd's table)."""
    major, _, minor = variant.removeprefix("v").partition(".")
    if major not in ("8", "9") or not is_small_number(minor or "0"):
        return [Platform(os, "arm64", variant)]
    top = int(minor or "0")
    versions = [(9, top), (8, min(top + 5, 9))] if major == "9" else [(8, top)]
    return [
        normalise_platform(os, "arm64", f"v{number}.{low}" if low else f"v{number}")
        for number, high in versions
        for low in range(high, -1, -1)
    ]
