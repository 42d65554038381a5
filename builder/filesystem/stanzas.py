"""The package databases of dpkg (deb-status(5)) and apk (apk-v2(5)): where an image has them, and their paragraphs."""

from __future__ import annotations

from collections.abc import Iterator

DPKG = "var/lib/dpkg/status"
DPKG_PARTS = "var/lib/dpkg/status.d"
"""A directory with a file a package, in distroless images; those named `.md5sums` are none."""
APK = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
"""The second in newer releases of Alpine."""
LARGEST = 256 << 20
"""Bytes that a database may have; they are read whole."""


def dpkg_packages(text: str) -> Iterator[dict[str, str]]:
    """The fields of each installed package: `Package`, `Version`, `Architecture`, …"""
    for fields in _stanzas(text):
        if fields.get("Package") and fields.get("Status", "installed").split()[-1:] == ["installed"]:
            yield fields


def apk_packages(text: str) -> Iterator[dict[str, str]]:
    """The fields of each package: `P` its name, `V` its version, `A` the architecture, `L` the licence, …"""
    return (fields for fields in _stanzas(text) if fields.get("P"))


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    """Paragraphs of `Key: value` lines (`K:value` in apk's), without lines that continue a value. The first of equal
    keys counts: below apk's own fields the files are listed, with keys of their own."""
    for stanza in text.split("\n\n"):
        fields: dict[str, str] = {}
        for line in stanza.split("\n"):
            key, colon, value = line.partition(":")
            if colon and not line.startswith((" ", "\t")):
                fields.setdefault(key, value.strip())
        if fields:
            yield fields
