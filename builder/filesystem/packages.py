"""The packages that an image says are installed: dpkg's and apk's databases, read from the layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO

import msgspec

from builder.errors import LayerError
from builder.filesystem import kinds
from builder.filesystem.contents import Contents, Stored
from builder.filesystem.resolve import resolve
from builder.filesystem.stanzas import APK, DPKG, DPKG_PARTS, LARGEST, apk_packages, dpkg_packages

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
    for manager, path in (("dpkg", DPKG), *(("apk", path) for path in APK)):
        entry = contents.entry(resolve(contents, path))
        if entry is not None and entry.stored is not None:
            yield manager, entry.stored
    for name, entry in contents.scan(resolve(contents, DPKG_PARTS)):
        if entry.info.kind == kinds.FILE and entry.stored is not None and not name.endswith(".md5sums"):
            yield "dpkg", entry.stored


def installed(databases: Iterable[tuple[str, bytes]]) -> dict[Package, str]:
    """The versions of all packages in database files, each given with its manager."""
    found: dict[Package, str] = {}
    for manager, data in databases:
        read: Callable[[bytes], Iterator[tuple[str, str]]] = _dpkg if manager == "dpkg" else _apk
        for name, version in read(data):
            found[manager, name] = version
    return found


def compare_packages(before: dict[Package, str], after: dict[Package, str]) -> list[PackageChange]:
    """What differs, sorted by manager and name."""
    return [
        PackageChange(*package, before.get(package), after.get(package))
        for package in sorted(before.keys() | after.keys())
        if before.get(package) != after.get(package)
    ]


def _dpkg(data: bytes) -> Iterator[tuple[str, str]]:
    machines = Counter(fields.get("Architecture", "all") for fields in dpkg_packages(BytesIO(data), "surrogateescape"))
    del machines["all"]
    main = next((name for name, _ in machines.most_common(1)), "all")
    for fields in dpkg_packages(BytesIO(data), "surrogateescape"):
        machine = fields.get("Architecture", "all")
        name = fields["Package"] if machine in ("all", main) else f"{fields['Package']}:{machine}"
        yield name, fields.get("Version", "")


def _apk(data: bytes) -> Iterator[tuple[str, str]]:
    return ((fields["P"], fields.get("V", "")) for fields in apk_packages(BytesIO(data), "surrogateescape"))
