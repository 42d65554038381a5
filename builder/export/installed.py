"""The software that an image's files say is installed, for an SBOM.

Read are the databases of dpkg (deb-status(5)), apk (apk-v2(5)) and rpm (SQLite; the header's form is that of RPM's
`lib/header.c`), the metadata of Python distributions, and `package.json` of Node's modules. Files of an image are a
stranger's: what is too large or malformed is left out, with a note.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from itertools import chain, repeat
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from builder.errors import LayerError
from builder.filesystem import kinds
from builder.filesystem.resolve import resolve
from builder.filesystem.stanzas import APK, DPKG, DPKG_PARTS, LARGEST, apk_packages, dpkg_packages
from builder.filesystem.tree import FileTree
from builder.oci.spec import NOT_JSON

if TYPE_CHECKING:
    import sqlite3

_LARGEST_DOCUMENT = 4 << 20  # bytes
_MOST_PACKAGES = 50_000
_RPM_STEPS = 10_000_000  # instructions of SQLite's machine, of which a package takes some ten
_RPM = ("var/lib/rpm", "usr/lib/sysimage/rpm")
_RPM_OLD = ("Packages", "Packages.db")  # Berkeley DB, and ndb


class Package(msgspec.Struct, frozen=True, order=True):
    """One package. `kind` is purl's type (`deb`, `apk`, `rpm`, `pypi`, `npm`), `source` the file that says so, from the
    root, `licence` what the package states in words of its own, `namespace` purl's."""

    kind: str
    name: str
    version: str
    architecture: str = ""
    source: str = ""
    licence: str = ""
    namespace: str = ""
    epoch: str = ""


class Inventory(msgspec.Struct, frozen=True):
    """What was found, sorted; `distribution` is like `debian-12` ('' if nothing says it); `notes` say what could not be
    read."""

    packages: tuple[Package, ...]
    distribution: str = ""
    notes: tuple[str, ...] = ()


def take_inventory(tree: FileTree) -> Inventory:
    """Read everything that is known to hold packages, of an image's whole file system."""
    scan = _Scan(tree)
    found: set[Package] = set()
    for package in chain(scan.dpkg(), scan.apk(), scan.rpm(), scan.languages()):
        if len(found) == _MOST_PACKAGES and package not in found:
            scan.notes.append(f"more than {_MOST_PACKAGES} packages, of which no more are listed")
            break
        found.add(package)
    return Inventory(tuple(sorted(found)), scan.distribution, tuple(scan.notes))


class _Scan:
    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self.notes: list[str] = []
        release = self._read("etc/os-release") or self._read("usr/lib/os-release") or b""
        fields = dict(_assignments(release.decode("utf-8", "replace")))
        self._vendor = fields.get("ID", "")
        self.distribution = "-".join(part for part in (self._vendor, fields.get("VERSION_ID", "")) if part)

    # --- the distribution's packages

    def dpkg(self) -> Iterator[Package]:
        paths = [DPKG]
        parts = self._at(DPKG_PARTS)
        paths += [f"{parts}/{name}" for name in self._names(parts) if not name.endswith(".md5sums")]
        for path in paths:
            with self._open(path, LARGEST) as file:
                for fields in dpkg_packages(file):
                    version, machine = fields.get("Version", ""), fields.get("Architecture", "")
                    yield Package(
                        "deb", fields["Package"], version, machine, f"/{path}", namespace=self._vendor or "debian"
                    )

    def apk(self) -> Iterator[Package]:
        for path in APK:
            with self._open(path, LARGEST) as file:
                for fields in apk_packages(file):
                    name, version, machine, licence = (fields.get(key, "") for key in "PVAL")
                    yield Package("apk", name, version, machine, f"/{path}", licence, self._vendor or "alpine")

    def rpm(self) -> Iterator[Package]:
        for directory in dict.fromkeys(self._at(path) for path in _RPM):
            names = self._names(directory)
            path = f"{directory}/rpmdb.sqlite"
            if "rpmdb.sqlite" in names:
                for header in self._rpm_headers(path):
                    package = _rpm_package(header, self._vendor, f"/{path}")
                    if package is not None:
                        yield package
            else:
                for name in sorted(names.intersection(_RPM_OLD)):
                    self.notes.append(f"/{directory}/{name}: RPM databases of this form are not read, only SQLite's")

    def _rpm_headers(self, path: str) -> Iterator[bytes]:
        import sqlite3

        try:
            descriptor = self._tree.open(path)
        except OSError:
            return
        try:  # nothing else changes the file, and no journal beside it is looked for
            database = sqlite3.connect(f"file:/proc/self/fd/{descriptor}?mode=ro&immutable=1", uri=True)
            try:
                yield from _rows(database)
            finally:
                database.close()
        except sqlite3.Error as error:
            self.notes.append(f"/{path}: cannot be read: {error}")
        finally:
            os.close(descriptor)

    # --- those of languages

    def languages(self) -> Iterator[Package]:
        for path, names in self._walk():
            directory = path.rpartition("/")[2]
            if directory in ("site-packages", "dist-packages"):
                yield from self._python(path, names)
            elif directory == "node_modules" or (
                directory.startswith("@") and path.rpartition("/")[0].endswith("node_modules")
            ):
                yield from self._node(path, names)

    def _python(self, path: str, names: Iterable[str]) -> Iterator[Package]:
        for name in names:
            for suffix, file in ((".dist-info", "/METADATA"), (".egg-info", "/PKG-INFO"), (".egg-info", "")):
                data = self._read(f"{path}/{name}{file}") if name.endswith(suffix) else None
                if data is None:
                    continue
                from email.parser import HeaderParser

                fields = HeaderParser().parsestr(data.decode("utf-8", "replace"))
                if fields["Name"] and fields["Version"]:
                    licence = str(fields["License-Expression"] or fields["License"] or "")
                    yield Package("pypi", str(fields["Name"]), str(fields["Version"]), source=f"/{path}/{name}{file}",
                                  licence=licence.partition("\n")[0])  # fmt: skip
                    break

    def _node(self, path: str, names: Iterable[str]) -> Iterator[Package]:
        for name in names:
            file = f"{path}/{name}/package.json"
            data = self._read(file) if not name.startswith(("@", ".")) else None
            if data is None:
                continue
            try:
                module = msgspec.json.decode(data, type=_NodeModule)
            except NOT_JSON:
                continue  # a test's fixture more often than a module
            namespace, _, short = module.name.rpartition("/")
            if short and module.version:
                licence = module.license if isinstance(module.license, str) else ""
                yield Package("npm", short, module.version, "", f"/{file}", licence, namespace)

    # --- the tree

    def _walk(self) -> Iterator[tuple[str, list[str]]]:
        """Every directory with the names in it."""
        waiting = [""]
        while waiting:
            path = waiting.pop()
            entries = self._tree.scan(path)
            yield path, [name for name, _ in entries]
            prefix = f"{path}/" if path else ""
            waiting += [prefix + name for name, info in reversed(entries) if info.kind == kinds.DIRECTORY]

    def _at(self, path: str) -> str:
        try:
            return resolve(self._tree, path)
        except LayerError:
            return path

    def _names(self, path: str) -> set[str]:
        info = self._tree.lstat(path)
        if info is None or info.kind != kinds.DIRECTORY:
            return set()
        return {name for name, entry in self._tree.scan(path) if entry.kind == kinds.FILE}

    def _read(self, path: str) -> bytes | None:
        """A file's content; None for what is no file."""
        with self._open(path, _LARGEST_DOCUMENT) as file:
            return None if isinstance(file, BytesIO) else file.read(_LARGEST_DOCUMENT)

    def _open(self, path: str, largest: int) -> BinaryIO:
        """A file, reached over links inside the image; an empty BytesIO for what is no file."""
        path = self._at(path)
        info = self._tree.lstat(path)
        if info is None or info.kind != kinds.FILE:
            return BytesIO()
        if info.size > largest:
            self.notes.append(f"/{path}: larger than {largest >> 20} MiB, not read")
            return BytesIO()
        return os.fdopen(self._tree.open(path), "rb")


class _NodeModule(msgspec.Struct, frozen=True):
    name: str = ""
    version: str = ""
    license: object = ""


def _rows(database: sqlite3.Connection) -> Iterator[bytes]:
    """The headers in a database that a stranger wrote: its `Packages` may be a view of what has no end, or a column be
    computed. Raises sqlite3.Error."""
    import sqlite3

    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2 * _LARGEST_DOCUMENT)
    # No function in Python: SQLite would swallow an interrupt that comes in it.
    database.set_progress_handler(repeat(0, _RPM_STEPS // 10_000).__next__, 10_000)
    database.execute("PRAGMA trusted_schema = OFF")
    forms = [row[2] for row in database.execute("PRAGMA main.table_list('Packages')")]
    plain = [row[6] == 0 for row in database.execute("PRAGMA main.table_xinfo('Packages')") if row[1] == "blob"]
    if forms != ["table"] or plain != [True]:
        raise sqlite3.DatabaseError("it has no plain table of packages")
    for (blob,) in database.execute("SELECT blob FROM main.Packages WHERE length(blob) < ?", (_LARGEST_DOCUMENT,)):
        if isinstance(blob, bytes):
            yield blob


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    """The lines of os-release(5)."""
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            yield key, value.strip("\"'")


# --- RPM headers: two counts, the index of tags (tag, type, offset, count), the data; all numbers big-endian

_NAME, _VERSION, _RELEASE, _EPOCH, _LICENSE, _ARCH = 1000, 1001, 1002, 1003, 1014, 1022
_INT32, _STRING, _STRING_ARRAY, _I18N = 4, 6, 8, 9


def _rpm_package(header: bytes, vendor: str, source: str) -> Package | None:
    """None for what is malformed, and for keys, which are kept among the packages."""
    tags = _rpm_tags(header)
    name, version, release = (tags.get(tag, "") for tag in (_NAME, _VERSION, _RELEASE))
    if not name or not version or name == "gpg-pubkey":
        return None
    return Package(
        "rpm",
        name,
        f"{version}-{release}" if release else version,
        tags.get(_ARCH, ""),
        source,
        tags.get(_LICENSE, ""),
        vendor,
        tags.get(_EPOCH, ""),
    )


def _rpm_tags(header: bytes) -> dict[int, str]:
    if len(header) < 8:
        return {}
    count, size = struct.unpack_from(">II", header)
    data = header[8 + 16 * count :]
    if len(header) < 8 + 16 * count + size:
        return {}
    readers: dict[int, Callable[[int], str]] = {
        _INT32: lambda at: str(int.from_bytes(data[at : at + 4], "big")),
        **dict.fromkeys((_STRING, _STRING_ARRAY, _I18N), lambda at: _c_string(data, at)),
    }
    tags: dict[int, str] = {}
    for tag, kind, offset, _ in struct.iter_unpack(">IIII", header[8 : 8 + 16 * count]):
        if tag in (_NAME, _VERSION, _RELEASE, _EPOCH, _LICENSE, _ARCH) and kind in readers and offset < size:
            tags[tag] = readers[kind](offset)
    return tags


def _c_string(data: bytes, start: int) -> str:
    end = data.find(b"\0", start)
    return data[start : end if end >= 0 else len(data)].decode("utf-8", "replace")
