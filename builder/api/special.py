"""Build arguments with a meaning of their own, as BuildKit has them: no ARG needs to declare them.

What BuildKit can do and this builder cannot is a warning, not an error: many CI systems set these for every build.
Source: BuildKit's frontend/dockerui/config.go and the Dockerfile reference, "BuildKit built-in build args".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from builder.api.options import BuildOptions
from builder.errors import UsageError
from builder.plan.findings import ARGUMENT

if TYPE_CHECKING:
    from builder.api.inputs import Inputs
    from builder.dockerfile.instructions import Arg, Dockerfile
    from builder.plan.locate import Locator

_EPOCH = "SOURCE_DATE_EPOCH"
NAMES = frozenset((
    "BUILDKIT_BUILD_NAME", "BUILDKIT_CACHE_MOUNT_NS", "BUILDKIT_CONTEXT_KEEP_GIT_DIR", ARGUMENT,
    "BUILDKIT_INLINE_CACHE", "BUILDKIT_MULTI_PLATFORM", "BUILDKIT_SANDBOX_HOSTNAME", "BUILDKIT_SBOM_SCAN_CONTEXT",
    "BUILDKIT_SBOM_SCAN_STAGE", "BUILDKIT_SYNTAX", _EPOCH,
))  # fmt: skip
"""All of them: of none is it said that nothing uses it."""

_BUILT_IN = "dockerfile.v0"
_LATEST = 253_402_300_799  # the last second that a timestamp of RFC 3339 can name
_LONGEST_HOSTNAME = 64


class Special(msgspec.Struct, frozen=True, kw_only=True):
    """What the special arguments of a build ask for.

    `epoch` is SOURCE_DATE_EPOCH in seconds (also from the environment; `dated` knows the rest), `hostname` that of RUN
    steps ('': the default), `cache_namespace` keeps the caches of RUN apart, `index` wants an index even for one
    platform, `keep_git_dir` wants `.git` in a main context from a git repository, `inline_cache` wants the cache in the
    image as well. `warnings` say what cannot be done.
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
        epoch=_epoch(given_epoch(options), None),
        hostname=hostname,
        cache_namespace=given.get("BUILDKIT_CACHE_MOUNT_NS", ""),
        index=wants_index(options),
        keep_git_dir=bool(_boolean(given, "BUILDKIT_CONTEXT_KEEP_GIT_DIR")),
        inline_cache=bool(_boolean(given, "BUILDKIT_INLINE_CACHE")),
        warnings=tuple(_warnings(given)),
    )


class Dated(msgspec.Struct, frozen=True):
    """A build's time in seconds, or None, and the build arguments and the Dockerfile that say it in seconds as well."""

    epoch: int | None
    build_args: dict[str, str]
    dockerfile: Dockerfile


def given_epoch(options: BuildOptions) -> str:
    """SOURCE_DATE_EPOCH as the options say it: a build argument, or else a variable of the environment."""
    return options.build_args.get(_EPOCH, options.environ.get(_EPOCH, ""))


def dated(options: BuildOptions, inputs: Inputs, dockerfile: Dockerfile, locate: Locator) -> Dated:
    """The time of a build: what the options say, or else an ARG before the first FROM. `context` is the time of the
    main context; where that has none, nothing was said. Stages see the seconds.

    As in BuildKit (`dockerfile2llb/convert.go` and `epoch.go`; buildx makes a build argument of the variable of the
    environment), which also takes the name of another context or of a
    stage. Raises UsageError for one of those."""
    text, build_args = given_epoch(options), options.build_args
    if _EPOCH in build_args or text:
        epoch = _epoch(text, inputs.time)
        build_args = {name: value for name, value in build_args.items() if name != _EPOCH}
        build_args |= {} if epoch is None else {_EPOCH: str(epoch)}
        return Dated(epoch, build_args, dockerfile)
    argument = _global_argument(dockerfile)
    if argument is None:
        return Dated(None, build_args, dockerfile)
    from builder.oci.platform import host_platform
    from builder.plan.scope import global_scope, platform_arguments

    host = host_platform()
    stage = options.target or dockerfile.stages[-1].from_.name
    predefined = platform_arguments(host, options.platforms[0] if options.platforms else host, stage)
    text = global_scope(dockerfile.global_args, predefined, build_args, set()).get(_EPOCH, "")
    with locate(argument):
        epoch = _epoch(text, inputs.time)
    return Dated(epoch, build_args, dockerfile if text.isdigit() else _with_epoch(dockerfile, epoch))


def _global_argument(dockerfile: Dockerfile) -> Arg | None:
    """The last ARG before the first FROM that declares it."""
    for argument in reversed(dockerfile.global_args):
        if any(pair.key.source == _EPOCH for pair in argument.pairs):
            return argument
    return None


def _with_epoch(dockerfile: Dockerfile, epoch: int | None) -> Dockerfile:
    """The Dockerfile with what its global arguments say of the time in seconds."""
    from builder.dockerfile.words import literal

    def settled(argument: Arg) -> Arg:
        pairs = (
            msgspec.structs.replace(pair, value=literal("" if epoch is None else str(epoch)), given=epoch is not None)
            if pair.key.source == _EPOCH
            else pair
            for pair in argument.pairs
        )
        return msgspec.structs.replace(argument, pairs=tuple(pairs))

    return msgspec.structs.replace(dockerfile, global_args=tuple(map(settled, dockerfile.global_args)))


def _epoch(text: str, of_context: int | None) -> int | None:
    """What it says, where `context` means `of_context`. Raises UsageError."""
    return of_context if text == "context" else parse_epoch(text)


def parse_epoch(text: str) -> int | None:
    """SOURCE_DATE_EPOCH in seconds, None for an empty one. Raises UsageError."""
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise UsageError(
            f"SOURCE_DATE_EPOCH={text[:40]!r} is not a number of seconds",
            remedy="set it to seconds since 1970, for a build also to context, or unset it",
        )
    digits = text.lstrip("0") or "0"
    if len(digits) > len(str(_LATEST)) or int(digits) > _LATEST:
        raise UsageError(f"SOURCE_DATE_EPOCH={text[:40]} is after the year 9999", remedy="set it to seconds since 1970")
    return int(digits)


def wants_index(options: BuildOptions) -> bool:
    """Whether an index is asked for even for one platform. Raises UsageError for several without one."""
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
