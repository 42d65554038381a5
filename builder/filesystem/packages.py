"""The packages that an image says are installed: dpkg's and apk's databases, read from the layers.

dpkg: `var/lib/dpkg/status` (deb-status(5)), and a file a package in `status.d`, as distroless images have it.
apk: `lib/apk/db/installed` (apk-v2(5)), in newer Alpine releases below `usr`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import msgspec

from builder.errors import LayerError
from builder.filesystem.contents import Contents, Stored
from builder.filesystem.resolve import resolve
from builder.filesystem.tree import Kind

LARGEST = 256 << 20
"""Bytes that a database may have; they are read whole."""

_DPKG = "var/lib/dpkg/status"
_DPKG_PARTS = "var/lib/dpkg/status.d"
_APK = ("lib/apk/db/installed", "usr/lib/apk/db/installed")

Package = tuple[str, str]
"""The manager (`dpkg` or `apk`), and the name, with the architecture (`libc6:i386`) where that is not the main one."""


class PackageChange(msgspec.Struct, frozen=True):
    """A package that came (`before` is None), went (`after` is None), or has another version."""

    manager: str
    name: str
    before: str | None
    after: str | None


def database_files(contents: Contents) -> Iterator[tuple[str, Stored]]:
    """Where the package databases of some contents are: the manager, and the file. Raises LayerError for one that is
    too large."""
    for manager, stored in _database_files(contents):
        if stored.size > LARGEST:
            raise LayerError(f"is a package database with more than {LARGEST} bytes", place=f"/{stored.path}")
        yield manager, stored


def _database_files(contents: Contents) -> Iterator[tuple[str, Stored]]:
    for manager, path in (("dpkg", _DPKG), *(("apk", path) for path in _APK)):
        entry = contents.entry(resolve(contents, path))
        if entry is not None and entry.stored is not None:
            yield manager, entry.stored
    for name, entry in contents.scan(resolve(contents, _DPKG_PARTS)):
        if entry.info.kind is Kind.FILE and entry.stored is not None and not name.endswith(".md5sums"):
            yield "dpkg", entry.stored


def installed(databases: Iterable[tuple[str, bytes]]) -> dict[Package, str]:
    """The versions of all packages in database files, each given with its manager."""
    found: dict[Package, str] = {}
    for manager, data in databases:
        read: Callable[[str], Iterator[tuple[str, str]]] = _dpkg if manager == "dpkg" else _apk
        for name, version in read(data.decode("utf-8", "surrogateescape")):
            found[manager, name] = version
    return found


def compare_packages(before: dict[Package, str], after: dict[Package, str]) -> list[PackageChange]:
    """What differs, sorted by manager and name."""
    return [
        PackageChange(*package, before.get(package), after.get(package))
        for package in sorted(before.keys() | after.keys())
        if before.get(package) != after.get(package)
    ]


def _dpkg(text: str) -> Iterator[tuple[str, str]]:
    stanzas = []
    for stanza in text.split("\n\n"):
        pairs = (line.partition(":") for line in stanza.split("\n") if not line.startswith((" ", "\t")))
        fields = {key: value.strip() for key, colon, value in pairs if colon}
        if fields.get("Package") and fields.get("Status", "installed").split()[-1:] == ["installed"]:
            stanzas.append(fields)
    machines = Counter(fields.get("Architecture", "all") for fields in stanzas)
    del machines["all"]
    main = next((name for name, _ in machines.most_common(1)), "all")
    for fields in stanzas:
        machine = fields.get("Architecture", "all")
        name = fields["Package"] if machine in ("all", main) else f"{fields['Package']}:{machine}"
        yield name, fields.get("Version", "")


def _apk(text: str) -> Iterator[tuple[str, str]]:
    for stanza in text.split("\n\n"):
        fields = {line[:1]: line[2:] for line in reversed(stanza.split("\n")) if line[1:2] == ":"}
        if fields.get("P"):
            yield fields["P"], fields.get("V", "")
