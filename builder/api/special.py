"""Build arguments with a meaning of their own, as BuildKit has them: no ARG needs to declare them.

What BuildKit can do and this builder cannot is a warning, not an error: many CI systems set these for every build.
Source: BuildKit's frontend/dockerui/config.go and the Dockerfile reference, "BuildKit built-in build args".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from builder.api.options import BuildOptions
from builder.errors import UsageError
from builder.plan.findings import ARGUMENT

NAMES = frozenset((
    "BUILDKIT_BUILD_NAME", "BUILDKIT_CACHE_MOUNT_NS", "BUILDKIT_CONTEXT_KEEP_GIT_DIR", ARGUMENT,
    "BUILDKIT_INLINE_CACHE", "BUILDKIT_MULTI_PLATFORM", "BUILDKIT_SANDBOX_HOSTNAME", "BUILDKIT_SBOM_SCAN_CONTEXT",
    "BUILDKIT_SBOM_SCAN_STAGE", "BUILDKIT_SYNTAX", "SOURCE_DATE_EPOCH",
))  # fmt: skip
"""All of them: of none is it said that nothing uses it."""

_BUILT_IN = "dockerfile.v0"
_LATEST = 253_402_300_799  # the last second that a timestamp of RFC 3339 can name
_LONGEST_HOSTNAME = 64


class Special(msgspec.Struct, frozen=True, kw_only=True):
    """What the special arguments of a build ask for.

    `epoch` is SOURCE_DATE_EPOCH in seconds (also from the environment), `hostname` that of RUN steps ('': the default),
    `cache_namespace` keeps the caches of RUN apart, `index` wants an index even for one platform, `keep_git_dir` wants
    `.git` in a main context from a git repository, `inline_cache` wants the cache in the image as well. `warnings` say
    what cannot be done.
    """

    epoch: int | None = None
    hostname: str = ""
    cache_namespace: str = ""
    index: bool = False
    keep_git_dir: bool = False
    inline_cache: bool = False
    warnings: tuple[str, ...] = ()


def special_arguments(options: BuildOptions) -> Special:
    """Read them. Raises UsageError for a value that cannot be meant."""
    given = options.build_args
    hostname = given.get("BUILDKIT_SANDBOX_HOSTNAME", "")
    if len(hostname.encode()) > _LONGEST_HOSTNAME:
        raise UsageError(
            f"BUILDKIT_SANDBOX_HOSTNAME is longer than {_LONGEST_HOSTNAME} bytes", remedy="give a shorter name"
        )
    return Special(
        epoch=_epoch(given.get("SOURCE_DATE_EPOCH", options.environ.get("SOURCE_DATE_EPOCH", ""))),
        hostname=hostname,
        cache_namespace=given.get("BUILDKIT_CACHE_MOUNT_NS", ""),
        index=_index(options),
        keep_git_dir=bool(_boolean(given, "BUILDKIT_CONTEXT_KEEP_GIT_DIR")),
        inline_cache=bool(_boolean(given, "BUILDKIT_INLINE_CACHE")),
        warnings=tuple(_warnings(given)),
    )


def _epoch(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise UsageError(
            f"SOURCE_DATE_EPOCH={text!r} is not a number of seconds", remedy="set it to seconds since 1970, or unset it"
        )
    if int(text) > _LATEST:
        raise UsageError(f"SOURCE_DATE_EPOCH={text} is after the year 9999", remedy="set it to seconds since 1970")
    return int(text)


def _index(options: BuildOptions) -> bool:
    wanted = _boolean(options.build_args, "BUILDKIT_MULTI_PLATFORM")
    if wanted is False and len(options.platforms) > 1:
        raise UsageError(
            f"BUILDKIT_MULTI_PLATFORM={options.build_args['BUILDKIT_MULTI_PLATFORM']} forbids the index that"
            f" {len(options.platforms)} platforms need",
            remedy="leave it out, or give --platform only one",
        )
    return bool(wanted)


def _boolean(given: Mapping[str, str], name: str) -> bool | None:
    """None when not given, or given without a value."""
    text = given.get(name, "")
    if not text:
        return None
    from builder.dockerfile.values import parse_boolean

    try:
        return parse_boolean(text)
    except ValueError:
        raise UsageError(f"{name}={text} is not true or false", remedy="write 1 or 0") from None


def _warnings(given: Mapping[str, str]) -> Iterator[str]:
    syntax = given.get("BUILDKIT_SYNTAX", "")
    if syntax and syntax != _BUILT_IN:
        yield f"BUILDKIT_SYNTAX={syntax}: Dockerfiles are read by the builder itself; no frontend image is fetched"
    if given.get("BUILDKIT_BUILD_NAME"):
        yield "BUILDKIT_BUILD_NAME: builds are kept under no name here; -t names the image"
    for name in ("BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"):
        if given.get(name, "").lower() not in ("", "0", "f", "false"):
            yield f"{name}: an SBOM tells of the final image only"
