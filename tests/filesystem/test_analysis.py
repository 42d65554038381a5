"""What layers cost: changes, waste, duplicates, caches left behind; and the packages that an image says it has."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest

from builder.errors import LayerError
from builder.filesystem import packages
from builder.filesystem.analysis import Analyser, Analysis, FileSize, HiddenCopy
from builder.filesystem.contents import Contents
from builder.filesystem.leftovers import LEFTOVERS, leftover_of
from builder.filesystem.names import printable
from builder.filesystem.packages import PackageChange, compare_packages, database_files, installed
from tests.support.archives import archive

Spec = dict[str, Any]


def file(size: int, fill: bytes = b"x", **extra: Any) -> Spec:
    return {"data": fill * size, **extra}


def analyse(*layers: list[tuple[str, Spec]], top: int = 10) -> Analysis:
    analyser = Analyser(top)
    for layer in layers:
        analyser.add(io.BytesIO(archive(*layer)))
    return analyser.finish()


def counts(found: Analysis) -> list[tuple[int, int, int, int]]:
    return [(layer.added, layer.changed, layer.removed, layer.wasted) for layer in found.layers]


def test_each_layer_counts_what_it_changes() -> None:
    found = analyse(
        [("d/", {}), ("d/a", file(10)), ("d/b", file(20, b"y")), ("d/same", file(5, b"z"))],
        # a directory named again and a file written again as it was are no changes
        [
            ("d/", {"mtime": 0}),
            ("d/a", file(10, mode=0o600)),
            ("d/same", file(5, b"z")),
            ("d/.wh.b", file(0)),
            ("e/", {}),
        ],
        [("d/", {"mode": 0o700}), ("d", file(3, b"w"))],
    )
    assert counts(found) == [(4, 0, 0, 35), (1, 1, 1, 15), (0, 1, 2, 0)]
    assert found.wasted == 50
    assert [layer.layer for layer in found.layers] == [1, 2, 3]
    assert found.size == sum(layer.size for layer in found.layers)
    assert all(layer.size % 512 == 0 for layer in found.layers)
    assert {one.path: one.copies for one in found.waste} == {
        "d/a": (HiddenCopy(1, 10, 2, False), HiddenCopy(2, 10, 3, True)),
        "d/b": (HiddenCopy(1, 20, 2, True),),
        "d/same": (HiddenCopy(1, 5, 2, False), HiddenCopy(2, 5, 3, True)),
    }
    assert found.waste[0].path in ("d/a", "d/b")
    assert found.waste[0].size == 20


def test_the_largest_files_of_each_layer_and_of_all() -> None:
    found = analyse([("a", file(3)), ("b", file(9)), ("empty", file(0))], [("c", file(5))], top=2)
    assert found.layers[0].largest == (FileSize("b", 9, 1), FileSize("a", 3, 1))
    assert found.largest == (FileSize("b", 9, 1), FileSize("c", 5, 2))
    assert analyse([("a", file(3))], top=0).largest == ()


def test_what_a_hard_link_still_shows_is_no_waste() -> None:
    link = {"type": tarfile.LNKTYPE, "link": "a"}
    kept = analyse([("a", file(8)), ("b", link)], [(".wh.a", file(0))])
    assert kept.wasted == 0
    assert counts(kept)[1] == (0, 0, 1, 0)
    gone = analyse([("a", file(8)), ("b", link)], [(".wh.a", file(0)), (".wh.b", file(0))])
    assert [(one.path, one.size) for one in gone.waste] == [("a", 8)]


def test_what_a_layer_has_twice_is_wasted_by_itself() -> None:
    found = analyse([("a", file(8)), ("a", file(4))])
    assert counts(found) == [(1, 0, 0, 8)]
    assert found.waste[0].copies == (HiddenCopy(1, 8, 1, False),)


def test_duplicates_are_of_several_layers() -> None:
    found = analyse(
        [("a", file(9)), ("b", file(9)), ("twice", file(7, b"y")), ("again", file(7, b"y")), ("none", file(0))],
        [("c", file(9)), ("other", file(9, b"o")), ("empty", file(0))],
    )
    (duplicate,) = found.duplicates
    assert (duplicate.size, duplicate.extra) == (9, 18)
    assert duplicate.copies == (FileSize("a", 9, 1), FileSize("b", 9, 1), FileSize("c", 9, 2))


def test_caches_left_behind_are_what_shows_in_the_end() -> None:
    found = analyse(
        [("var/lib/apt/lists/one", file(10)), ("var/lib/apt/lists/lock", file(0)), ("root/.cache/pip/x", file(30))],
        [("var/lib/apt/lists/deb/two", file(5)), ("root/.cache/.wh.pip", file(0))],
    )
    (cache,) = found.caches
    assert (cache.manager, cache.path, cache.files, cache.size, cache.layers) == (
        "apt lists",
        "var/lib/apt/lists",
        2,
        15,
        (1, 2),
    )
    assert found.wasted == 30


@pytest.mark.parametrize(
    ("path", "manager", "directory"),
    [
        ("var/lib/apt/lists/mirror.example_main", "apt lists", "var/lib/apt/lists"),
        ("var/cache/apt/archives/gcc.deb", "apt", "var/cache/apt"),
        ("var/cache/apk/APKINDEX.tar.gz", "apk", "var/cache/apk"),
        ("etc/apk/cache/x.apk", "apk", "etc/apk/cache"),
        ("etc/apk/world", None, None),
        ("lib/apk/db/installed", None, None),
        ("var/cache/dnf/x", "dnf", "var/cache/dnf"),
        ("var/cache/yum/x86_64/7/base/x.sqlite", "yum", "var/cache/yum"),
        ("root/.cache/pip/http/x", "pip", "root/.cache/pip"),
        ("home/me/.cache/pip/http/x", "pip", "home/me/.cache/pip"),
        ("srv/root/.cache/pip/x", None, None),
        ("root/.npm/_cacache/index", "npm", "root/.npm/_cacache"),
        ("root/.cache/go-build/00/x", "go build", "root/.cache/go-build"),
        ("go/pkg/mod/cache/download/x.zip", "go modules", "go/pkg/mod"),
        ("usr/local/cargo/registry/cache/x.crate", "cargo", "usr/local/cargo/registry"),
        ("root/.cargo/git/db/x", "cargo", "root/.cargo/git"),
        ("usr/local/cargo/bin/cargo", None, None),
        ("opt/miniconda3/pkgs/x", "conda", "opt/miniconda3/pkgs"),
        ("root/.m2/repository/x.jar", "maven", "root/.m2/repository"),
        ("var/lib/apt/listsx", None, None),
    ],
)
def test_caches_are_known_by_their_places(path: str, manager: str | None, directory: str | None) -> None:
    found = leftover_of(path)
    assert (found and found[0].manager, found and found[1]) == (manager, directory)


def test_every_cache_has_a_pattern_of_its_own_and_a_remedy() -> None:
    assert len({leftover.pattern for leftover in LEFTOVERS}) == len(LEFTOVERS)
    assert all(leftover.remedy and leftover.pattern.endswith("/") for leftover in LEFTOVERS)
    assert all("(" not in leftover.pattern.replace("(?:", "") for leftover in LEFTOVERS)  # groups are counted


# --- packages

STATUS = b"""\
Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2-1
Description: a shell
 Version: of no field

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36

Package: libc6
Status: install ok installed
Architecture: i386
Version: 2.35

Package: tzdata
Status: install ok installed
Architecture: all
Version: 2024a

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

"""
APK = b"""\
C:Q1xxx=
P:musl
V:1.2.5-r0
A:x86_64
F:lib
R:ld-musl-x86_64.so.1

P:busybox
V:1.36.1-r29
"""


def test_dpkg_and_apk_databases_are_read() -> None:
    assert installed([("dpkg", STATUS), ("apk", APK)]) == {
        ("dpkg", "bash"): "5.2-1",
        ("dpkg", "libc6"): "2.36",
        ("dpkg", "libc6:i386"): "2.35",
        ("dpkg", "tzdata"): "2024a",
        ("apk", "musl"): "1.2.5-r0",
        ("apk", "busybox"): "1.36.1-r29",
    }
    assert installed([("dpkg", b""), ("apk", b"\xff\n\nnonsense")]) == {}


def test_databases_are_found_where_they_are() -> None:
    contents = Contents()
    contents.apply(
        io.BytesIO(
            archive(
                ("var/lib/dpkg/status.d/base", file(1)),
                ("var/lib/dpkg/status.d/base.md5sums", file(1)),
                ("usr/lib/apk/db/installed", file(1)),
                ("lib", {"type": tarfile.SYMTYPE, "link": "usr/lib"}),
            )
        )
    )
    found = {(manager, stored.path) for manager, stored in database_files(contents)}
    assert found == {("apk", "usr/lib/apk/db/installed"), ("dpkg", "var/lib/dpkg/status.d/base")}


def test_a_database_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "LARGEST", 10)
    contents = Contents()
    contents.apply(io.BytesIO(archive(("var/lib/dpkg/status", file(11)))))
    with pytest.raises(LayerError, match="/var/lib/dpkg/status: is a package database"):
        list(database_files(contents))


def test_packages_are_compared_by_name() -> None:
    before = {("dpkg", "a"): "1", ("dpkg", "b"): "1", ("dpkg", "c"): "1"}
    after = {("dpkg", "b"): "1", ("dpkg", "c"): "2", ("apk", "d"): "3"}
    assert compare_packages(before, after) == [
        PackageChange("apk", "d", None, "3"),
        PackageChange("dpkg", "a", "1", None),
        PackageChange("dpkg", "c", "1", "2"),
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain é ü", "plain é ü"),
        ("a\x1b[31mb\n", "a\\x1b[31mb\\n"),
        ("bad\udcff", "bad\\xff"),
        ("\u202eexe", "\\u202eexe"),
    ],
)
def test_names_are_harmless_on_a_terminal(name: str, expected: str) -> None:
    assert printable(name) == expected
