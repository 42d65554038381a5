"""Fetching over HTTP, from a server on loopback."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote, unquote

import pytest

from builder.context.http import add_filename, fetch, filename, redacted
from builder.errors import ContextError, Interrupted
from tests.support.certificates import make_certificates
from tests.support.http import serving

BODY = b"content " * 50_000
MODIFIED = 1_546_300_800
ENCODED = {
    "/gzip": gzip.compress(BODY), "/x-gzip": BODY, "/identity": BODY, "/gzip,gzip": gzip.compress(gzip.compress(BODY)),
    "/deflate": b"x",
}  # fmt: skip


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[dict[str, str]]] = []

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        self.seen.append(dict(self.headers))
        path = self.path.partition("?")[0]
        if path == "/file.txt":
            same = self.headers.get("If-None-Match") == '"one"' or "If-Modified-Since" in self.headers
            self.answer(304 if same else 200, {"ETag": '"one"', "Last-Modified": "Tue, 01 Jan 2019 00:00:00 GMT"})
        elif path == "/named":
            self.answer(200, {"Content-Disposition": 'attachment; filename="../a b.txt"', "Last-Modified": "nonsense"})
        elif path == "/dated":
            self.answer(200, {"Last-Modified": unquote(self.path.partition("?")[2])})
        elif path == "/moved":
            self.answer(302, {"Location": self.path.partition("?to=")[2] or "/file.txt"})
        elif path == "/loop":
            self.answer(302, {"Location": "/loop"})
        elif path in ENCODED:
            self.answer(200, {"Content-Encoding": path[1:]}, body=ENCODED[path])
        elif path == "/endless":
            self.answer(302, {"Location": "/file.txt"}, length=1 << 40)
            self.close_connection = True
        elif path == "/drip":
            self.answer(200, {}, length=len(BODY), body=b"")
            for _ in range(20):
                self.wfile.write(b"x")
                time.sleep(0.02)
            self.close_connection = True
        elif path == "/short":
            self.answer(200, {}, length=len(BODY) + 100)
            self.close_connection = True
        else:
            self.answer(404, {})

    def answer(
        self, status: int, headers: dict[str, str], length: int | None = None, body: bytes | None = None
    ) -> None:
        if body is None:
            body = BODY if status == 200 else b""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving(Handler) as url:
        yield url


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Wed, 31 Dec 1969 23:59:59 GMT", None),
    ],
)
def test_times_that_no_header_can_name_are_none(server: str, date: str, seconds: int | None) -> None:
    fetched = fetch(f"{server}/dated?{quote(date)}", io.BytesIO())
    assert fetched.last_modified == seconds


def test_a_time_that_was_kept_and_no_header_can_name(server: str) -> None:
    """An earlier version remembered what any server said."""
    Handler.seen.clear()
    for modified in (253_402_387_140, -1):
        assert fetch(f"{server}/file.txt", io.BytesIO(), last_modified=modified).unchanged is False
    assert not any("If-Modified-Since" in headers for headers in Handler.seen)


def test_fetch(server: str) -> None:
    out = io.BytesIO()
    fetched = fetch(f"{server}/file.txt?x=1", out)
    assert out.getvalue() == BODY
    assert (fetched.unchanged, fetched.filename, fetched.size) == (False, "file.txt", len(BODY))
    assert (fetched.last_modified, fetched.etag) == (MODIFIED, '"one"')
    assert fetched.digest == "sha256:" + hashlib.sha256(BODY).hexdigest()
    assert Handler.seen[-1]["Accept-Encoding"] == "identity"


def test_what_ends_it(server: str) -> None:
    out = io.BytesIO()
    pieces = iter(range(2))

    def check() -> None:
        if next(pieces, None) is None:
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        fetch(f"{server}/file.txt", out, check=check)
    assert 0 < len(out.getvalue()) < len(BODY)


@pytest.mark.parametrize("validators", [{"etag": '"one"'}, {"last_modified": MODIFIED}])
def test_unchanged(server: str, validators: dict[str, str | int]) -> None:
    out = io.BytesIO()
    fetched = fetch(f"{server}/file.txt", out, **validators)  # type: ignore[arg-type]
    assert fetched.unchanged
    assert (fetched.etag, fetched.last_modified) == ('"one"', MODIFIED)
    assert out.getvalue() == b""


def test_the_header_is_for_the_host_alone(server: str) -> None:
    """Its redirects get it, those to another one do not; credentials in the URL count less."""
    elsewhere = server.replace("127.0.0.1", "localhost")
    for url, sent in (
        (f"{server}/file.txt", ["Bearer t"]),
        (f"{server}/file.txt".replace("http://", "http://me:hunter2@"), ["Bearer t"]),
        (f"{server}/moved", ["Bearer t", "Bearer t"]),
        (f"{server}/moved?to={elsewhere}/file.txt", ["Bearer t", None]),
    ):
        Handler.seen.clear()
        assert fetch(url, io.BytesIO(), authorization="Bearer t").size == len(BODY)
        assert [headers.get("Authorization") for headers in Handler.seen] == sent


def test_changed(server: str) -> None:
    assert not fetch(f"{server}/file.txt", io.BytesIO(), etag='"two"').unchanged


def test_redirect_and_name(server: str) -> None:
    assert fetch(f"{server}/moved", io.BytesIO()).size == len(BODY)
    fetched = fetch(f"{server}/named", io.BytesIO())
    assert (fetched.filename, fetched.last_modified) == ("a b.txt", None)


@pytest.mark.parametrize("path", ["/gzip", "/x-gzip", "/identity"])
def test_what_is_encoded_unasked(server: str, path: str) -> None:
    """One coding is taken off in bounded memory."""
    out = io.BytesIO()
    assert fetch(server + path, out).size == len(BODY)
    assert out.getvalue() == BODY


def test_a_body_that_drips(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.context.bodies.LEAST", 1000)
    monkeypatch.setattr("builder.context.http._TIMEOUT", 0.1)
    with pytest.raises(ContextError, match=r"cannot be fetched: .* bytes came in 0 s"):
        fetch(f"{server}/drip", io.BytesIO())


def test_what_comes_with_a_redirect_is_not_read(server: str) -> None:
    assert fetch(f"{server}/endless", io.BytesIO()).size == len(BODY)


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("/nope", "404"),
        ("/loop", "redirect"),
        ("/short", "cannot be fetched"),
        ("/gzip,gzip", "'gzip,gzip', which was not asked for"),
        ("/deflate", "not asked for"),
    ],
)
def test_errors(server: str, path: str, cause: str) -> None:
    url = server.replace("http://", "http://me:secret@") + path
    with pytest.raises(ContextError, match=cause) as caught:
        fetch(url, io.BytesIO())
    assert str(caught.value.place).endswith(path)
    assert "secret" not in str(caught.value)


def test_nobody_listens() -> None:
    with pytest.raises(ContextError, match="cannot be fetched") as caught:
        fetch("http://127.0.0.1:1/x", io.BytesIO())
    assert caught.value.remedy
    for url in ("http://", "http://[", "http://a:b:c/", "ftp://127.0.0.1/x", "http://\x00/"):
        with pytest.raises(ContextError):
            fetch(url, io.BytesIO())


@pytest.mark.parametrize("proxy", ["nonsense://x", "http://a:b:c", "socks4://127.0.0.1:1"])
def test_proxies_that_cannot_be_used(server: str, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(ContextError, match="proxy settings") as caught:
        fetch(f"{server}/file.txt", io.BytesIO())
    assert (caught.value.place, "HTTP_PROXY" in (caught.value.remedy or "")) == (f"{server}/file.txt", True)


def test_the_authorities_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A company's own are among them, and not among those that come with httpx."""
    made = make_certificates(tmp_path)
    paths = ssl.get_default_verify_paths()._replace(openssl_cafile=str(made / "ca.crt"))
    with serving(Handler, made) as origin:
        url = f"{origin}/file.txt"
        with pytest.raises(ContextError, match="certificate"):
            fetch(url, io.BytesIO())
        assert fetch(url, io.BytesIO(), environ={"SSL_CERT_FILE": str(made / "ca.crt")}).size == len(BODY)
        monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
        assert fetch(url, io.BytesIO(), environ={}).size == len(BODY)


def test_a_full_disk_is_said(server: str) -> None:
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(ContextError, match="no space left"):
        fetch(f"{server}/file.txt", full)


@pytest.mark.parametrize(
    ("url", "disposition", "name"),
    [
        ("http://h/a/b.tgz", None, "b.tgz"),
        ("http://h/a/b%20c?q=/x", None, "b c"),
        ("http://h/dir/", None, "dir"),
        ("http://h/", None, "download"),
        ("http://h", None, "download"),
        ("http://h/..", None, "download"),
        ("http://h/%2e%2e%2fx", None, "x"),
        ("http://h/a%00b", None, "download"),
        ("http://h/x", 'attachment; filename="given"', "given"),
        ("http://h/x", "attachment; filename*=UTF-8''%c3%bc.txt", "ü.txt"),
        ("http://h/x", 'attachment; filename="/etc/passwd"', "passwd"),
        ("http://h/x", 'attachment; filename="dir/"', "x"),
        ("http://h/x", 'attachment; filename=".."', "download"),
        ("http://h/x", "attachment", "x"),
        ("http://h/x", "%%%", "x"),
    ],
)
def test_filename(url: str, disposition: str | None, name: str) -> None:
    assert filename(url, disposition) == name


def test_filename_of_add() -> None:
    urls = ["http://h/a/b", "http://h/a%20b", "http://h/a/", "http://h/", "http://h"]
    assert [add_filename(url) for url in urls] == ["b", "a b", "a", "__unnamed__", "__unnamed__"]


def test_redacted() -> None:
    assert redacted("https://u:p@h:1/x") == "https://xxxxx@h:1/x"
    assert redacted("https://u:p@ss@h:1/x@y") == "https://xxxxx@h:1/x@y"
    assert redacted("https://u:p/ss@h:1/x") == "https://xxxxx@h:1/x"  # no port, so a password that is not quoted
    assert redacted("https://u:p#s?s@h/x") == "https://xxxxx@h/x"
    assert redacted("https://[u:p@h/x") == "https://xxxxx@h/x"
    assert redacted("https://h/x@y") == "https://h/x@y"
    assert redacted("https://h:1/x@y") == "https://h:1/x@y"
    assert redacted("git@h:x") == "git@h:x"
