"""A software bill of materials as SPDX 2.3 in JSON (https://spdx.github.io/spdx-spec/v2.3/).

It names the image and the packages that it contains, not the files of each package.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from builder import __version__
from builder.export.installed import Inventory, Package
from builder.export.purl import package_purl

PREDICATE_TYPE = "https://spdx.dev/Document"
FILE = "sbom.spdx.json"

_ROOT = "SPDXRef-Image"
_NAMESPACE = "https://spdx.org/spdxdocs/"
_UNKNOWN = "NOASSERTION"


def spdx_document(inventory: Inventory, name: str, created: str) -> dict[str, Any]:
    """The document. `name` is what people call the image, `created` a time of RFC 3339 in seconds.

    The namespace, which must be unique, is made from the content: the same document has the same one.
    """
    packages = [_package(package, inventory.distribution) for package in inventory.packages]
    relationships = [_relationship("SPDXRef-DOCUMENT", "DESCRIBES", _ROOT)]
    relationships += [_relationship(_ROOT, "CONTAINS", package["SPDXID"]) for package in packages]
    creation: dict[str, Any] = {"created": created, "creators": [f"Tool: builder-{__version__}"]}
    if inventory.notes:
        creation["comment"] = "\n".join(inventory.notes)
    image = {**_unknowns(), "SPDXID": _ROOT, "name": name, "primaryPackagePurpose": "CONTAINER"}
    document = {
        "SPDXID": "SPDXRef-DOCUMENT",
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "name": name,
        "creationInfo": creation,
        "packages": [image, *packages],
        "relationships": relationships,
    }
    unique = hashlib.sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()
    return {**document, "documentNamespace": f"{_NAMESPACE}{_identifier(name)}-{unique[:32]}"}


def _package(package: Package, distribution: str) -> dict[str, Any]:
    purl = package_purl(package, distribution)
    unique = hashlib.sha256(f"{purl}\0{package.source}".encode()).hexdigest()[:16]
    described = {
        **_unknowns(),
        "SPDXID": f"SPDXRef-Package-{package.kind}-{_identifier(package.name)}-{unique}",
        "name": f"{package.namespace}/{package.name}" if package.kind == "npm" and package.namespace else package.name,
        "sourceInfo": f"found in {package.source}",
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl},
        ],
    }
    if package.version:
        described["versionInfo"] = package.version
    if package.licence:  # in words of the package's own, which need not be an SPDX expression
        described["licenseComments"] = f"the package states: {package.licence}"
    return described


def _unknowns() -> dict[str, Any]:
    """What SPDX wants to be stated, and package databases do not tell in its terms."""
    return {
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "licenseConcluded": _UNKNOWN,
        "licenseDeclared": _UNKNOWN,
        "copyrightText": _UNKNOWN,
    }


def _relationship(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


def _identifier(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-") or "image"
