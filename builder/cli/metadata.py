"""What `build --metadata-file` holds: the result of a build, with buildx's keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from builder.oci.platform import parse_platform
from builder.oci.spec import MANIFESTS

if TYPE_CHECKING:
    from builder.api.options import BuildResult

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


def wanted_provenance(environ: Mapping[str, str]) -> str:
    """How much the file tells of how the images were made: `max`, `min`, or '' for nothing. By default and for any
    other text of the variable it is `min`, as in buildx."""
    text = environ.get("BUILDX_METADATA_PROVENANCE", "")
    return "" if text == "disabled" or text in _FALSE else "max" if text == "max" else "min"


def metadata(result: BuildResult, environ: Mapping[str, str]) -> str:
    """The file's text; with the variable BUILDX_METADATA_WARNINGS warnings are in it, as BuildKit tells of them."""
    document: dict[str, Any] = {}
    if result.build:
        document["buildx.build.ref"] = result.build
    if result.warnings and environ.get("BUILDX_METADATA_WARNINGS") in _TRUE:
        from builder.cli.rawjson import warnings

        document["buildx.build.warnings"] = warnings(result.warnings)
    for platform, predicate in result.provenance.items():
        document[f"buildx.build.provenance{'/' if platform else ''}{platform}"] = predicate
    if result.image_id:
        document |= _image(result)
    if result.tags:
        document["image.name"] = ",".join(result.tags)
    return json.dumps(document, indent=2) + "\n"


def _image(result: BuildResult) -> dict[str, Any]:
    descriptor: dict[str, Any] = {"mediaType": result.media_type, "digest": result.digest, "size": result.size}
    if result.media_type in MANIFESTS:  # as BuildKit writes it for one image; an index has one for each
        found = parse_platform(result.platforms[0])
        descriptor["platform"] = {"architecture": found.architecture, "os": found.os}
        descriptor["platform"] |= {"variant": found.variant} if found.variant else {}
    named = {"containerimage.config.digest": result.image_id} if result.image_id != result.digest else {}
    return {**named, "containerimage.descriptor": descriptor, "containerimage.digest": result.digest}
