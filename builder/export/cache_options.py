"""`--cache-from` and `--cache-to`: what they say, as data. The forms and names are buildx's."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable

import msgspec

from builder.errors import Unsupported, UsageError
from builder.filesystem.compression import GZIP, KINDS, ZSTD, Compression
from builder.oci import reference
from builder.oci.reference import Reference

REGISTRY, LOCAL, INLINE = "registry", "local", "inline"
LATEST = "latest"
ELSEWHERE = ("gha", "s3", "azblob")
"""Caches that buildx has and that are not done here: they are warned of, and builds go on without. buildx leaves out
those that its daemon does not know (`build/opt.go`), so that one workflow serves several of these."""


class CacheSource(msgspec.Struct, frozen=True, kw_only=True):
    """One cache to look steps up in: a reference, or a directory with an OCI layout, in which a tag or digest
    counts. One that is not done is `elsewhere`, its type."""

    reference: Reference | None = None
    path: str = ""
    tag: str = LATEST
    digest: str = ""
    elsewhere: str = ""

    def __str__(self) -> str:
        return self.reference.familiar if self.reference is not None else self.path


class CacheTarget(msgspec.Struct, frozen=True, kw_only=True):
    """One cache to write. With neither reference nor path it goes into the image (`inline`). One that is not done is
    `elsewhere`, its type.

    `everything` takes the layers of all stages (mode=max), not of the result alone; `compression` is for the layers
    that are here, with `force` for all; `reset` removes from a directory what no cache in it has any more; `mounts` are
    ids of cache mounts that travel too; without `recipes` keys travel alone, which do not tell what a step saw.
    """

    reference: Reference | None = None
    path: str = ""
    tag: str = LATEST
    everything: bool = False
    compression: Compression | None = None
    force: bool = False
    docker_types: bool = False
    ignore_error: bool = False
    reset: bool = False
    mounts: tuple[str, ...] = ()
    recipes: bool = True
    elsewhere: str = ""

    @property
    def inline(self) -> bool:
        return self.reference is None and not self.path and not self.elsewhere

    def __str__(self) -> str:
        return self.reference.familiar if self.reference is not None else self.path or INLINE


def parse_cache_sources(texts: Iterable[str]) -> tuple[CacheSource, ...]:
    """Read what `--cache-from` was given. Raises UsageError, Unsupported, InvalidReference."""
    return tuple(_source(fields, text) for text in texts for fields in _entries(text, "--cache-from"))


def parse_cache_targets(texts: Iterable[str]) -> tuple[CacheTarget, ...]:
    """Read what `--cache-to` was given. Raises UsageError, Unsupported, InvalidReference."""
    return tuple(_target(fields, text) for text in texts for fields in _entries(text, "--cache-to"))


def _entries(text: str, option: str) -> list[dict[str, str]]:
    """The caches in one value: `type=…,key=value…`, or references with commas between them, as in buildx. An empty
    value (of a variable that is not set) names none."""
    try:
        fields = [field for field in next(csv.reader([text]), []) if field]
    except csv.Error as error:
        raise UsageError(f"invalid {option} {text!r}: {error}", remedy="write key=value pairs with commas") from error
    if not any("=" in field for field in fields):
        return [{"type": REGISTRY, "ref": field} for field in fields]
    values: dict[str, str] = {"type": ""}
    for field in fields:
        key, equals, value = field.partition("=")
        if not equals:
            raise UsageError(
                f"invalid {option} field {field!r}", remedy="write key=value pairs, for example type=registry,ref=NAME"
            )
        values[key.strip().lower()] = value
    return [values]


def _kind(values: dict[str, str], option: str, known: tuple[str, ...]) -> str:
    kind = values.pop("type")
    if kind == INLINE and INLINE not in known:
        raise UsageError(
            "--cache-from type=inline: an inline cache is in an image", remedy="use type=registry,ref=IMAGE"
        )
    if kind not in known:
        done = ", ".join(name for name in known if name not in ELSEWHERE)
        raise UsageError(f"unknown cache type {kind!r} in {option}", remedy=f"known types: {done}")
    return kind


def _source(values: dict[str, str], text: str) -> CacheSource:
    kind = _kind(values, "--cache-from", (REGISTRY, LOCAL, *ELSEWHERE))
    if kind in ELSEWHERE:
        return CacheSource(elsewhere=kind)
    if kind == REGISTRY:
        source = CacheSource(reference=_reference(values, "--cache-from", text))
    else:
        path = _required(values, "src", "--cache-from", text)
        source = CacheSource(path=os.path.abspath(path), tag=values.pop("tag", LATEST), digest=values.pop("digest", ""))
    _end(values, "--cache-from", text)
    return source


def _target(values: dict[str, str], text: str) -> CacheTarget:
    kind = _kind(values, "--cache-to", (REGISTRY, LOCAL, INLINE, *ELSEWHERE))
    if kind in ELSEWHERE:
        return CacheTarget(elsewhere=kind)
    everything = _everything(values, kind)
    ignore_error = _flag(values, "ignore-error", False)
    if kind == INLINE:
        _end(values, "--cache-to", text)
        return CacheTarget(ignore_error=ignore_error)
    if not _flag(values, "image-manifest", True):
        raise Unsupported(
            "image-manifest=false: caches are written as image manifests",
            remedy="leave it out: many registries refuse the other form",
        )
    oci_types = _flag(values, "oci-mediatypes", True)
    compression = _compression(values)
    if compression is not None and compression.kind == ZSTD and not oci_types:
        raise UsageError("Docker's media types have no zstd layers", remedy="leave out oci-mediatypes=false")
    mounts = tuple(dict.fromkeys(name for name in values.pop("mounts", "").split(";") if name))
    if mounts and not oci_types:
        raise UsageError("cache mounts travel as zstd, which Docker's media types do not have")
    target = CacheTarget(
        reference=_reference(values, "--cache-to", text) if kind == REGISTRY else None,
        path=os.path.abspath(_required(values, "dest", "--cache-to", text)) if kind == LOCAL else "",
        tag=values.pop("tag", LATEST) if kind == LOCAL else LATEST,
        everything=everything,
        compression=compression,
        force=_flag(values, "force-compression", False),
        docker_types=not oci_types,
        ignore_error=ignore_error,
        reset=kind == LOCAL and _flag(values, "reset", False),
        mounts=mounts,
        recipes=_flag(values, "recipes", True),
    )
    _end(values, "--cache-to", text)
    return target


def _everything(values: dict[str, str], kind: str) -> bool:
    mode = values.pop("mode", "min")
    if mode not in ("min", "max"):
        raise UsageError(f"mode={mode!r} is neither min nor max")
    if mode == "max" and kind == INLINE:
        raise UsageError("an inline cache has the layers of the image alone", remedy="use type=registry for mode=max")
    return mode == "max"


def _compression(values: dict[str, str]) -> Compression | None:
    kind, level = values.pop("compression", ""), values.pop("compression-level", "")
    if kind and kind not in KINDS:
        raise UsageError(f"unsupported compression {kind!r}", remedy=f"supported: {', '.join(KINDS)}")
    if level and not (level.removeprefix("-").isdecimal() and len(level) < 5):
        raise UsageError(f"compression-level={level!r} is not a number")
    return Compression(kind or GZIP, int(level) if level else None) if kind or level else None


def _reference(values: dict[str, str], option: str, text: str) -> Reference:
    found = reference.parse(_required(values, "ref", option, text))
    if option == "--cache-to" and found.digest is not None:
        raise UsageError(f"--cache-to {found.familiar}: a digest cannot be written to", remedy="name a tag")
    return found


def _required(values: dict[str, str], key: str, option: str, text: str) -> str:
    value = values.pop(key, "")
    if not value:
        raise UsageError(f"{option} {text!r} needs {key}=", remedy=_EXAMPLES[key])
    return value


_EXAMPLES = {
    "ref": "write type=registry,ref=NAME[:TAG]",
    "src": "write type=local,src=DIRECTORY",
    "dest": "write type=local,dest=DIRECTORY",
}


def _flag(values: dict[str, str], key: str, default: bool) -> bool:
    text = values.pop(key, None)
    if text is None:
        return default
    if text.lower() in ("true", "1", "t"):
        return True
    if text.lower() in ("false", "0", "f"):
        return False
    raise UsageError(f"{key}={text!r} is neither true nor false")


def _end(values: dict[str, str], option: str, text: str) -> None:
    if values:
        raise UsageError(f"unknown option {next(iter(values))!r} in {option} {text!r}")
