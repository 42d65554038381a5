"""The package databases of dpkg (deb-status(5)) and apk (apk-v2(5)): where an image has them, and their paragraphs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import BinaryIO

DPKG = "var/lib/dpkg/status"
DPKG_PARTS = "var/lib/dpkg/status.d"
"""A directory with a file a package, in distroless images; those named `.md5sums` are none."""
APK = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
"""The second in newer releases of Alpine."""
LARGEST = 256 << 20
"""Bytes that a database may have. They are read line by line."""
_LONGEST_LINE = 64 << 10
_DPKG_FIELDS = ("Package", "Version", "Architecture", "Status")
_APK_FIELDS = ("P", "V", "A", "L")


def dpkg_packages(file: BinaryIO, errors: str = "replace") -> Iterator[dict[str, str]]:
    """`Package`, `Version` and `Architecture` of each installed package, as far as they are stated. `errors` is what
    becomes of bytes that are no UTF-8."""
    for fields in _stanzas(file, errors, _DPKG_FIELDS):
        if fields.get("Package") and fields.get("Status", "installed").split()[-1:] == ["installed"]:
            yield fields


def apk_packages(file: BinaryIO, errors: str = "replace") -> Iterator[dict[str, str]]:
    """`P`, the name, `V`, the version, `A`, the architecture, and `L`, the licence, of each package."""
    return (fields for fields in _stanzas(file, errors, _APK_FIELDS) if fields.get("P"))


def _stanzas(file: BinaryIO, errors: str, wanted: Collection[str]) -> Iterator[dict[str, str]]:
    """Paragraphs of `Key: value` lines (`K:value` in apk's), without lines that continue a value. The first of equal
    keys counts: below apk's own fields the files are listed, with keys of their own."""
    fields: dict[str, str] = {}
    for line in _lines(file):
        if line == b"\n":
            if fields:
                yield fields
                fields = {}
            continue
        key, colon, value = line.decode("utf-8", errors).partition(":")
        if colon and key in wanted:
            fields.setdefault(key, value.strip())
    if fields:
        yield fields


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines, of which a long one is cut off."""
    begins = True
    while line := file.readline(_LONGEST_LINE):
        if begins:
            yield line
        begins = line.endswith(b"\n")
