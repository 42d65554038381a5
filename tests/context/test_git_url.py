"""What names a git repository, and what in it."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.context.git_url import GitRef, parse_git_url
from builder.errors import ContextError

URL = "https://example.com/o/app.git"
PLAIN = GitRef(URL, "app")


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("", {}),
        ("#", {}),
        ("#main", {"ref": "main"}),
        ("#release/1.2:a/b", {"ref": "release/1.2", "subdir": "a/b"}),
        ("#:sub", {"subdir": "sub"}),
        ("#main:/a/../../b/", {"ref": "main", "subdir": "b"}),
        ("#a%20b", {"ref": "a b"}),
        ("?ref=v1&subdir=/s", {"ref": "v1", "subdir": "/s"}),
        ("?subdir=/s#v1", {"ref": "v1", "subdir": "/s"}),
        ("?ref=v1#v1", {"ref": "v1"}),
        ("?tag=v1", {"ref": "refs/tags/v1"}),
        ("?tag=refs/tags/v1", {"ref": "refs/tags/v1"}),
        ("?branch=b", {"ref": "refs/heads/b"}),
        ("?checksum=abc", {"checksum": "abc"}),
        ("?commit=abc&checksum=abc", {"checksum": "abc"}),
        ("?keep-git-dir", {"keep_git_dir": True}),
        ("?keep-git-dir=false&submodules=0", {"keep_git_dir": False, "submodules": False}),
        ("?submodules=", {"submodules": True}),
        ("?mtime=commit", {"mtime": "commit"}),
        ("?fetch-by-commit=true&checksum=abc#b", {"fetch_by_commit": True, "checksum": "abc", "ref": "b"}),
    ],
)
def test_parts(text: str, changes: dict[str, object]) -> None:
    assert parse_git_url(URL + text) == msgspec.structs.replace(PLAIN, **changes)


@pytest.mark.parametrize(
    ("text", "remote", "short_name"),
    [
        ("http://h/x.git", "http://h/x.git", "x"),
        ("HTTPS://h/x.git", "https://h/x.git", "x"),
        ("https://u:p@h:8/x.git", "https://u:p@h:8/x.git", "x"),
        ("git://h/x", "git://h/x", "x"),
        ("ssh://git@h/o/x", "ssh://git@h/o/x", "x"),
        ("git@github.com:o/x.git", "git@github.com:o/x.git", "x"),
        ("me@h:x", "me@h:x", "me@h:x"),
        ("github.com/o/x", "https://github.com/o/x", "x"),
    ],
)
def test_forms(text: str, remote: str, short_name: str) -> None:
    found = parse_git_url(text)
    assert found is not None
    assert (found.remote, found.short_name) == (remote, short_name)
    assert found.looks_local is text.startswith("github.com/")
    with_parts = parse_git_url(f"{text}?subdir=s#r")
    assert with_parts is not None
    assert (with_parts.remote, with_parts.ref, with_parts.subdir) == (remote, "r", "s")


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "./x.git", "../x.git", ".git", "dir/x.git", "/abs/x.git", "https://h/x", "https://h/x.git/",
        "https://h/x.git.zip", "http://h/x.git:#b", "file:///x.git", "ext::sh -c x", "ftp://h/x.git",
        "example.com/x.git", "docker-image://x", "https://h:port/x.git", "https://[/x.git",
    ],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    assert parse_git_url(text) is None


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("?ref=a#b", "ref is given twice"),
        ("?ref=a&tag=b", "ref is given twice"),
        ("?tag=a&branch=b", "a branch and a tag"),
        ("?subdir=a#:b", "subdir is given twice"),
        ("?checksum=a&commit=b", "checksum is given twice"),
        ("?ref=", "has no value"),
        ("?ref=a&ref=b", "several values"),
        ("?what=1", "unexpected query 'what'"),
        ("?mtime=now", "invalid value 'now' of mtime"),
        ("?submodules=perhaps", "invalid value 'perhaps'"),
        ("#--upload-pack=x", "invalid git reference"),
    ],
)
def test_wrong_queries(text: str, cause: str) -> None:
    with pytest.raises(ContextError, match=cause) as caught:
        parse_git_url("https://me:secret@example.com/x.git" + text)
    assert caught.value.place == "https://xxxxx@example.com/x.git"


@given(st.text(max_size=40), st.sampled_from(["", "https://h/x.git", "git@h:", "ssh://", "github.com/"]))
def test_any_text_is_read_or_refused(text: str, start: str) -> None:
    with contextlib.suppress(ContextError):
        parse_git_url(start + text)
