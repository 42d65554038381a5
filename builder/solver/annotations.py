"""Annotations: where in an image they go, and for which platform (buildx's `--annotation` and `annotation….KEY=`)."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from builder.errors import UsageError
from builder.oci.platform import parse_platform
from builder.oci.spec import Platform

PLACES = ("manifest", "index", "manifest-descriptor", "index-descriptor")
_PREFIX = r"((?:manifest|index)(?:-descriptor)?)(?:\[([^\]]*)\])?"


class Annotation(msgspec.Struct, frozen=True):
    """One annotation. `platform` None means every platform."""

    place: str
    key: str
    value: str
    platform: Platform | None = None


def parse_annotation(text: str) -> list[Annotation]:
    """`[TYPE[,TYPE…]:]KEY=VALUE`, with TYPE one of `PLACES`, perhaps `manifest[linux/amd64]`. Raises UsageError."""
    head, equals, value = text.partition("=")
    places, colon, key = head.partition(":")
    if not colon:
        places, key = "manifest", head
    if not (equals and places and key):
        raise UsageError(f"invalid annotation {text!r}", remedy="write --annotation [manifest:|index:]KEY=VALUE")
    found = []
    for place in places.split(","):
        match = re.fullmatch(_PREFIX, place.strip())
        if match is None:
            raise UsageError(f"unknown annotation type {place!r}", remedy=f"the types are {', '.join(PLACES)}")
        found.append(Annotation(match[1], key, value, parse_platform(match[2]) if match[2] else None))
    return found


def parse_output_annotation(name: str, value: str) -> Annotation | None:
    """An output's `annotation[-TYPE][[PLATFORM]].KEY`; None if `name` is no annotation."""
    match = re.fullmatch(
        r"annotation(?:-(manifest|index|manifest-descriptor|index-descriptor))?(?:\[([^\]]*)\])?\.(.+)", name
    )
    if match is None:
        return None
    return Annotation(match[1] or "manifest", match[3], value, parse_platform(match[2]) if match[2] else None)


def chosen(annotations: Iterable[Annotation], place: str, platform: Platform | None = None) -> dict[str, str] | None:
    """The annotations for one place, and for `platform` where it has one; None if there are none."""
    found = {
        annotation.key: annotation.value
        for annotation in annotations
        if annotation.place == place and (annotation.platform is None or annotation.platform == platform)
    }
    return found or None
