"""Paths, as Go cleans and joins them."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.plan.paths import clean, destination, has_wildcards, join, normalise

# Go's path.Clean, from the table of its own tests (path/path_test.go)
CLEAN = {
    "": ".", "abc": "abc", "abc/def": "abc/def", "a/b/c": "a/b/c", ".": ".", "..": "..", "../..": "../..", "/": "/",
    "/abc": "/abc", "abc/": "abc", "abc/def/": "abc/def", "./": ".", "../": "..", "/abc/": "/abc",
    "abc//def//ghi": "abc/def/ghi", "//abc": "/abc", "///abc": "/abc", "//abc//": "/abc", "//": "/",
    "abc/./def": "abc/def", "/./abc/def": "/abc/def", "abc/.": "abc", "abc/def/ghi/../jkl": "abc/def/jkl",
    "abc/def/..": "abc", "abc/def/../..": ".", "/abc/def/../..": "/", "abc/def/../../..": "..",
    "/abc/def/../../..": "/", "abc/def/../../../ghi/jkl/../../../mno": "../../mno", "/../abc": "/abc",
    "abc/./../def": "def", "abc//./../def": "def", "abc/../../././../def": "../../def",
}  # fmt: skip


@pytest.mark.parametrize("path", CLEAN)
def test_clean(path: str) -> None:
    assert clean(path) == CLEAN[path]


JOINED = {
    ("a", "b"): "a/b", ("a", ""): "a", ("", "b"): "b", ("/", "a"): "/a", ("/", "/a"): "/a", ("a/", "b"): "a/b",
    ("a/", ""): "a", ("", ""): "", ("/", ""): "/", ("/a", "../../b"): "/b", (): "",
}  # fmt: skip


@pytest.mark.parametrize("parts", JOINED)
def test_join(parts: tuple[str, ...]) -> None:
    assert join(*parts) == JOINED[parts]


@given(st.text("ab./", max_size=12))
def test_cleaning_twice_changes_nothing(path: str) -> None:
    once = clean(path)
    assert clean(once) == once
    assert "//" not in once
    assert once.startswith("/") == path.startswith("/")
    assert once == "/" or not once.endswith("/")
    assert posixpath.normpath(once) == once


@pytest.mark.parametrize(
    ("parent", "path", "expected"),
    [
        ("/w", "a", "/w/a"), ("/w", "../a", "/a"), ("/w", "/a", "/a"), ("/w", "", "/w"), ("", "a", "/a"),
        ("w", "a", "/w/a"), ("/w/", "a/", "/w/a"), ("/w", "/a/", "/a/"), ("/w", "/a/../b", "/a/../b"),
    ],
)  # fmt: skip
def test_normalise(parent: str, path: str, expected: str) -> None:
    assert normalise(parent, path) == expected


@pytest.mark.parametrize(
    ("workdir", "path", "expected"),
    [
        ("/w", ".", "/w/"), ("/w", "", "/w/"), ("/w", "./", "/w/"), ("/w", "a", "/w/a"), ("/w", "a/", "/w/a/"),
        ("/w", "a/.", "/w/a/."), ("/", ".", "/"), ("", "a", "/a"), ("/w", "/", "/"), ("/w", "/a/", "/a/"),
        ("/w", "/a/.", "/a/./."), ("/w", "..", "/"), ("/w", "../b/", "/b/"), ("/w", "/a/../b", "/a/../b"),
    ],
)  # fmt: skip
def test_destinations(workdir: str, path: str, expected: str) -> None:
    assert destination(workdir, path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a", False),
        ("a*", True),
        ("a?", True),
        ("[a]", True),
        ("a]", False),
        ("a\\*", False),
        ("a\\\\*", True),
        ("a\\", False),
    ],
)
def test_wildcards(path: str, expected: bool) -> None:
    assert has_wildcards(path) is expected
