"""Headers for remote sources, from secrets by their names."""

from __future__ import annotations

from base64 import b64encode

import pytest

from builder.context.authorization import Secrets, git_authorization, http_authorization
from builder.errors import ContextError


def readers(given: dict[str, str]) -> Secrets:
    return {name: (lambda value=value: value.encode()) for name, value in given.items()}  # type: ignore[misc]


def token(text: str) -> str:
    return "basic " + b64encode(f"x-access-token:{text}".encode()).decode()


GIT = "https://host.example/a/b.git"


@pytest.mark.parametrize(
    ("given", "remote", "header"),
    [
        ({}, GIT, None),
        ({"GIT_AUTH_TOKEN": "t"}, GIT, token("t")),
        ({"GIT_AUTH_TOKEN": "t\n"}, "http://me:pw@host.example:80/b.git", token("t")),
        ({"GIT_AUTH_HEADER": "Bearer h"}, GIT, "Bearer h"),
        ({"GIT_AUTH_TOKEN": "t", "GIT_AUTH_HEADER": "h"}, GIT, "h"),
        ({"GIT_AUTH_HEADER": "h", "GIT_AUTH_TOKEN.host.example": "t"}, GIT, token("t")),
        ({"GIT_AUTH_HEADER.host.example": "h", "GIT_AUTH_TOKEN.host.example": "t"}, GIT, "h"),
        ({"GIT_AUTH_TOKEN.host.example": "t"}, "https://me@host.example/b.git", token("t")),
        ({"GIT_AUTH_TOKEN.host.example": "t"}, "https://host.example:8443/b.git", None),
        ({"GIT_AUTH_TOKEN.host.example:8443": "t"}, "https://host.example:8443/b.git", token("t")),
        ({"GIT_AUTH_TOKEN.other.example": "t"}, GIT, None),
        ({"GIT_AUTH_HEADER": " ", "GIT_AUTH_TOKEN": "t"}, GIT, token("t")),
        ({"GIT_AUTH_TOKEN": "t"}, "ssh://git@host.example/b.git", None),
        ({"GIT_AUTH_TOKEN": "t"}, "git@host.example:b.git", None),
        ({"HTTP_AUTH_TOKEN_host.example": "t", "TOKEN": "t"}, GIT, None),
        ({"GIT_AUTH_TOKEN": "t", "GIT_AUTH_TOKEN.": "t"}, "https://[/b.git", None),
    ],
)
def test_repositories(given: dict[str, str], remote: str, header: str | None) -> None:
    assert git_authorization(readers(given), remote) == header


@pytest.mark.parametrize(
    ("given", "url", "header"),
    [
        ({}, "https://host.example/f", None),
        ({"HTTP_AUTH_TOKEN_host.example": "t"}, "https://host.example/f", "Bearer t"),
        ({"HTTP_AUTH_HEADER_host.example": "Basic x"}, "https://host.example:8443/f", "Basic x"),
        ({"HTTP_AUTH_HEADER_h": "x", "HTTP_AUTH_TOKEN_h": "t\n"}, "http://me:pw@h/f", "Bearer t"),
        ({"HTTP_AUTH_TOKEN_::1": "t"}, "http://[::1]:80/f", "Bearer t"),
        ({"HTTP_AUTH_TOKEN_other": "t", "GIT_AUTH_TOKEN": "t", "HTTP_AUTH_TOKEN_": "t"}, "http://h/f", None),
        ({"HTTP_AUTH_TOKEN_h": ""}, "http://h/f", None),
        ({"HTTP_AUTH_TOKEN_h": "t", "HTTP_AUTH_TOKEN_": "t"}, "http://[/f", None),
    ],
)
def test_files(given: dict[str, str], url: str, header: str | None) -> None:
    assert http_authorization(readers(given), url) == header


@pytest.mark.parametrize("value", ["hunter2\nX-Other: 1", "hunter2\r1", "hunter2\0", "hunter2é"])
def test_what_is_no_header(value: str) -> None:
    for name, authorization, address in (
        ("GIT_AUTH_HEADER", git_authorization, GIT),
        ("HTTP_AUTH_TOKEN_h", http_authorization, "http://h/f"),
    ):
        with pytest.raises(ContextError, match="no HTTP header") as caught:
            authorization(readers({name: value}), address)
        assert name in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_only_what_is_needed_is_read() -> None:
    def unread() -> bytes:
        raise AssertionError

    secrets = dict.fromkeys(("npm", "HTTP_AUTH_TOKEN_other", "GIT_AUTH_TOKEN.other"), unread)
    assert git_authorization(secrets, GIT) is None
    assert http_authorization(secrets, "http://h/f") is None
