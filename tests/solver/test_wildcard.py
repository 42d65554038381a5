"""Wildcards: Go's filepath.Match, with the table of its own tests where no slash is involved."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import StepFailed
from builder.solver.wildcard import compile_pattern, split

MATCHES = [
    ("abc", "abc", True), ("*", "abc", True), ("*c", "abc", True), ("a*", "a", True), ("a*", "abc", True),
    ("a*", "ab/c", False), ("a*/b", "abc/b", True), ("a*/b", "a/c/b", False),
    ("a*b*c*d*e*/f", "axbxcxdxe/f", True), ("a*b*c*d*e*/f", "axbxcxdxexxx/f", True),
    ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", False), ("a*b?c*x", "abxbbxdbxebxczzx", True),
    ("a*b?c*x", "abxbbxdbxebxczzy", False), ("ab[c]", "abc", True), ("ab[b-d]", "abc", True),
    ("ab[e-g]", "abc", False), ("ab[^c]", "abc", False), ("ab[^b-d]", "abc", False), ("ab[^e-g]", "abc", True),
    ("a\\*b", "a*b", True), ("a\\*b", "ab", False), ("a?b", "a☺b", True), ("a[^a]b", "a☺b", True),
    ("a???b", "a☺b", False), ("a[^a][^a][^a]b", "a☺b", False), ("[a-ζ]*", "α", True), ("*[a-ζ]", "A", False),
    ("a?b", "a/b", False), ("a*b", "a/b", False), ("[\\]a]", "]", True), ("[\\-]", "-", True), ("[x\\-]", "x", True),
    ("[x\\-]", "-", True), ("[x\\-]", "z", False), ("[\\-x]", "x", True), ("[\\-x]", "-", True),
    ("[\\-x]", "a", False), ("*x", "xxx", True), ("[c-a]", "b", False), ("[c-a]", "c", False), ("[^c-a]", "b", True),
    ("[!a]", "!", True), ("[!a]", "b", False), ("**", "abc", True), ("**", "a/b", False), 
    ("", "", True), ("", "a", False),
    ("a.c", "abc", False), ("(a|b)+", "(a|b)+", True), ("a\nb", "a\nb", True), ("a?b", "a\nb", True), ("é", "é", True),
]  # fmt: skip
MALFORMED = ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "\\", "a\\", "[\\", "[a\\", "[a-"]


@pytest.mark.parametrize(("pattern", "path", "expected"), MATCHES)
def test_table(pattern: str, path: str, expected: bool) -> None:
    assert bool(compile_pattern(pattern).fullmatch(path)) is expected


@pytest.mark.parametrize("pattern", MALFORMED)
def test_malformed(pattern: str) -> None:
    with pytest.raises(StepFailed, match="malformed pattern") as caught:
        compile_pattern(pattern)
    assert caught.value.remedy


@given(st.text("ab*?/.\\", max_size=8).filter(lambda t: not t.endswith("\\")), st.text("ab/.", max_size=8))
def test_as_fnmatch_does_within_a_component(pattern: str, path: str) -> None:
    if "\\" in pattern or "/" in pattern or "/" in path:
        compile_pattern.__wrapped__(pattern)
        return
    assert bool(compile_pattern(pattern).fullmatch(path)) is fnmatch.fnmatchcase(path, pattern)


@given(st.text(max_size=12), st.text(max_size=12))
def test_any_pattern_matches_or_is_refused(pattern: str, path: str) -> None:
    try:
        compile_pattern.__wrapped__(pattern).fullmatch(path)
    except StepFailed:
        return


def test_many_stars_are_no_trap() -> None:
    started = time.monotonic()
    compile_pattern("a*" * 25 + "b").fullmatch("a" * 200)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b", ("a/b", "")), ("/", ("", "")), ("", ("", "")), ("/a*/b", ("", "a*/b")), ("/a/b?/c", ("a", "b?/c")),
        ("/a\\*/b", ("a\\*/b", "")), ("a//b*", ("a", "b*")),
    ],
)  # fmt: skip
def test_split(path: str, expected: tuple[str, str]) -> None:
    assert split(path) == expected
