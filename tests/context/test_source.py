"""What the texts that name a context mean."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.context.git_url import GitRef
from builder.context.source import (
    Context,
    GitContext,
    HTTPContext,
    ImageContext,
    LayoutContext,
    LocalContext,
    StdinContext,
    TargetContext,
    parse_context,
)
from builder.errors import ContextError

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-", StdinContext()),
        (".", LocalContext(".")),
        ("http://h/x.tar.gz", HTTPContext("http://h/x.tar.gz")),
        ("https://h/x.git#b", GitContext(GitRef("https://h/x.git", "x", "b"))),
        ("git@h:o/x.git", GitContext(GitRef("git@h:o/x.git", "x"))),
        ("github.com/o/x", GitContext(GitRef("https://github.com/o/x", "x", looks_local=True))),
    ],
)
def test_main(text: str, expected: Context) -> None:
    assert parse_context(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (".", LocalContext(".")),
        ("docker-image://alpine:3", ImageContext("alpine:3")),
        ("docker-image://scratch", ImageContext("scratch")),
        ("oci-layout:///a/b", LayoutContext("/a/b", "latest")),
        ("oci-layout://a:v1", LayoutContext("a", "v1")),
        (f"oci-layout://a@{DIGEST}", LayoutContext("a", "latest", DIGEST)),
        (f"oci-layout://a:v1@{DIGEST}", LayoutContext("a", "v1", DIGEST)),
        ("target:base", TargetContext("base")),
        ("http://h/x", HTTPContext("http://h/x")),
        ("git://h/x", GitContext(GitRef("git://h/x", "x"))),
    ],
)
def test_named(text: str, expected: Context) -> None:
    assert parse_context(text, name="src") == expected


def test_an_existing_directory_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "github.com/o/x").mkdir(parents=True)
    (tmp_path / "floppy:/x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse_context("github.com/o/x") == LocalContext("github.com/o/x")
    assert parse_context("floppy://x", name="src") == LocalContext("floppy://x")


@pytest.mark.parametrize(
    ("text", "name", "cause"),
    [
        ("", None, "empty"),
        ("a\0b", None, "null byte"),
        ("/does/not/exist", None, "does not exist"),
        ("/dev/null", None, "not a directory"),
        ("floppy://x", "src", "unsupported source floppy://"),
        ("docker-image://alpine", None, "unsupported source docker-image://"),
        ("docker-image://", "src", "invalid image reference"),
        ("docker-image://UPPER", "src", "invalid image reference"),
        ("oci-layout://", "src", "names no directory"),
        ("oci-layout://a@b", "src", "not a digest"),
        ("target:", "src", "names no stage"),
        ("https://h/x.git?what=1", "src", "unexpected query"),
        ("-", "src", "does not exist"),
    ],
)
def test_errors(text: str, name: str | None, cause: str) -> None:
    with pytest.raises(ContextError, match=cause):
        parse_context(text, name=name)


@given(st.text(max_size=30), st.sampled_from([None, "src"]), st.sampled_from(["", "oci-layout://", "docker-image://"]))
def test_any_text_is_read_or_refused(text: str, name: str | None, start: str) -> None:
    with contextlib.suppress(ContextError):
        parse_context(start + text, name=name)
