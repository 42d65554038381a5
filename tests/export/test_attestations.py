"""Options of attestations, package URLs, and what is found of packages in an image's files."""

from __future__ import annotations

import io
import json
import sqlite3
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.context.local import LocalTree
from builder.errors import Unsupported, UsageError
from builder.export.attestations import Attestations, Provenance, check_outputs, parse_attestations
from builder.export.installed import Inventory, Package, _rpm_tags, take_inventory
from builder.export.output import parse_output
from builder.export.purl import image_purl, package_purl
from builder.export.sbom import spdx_document
from builder.filesystem.stanzas import dpkg_packages
from builder.oci.platform import parse_platform
from builder.oci.reference import parse

# --- options

OPTIONS = {
    ("", "", ()): Attestations(),
    ("true", "", ()): Attestations(provenance=Provenance()),
    ("1", "1", ()): Attestations(provenance=Provenance(), sbom=True),
    ("false", "0", ()): Attestations(),
    ("mode=min", "", ()): Attestations(provenance=Provenance(mode="min")),
    ("mode=full,version=v0.2,builder-id=x=y,filename=p.json", "", ()): Attestations(
        provenance=Provenance(version="v0.2", builder_id="x=y", filename="p.json")
    ),
    ("reproducible=true,inline-only=true", "", ()): Attestations(
        provenance=Provenance(reproducible=True, inline_only=True)
    ),
    ("", "", ("type=sbom", "type=provenance,mode=min")): Attestations(provenance=Provenance(mode="min"), sbom=True),
    ("", "", ("type=provenance,mode=min", "type=provenance")): Attestations(provenance=Provenance()),
    ("", "", ("type=sbom,disabled=true", "type=provenance,disabled=false")): Attestations(provenance=Provenance()),
    ("false", "", ("type=provenance,mode=min", '"type=sbom"')): Attestations(sbom=True),
    ("mode=min", "", ("type=provenance,disabled=true",)): Attestations(provenance=Provenance(mode="min")),
}


@pytest.mark.parametrize("given", OPTIONS)
def test_options(given: tuple[str, str, tuple[str, ...]]) -> None:
    assert parse_attestations(*given) == OPTIONS[given]


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        (("mode=most", "", ()), "invalid mode 'most'"),
        (("version=v2", "", ()), "unknown version 'v2'"),
        (("maybe", "", ()), "invalid field 'maybe' in --provenance"),
        (("mode=min,colour=red", "", ()), "unknown option 'colour'"),
        (("reproducible=perhaps", "", ()), "neither true nor false"),
        (("filename=../x", "", ()), "invalid filename"),
        (("", "colour=red", ()), "unknown option 'colour'"),
        (("", "", ("type=signature",)), "unknown attestation type 'signature'"),
        (("", "", ("mode=min",)), "unknown attestation type ''"),
        (("", "", ('type="sbom',)), "unknown attestation type"),
    ],
)
def test_wrong_options(given: tuple[str, str, tuple[str, ...]], cause: str) -> None:
    with pytest.raises(UsageError, match=cause):
        parse_attestations(*given)


@pytest.mark.parametrize("given", [("", "generator=docker/scanner", ()), ("capture-usage=true", "", ())])
def test_what_is_not_done(given: tuple[str, str, tuple[str, ...]]) -> None:
    with pytest.raises(Unsupported) as refused:
        parse_attestations(*given)
    assert refused.value.remedy


def test_outputs() -> None:
    both = parse_attestations("true", "true", ())
    inline = parse_attestations("inline-only=true", "", ())
    for text, cause in (("type=docker,dest=x", "holds no index"), ("type=oci,dest=x,oci-mediatypes=false", "Docker's")):
        with pytest.raises(UsageError, match=cause):
            check_outputs(both, [parse_output("type=image"), parse_output(text)])
        check_outputs(inline, [parse_output(text)])
    check_outputs(both, [parse_output("type=local,dest=x"), parse_output("type=oci,dest=x,oci-artifact=false")])
    assert not inline.for_output(parse_output("type=oci,dest=x"))
    assert inline.for_output(parse_output("type=image")) == inline


# --- package URLs


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # the cases of BuildKit's util/purl
        ("alpine", "pkg:docker/alpine@latest"),
        ("docker.io/library/alpine:3.15", "pkg:docker/alpine@3.15"),
        ("alpine@sha256:" + "a" * 64, "pkg:docker/alpine?digest=sha256:" + "a" * 64),
        ("user/test:v2", "pkg:docker/user/test@v2"),
        ("ghcr.io/foo/bar", "pkg:docker/ghcr.io/foo/bar@latest"),
        ("localhost:5000/a", "pkg:docker/localhost%3A5000/a@latest"),
    ],
)
def test_image_urls(name: str, expected: str) -> None:
    assert image_purl(parse(name), None) == expected
    joined = f"{expected}{'&' if '?' in expected else '?'}platform=linux%2Farm%2Fv7"
    assert image_purl(parse(name), parse_platform("linux/arm/v7")) == joined


def test_package_urls() -> None:
    deb = Package("deb", "libstdc++6", "1:2~3", "amd64", namespace="debian")
    assert package_purl(deb, "debian-12") == "pkg:deb/debian/libstdc%2B%2B6@1:2~3?arch=amd64&distro=debian-12"
    assert package_purl(Package("pypi", "Foo_Bar", "1"), "debian-12") == "pkg:pypi/foo-bar@1"
    assert package_purl(Package("npm", "core", "1", namespace="@angular"), "") == "pkg:npm/%40angular/core@1"


# --- packages

STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9
Description: C
 Version: 9.9

Package: gone
Status: deinstall ok config-files
Version: 1
"""
APK = "C:Q1\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\nF:lib\nR:ld\n\nP:busybox\nV:1.36-r0\nA:x86_64\nL:GPL-2.0-only\n\n"


def rpm_header(**tags: str | int) -> bytes:
    """A package's header as it stands in the database."""
    numbers = {"name": 1000, "version": 1001, "release": 1002, "epoch": 1003, "license": 1014, "arch": 1022}
    index, data = b"", b""
    for name, value in tags.items():
        if isinstance(value, int):
            data += b"\0" * (-len(data) % 4)
            index += struct.pack(">IIII", numbers[name], 4, len(data), 1)
            data += value.to_bytes(4, "big")
        else:
            index += struct.pack(">IIII", numbers[name], 6, len(data), 1)
            data += value.encode() + b"\0"
    return struct.pack(">II", len(tags), len(data)) + index + data


def files(root: Path, **contents: str | bytes) -> Path:
    for name, content in contents.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def inventory(root: Path) -> Inventory:
    return take_inventory(LocalTree(str(root)))


def test_dpkg(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").symlink_to("/usr/lib/os-release")  # from the root of the image
    files(
        tmp_path,
        var__lib__dpkg__status=STATUS,
        **{"var__lib__dpkg__status.d__base": "Package: base\nVersion: 12\nArchitecture: all\n",
           "var__lib__dpkg__status.d__base.md5sums": "Package: none\n",
           "usr__lib__os-release": '# x\nID=debian\nVERSION_ID="12"\n'},
    )  # fmt: skip
    found = inventory(tmp_path)
    assert found.distribution == "debian-12"
    assert found.packages == (
        Package("deb", "base", "12", "all", "/var/lib/dpkg/status.d/base", namespace="debian"),
        Package("deb", "libc6", "2.36-9", "amd64", "/var/lib/dpkg/status", namespace="debian"),
    )


def test_apk(tmp_path: Path) -> None:
    files(tmp_path, lib__apk__db__installed=APK, **{"etc__os-release": "ID=alpine\nVERSION_ID=3.19.1\n"})
    found = inventory(tmp_path)
    assert [(package.name, package.version, package.licence) for package in found.packages] == [
        ("busybox", "1.36-r0", "GPL-2.0-only"),
        ("musl", "1.2.4-r2", "MIT"),
    ]
    assert package_purl(found.packages[1], found.distribution) == (
        "pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64&distro=alpine-3.19.1"
    )


def test_rpm(tmp_path: Path) -> None:
    files(tmp_path, **{"etc__os-release": "ID=fedora\nVERSION_ID=40\n"})
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/rpm").symlink_to("../../usr/lib/sysimage/rpm")
    (tmp_path / "usr/lib/sysimage/rpm").mkdir(parents=True)
    headers = [
        rpm_header(name="bash", version="5.2", release="3.fc40", epoch=1, license="GPL-3.0-or-later", arch="x86_64"),
        rpm_header(name="gpg-pubkey", version="a15b79cc", release="63d04c2c"),
        rpm_header(name="nothing"),
        b"\0\0\0\1",
        b"\xff" * 64,
    ]
    with sqlite3.connect(tmp_path / "usr/lib/sysimage/rpm/rpmdb.sqlite") as database:
        database.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
        database.executemany("INSERT INTO Packages (blob) VALUES (?)", [(header,) for header in headers])
    database.close()
    found = inventory(tmp_path)
    assert found.notes == ()
    (package,) = found.packages
    assert package_purl(package, found.distribution) == (
        "pkg:rpm/fedora/bash@5.2-3.fc40?arch=x86_64&distro=fedora-40&epoch=1"
    )
    assert package.licence == "GPL-3.0-or-later"


def test_what_cannot_be_read_is_noted(tmp_path: Path) -> None:
    files(tmp_path, var__lib__rpm__Packages="\0", **{"usr__lib__sysimage__rpm__rpmdb.sqlite": "no database"})
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").symlink_to("status")
    with open(tmp_path / "etc", "xb"):
        pass
    found = inventory(tmp_path)
    assert found.packages == ()
    assert found.notes[0] == "/var/lib/rpm/Packages: RPM databases of this form are not read, only SQLite's"
    assert found.notes[1].startswith("/usr/lib/sysimage/rpm/rpmdb.sqlite: cannot be read: ")


ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT zeroblob(8) AS blob FROM n WHERE i < 0"
)


@pytest.mark.parametrize(
    "schema",
    [
        f"CREATE VIEW Packages AS {ENDLESS}",
        "CREATE TABLE Packages (hnum INTEGER, blob BLOB AS (zeroblob(hnum)))",
        "CREATE VIRTUAL TABLE Packages USING fts5(blob)",
        "CREATE TABLE Packages (other)",
    ],
)
def test_an_rpm_database_that_is_a_program(tmp_path: Path, schema: str) -> None:
    path = tmp_path / "var/lib/rpm/rpmdb.sqlite"
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as database:
        database.execute(schema)
    database.close()
    found = inventory(tmp_path)
    assert found.packages == ()
    assert found.notes == ("/var/lib/rpm/rpmdb.sqlite: cannot be read: it has no plain table of packages",)


def test_an_rpm_database_that_calls_itself_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite goes by the statement that it keeps; what is read takes no more than its steps in any case."""
    path = tmp_path / "var/lib/rpm/rpmdb.sqlite"
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE Packages (hnum INTEGER, blob BLOB)")
        database.executemany("INSERT INTO Packages VALUES (0, ?)", [(b"",)] * 30_000)
        database.execute("CREATE TABLE Other (hnum INTEGER)")
    database.close()
    monkeypatch.setattr("builder.export.installed._RPM_STEPS", 100_000)
    assert inventory(tmp_path).notes == ("/var/lib/rpm/rpmdb.sqlite: cannot be read: interrupted",)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute(
            "UPDATE sqlite_schema SET sql = ? WHERE name = 'Packages'", (f"CREATE VIEW Packages AS {ENDLESS}",)
        )
    database.close()
    assert inventory(tmp_path).notes[0].startswith("/var/lib/rpm/rpmdb.sqlite: cannot be read: ")


def test_only_so_many_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stanzas = "".join(f"Package: {name}\nVersion: 1\n\n" for name in "aabbcd")
    files(tmp_path, var__lib__dpkg__status=stanzas)
    monkeypatch.setattr("builder.export.installed._MOST_PACKAGES", 3)
    found = inventory(tmp_path)
    assert [package.name for package in found.packages] == ["a", "b", "c"]
    assert found.notes == ("more than 3 packages, of which no more are listed",)


def test_package_databases_are_read_line_by_line() -> None:
    stanzas = b"Package: a\n\nX: " + b"x" * (1 << 20) + b"Package: no\nPackage: b\n\n"

    class Lines(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise AssertionError("read whole")

    assert [fields["Package"] for fields in dpkg_packages(Lines(stanzas * 3))] == ["a", "b"] * 3


def test_languages(tmp_path: Path) -> None:
    python, node = "usr__lib__python3__dist-packages", "app__node_modules"
    files(
        tmp_path,
        **{
            f"{python}__Foo-1.0.dist-info__METADATA": "Name: Foo\nVersion: 1.0\nLicense: MIT\n\nName: no\n",
            f"{python}__bar.egg-info__PKG-INFO": "Name: bar\nVersion: 2\n",
            f"{python}__baz-3.egg-info": "Name: baz\nVersion: 3\nLicense-Expression: BSD-3-Clause\n",
            f"{python}__bad-1.dist-info__METADATA": "\xff",
            f"{node}__left__package.json": '{"name": "left", "version": "1.1.0", "license": "WTFPL"}',
            f"{node}__@scope__right__package.json": '{"name": "@scope/right", "version": "2.0.0", "license": {"a": 1}}',
            f"{node}__left__node_modules__deep__package.json": '{"name": "deep", "version": "0.1.0"}',
            f"{node}__broken__package.json": "{",
            f"{node}__number__package.json": '{"name": 1}',
            f"{node}__.bin__package.json": '{"name": "no", "version": "1"}',
            "app__package.json": '{"name": "the-app", "version": "1"}',
        },
    )  # fmt: skip
    found = [(package.kind, package.namespace, package.name, package.version, package.licence)
             for package in inventory(tmp_path).packages]  # fmt: skip
    assert found == [
        ("npm", "", "deep", "0.1.0", ""),
        ("npm", "", "left", "1.1.0", "WTFPL"),
        ("npm", "@scope", "right", "2.0.0", ""),
        ("pypi", "", "Foo", "1.0", "MIT"),
        ("pypi", "", "bar", "2", ""),
        ("pypi", "", "baz", "3", "BSD-3-Clause"),
    ]


@given(st.binary(max_size=80))
def test_any_header_can_be_read(data: bytes) -> None:
    _rpm_tags(data)
    _rpm_tags(struct.pack(">II", 2, 16) + data)


# --- the document


def document(*packages: Package) -> dict[str, Any]:
    made = spdx_document(Inventory(packages, "debian-12", ("a note",)), "docker.io/library/x:1", "2024-01-02T03:04:05Z")
    decoded: dict[str, Any] = json.loads(msgspec.json.encode(made))
    return decoded


def test_a_document() -> None:
    made = document(
        Package("deb", "a+b", "1", "amd64", "/var/lib/dpkg/status", namespace="debian"),
        Package("npm", "c", "2", "", "/x/node_modules/c/package.json", "MIT", "@s"),
    )
    assert made["spdxVersion"] == "SPDX-2.3"
    assert made["creationInfo"]["comment"] == "a note"
    names = [package["SPDXID"] for package in made["packages"]]
    assert len(set(names)) == 3
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") for name in names)
    assert [package["name"] for package in made["packages"]] == ["docker.io/library/x:1", "a+b", "@s/c"]
    assert made["packages"][2]["licenseComments"] == "the package states: MIT"
    assert {(r["spdxElementId"], r["relationshipType"], r["relatedSpdxElement"]) for r in made["relationships"]} == {
        ("SPDXRef-DOCUMENT", "DESCRIBES", names[0]),
        (names[0], "CONTAINS", names[1]),
        (names[0], "CONTAINS", names[2]),
    }


def test_a_namespace_for_each_document() -> None:
    one, same, other = document(), document(), document(Package("deb", "a", "1"))
    assert one["documentNamespace"] == same["documentNamespace"] != other["documentNamespace"]
