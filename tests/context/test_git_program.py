"""Repositories for whom a header is sent, on servers that speak git's smart protocol and redirect, on loopback."""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from builder.context.git import checkout, parse_git_url, resolve
from builder.context.git_program import Git, GitFailed, _landing
from builder.errors import ContextError
from tests.context.test_git import git
from tests.support.certificates import make_certificates
from tests.support.http import serving

HEADER = "basic eC1hY2Nlc3MtdG9rZW46czNjcjN0"


class Smart(http.server.BaseHTTPRequestHandler):
    """Serves the repositories of a directory. `/moved/X` is at `/X`, `/away/X` at the other server, `/loop` nowhere;
    `/private/X` is X for who sends the header. `seen` are the paths and what was sent with them."""

    def __init__(self, *arguments: object, root: Path, seen: list[tuple[str, str | None]], other: list[str]) -> None:
        self.root, self.seen, self.other = root, seen, other
        super().__init__(*arguments)  # type: ignore[arg-type]

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        first, path = self.path[1:].partition("/")[::2]
        self.seen.append((self.path, self.headers.get("Authorization")))
        if first in ("moved", "away", "loop"):
            self.send_response(302)
            target = {"moved": f"/{path}", "loop": self.path}.get(first) or f"{self.other[0]}/{path}"
            self.send_header("Location", target)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif first == "private" and self.headers.get("Authorization") != HEADER:
            self.send_error(404)
        else:
            self.serve(f"/{path}" if first == "private" else self.path)

    do_POST = do_GET

    def serve(self, address: str) -> None:
        path, _, query = address.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        environment = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command, "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
        }  # fmt: skip
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=False)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in (headers | {"Content-Length": str(len(answer))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)


class Server(NamedTuple):
    url: str
    seen: list[tuple[str, str | None]]

    def sent(self) -> set[str | None]:
        return {header for _, header in self.seen}


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def servers(tmp_path: Path, held: ExitStack) -> tuple[Server, Server]:
    """Two that redirect to one another. They serve `repo.git`, and `modules.git`, which has a submodule at
    `/moved/repo.git` of the first and another at `/away/repo.git`."""
    root, work = tmp_path / "served", tmp_path / "work"
    root.mkdir()
    work.mkdir()
    (work / "f").write_text("f")
    git(work, "init", "--quiet", "-b", "main")
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", "one")
    git(root, "clone", "--quiet", "--bare", str(work), str(root / "repo.git"))
    made, others = [], []
    for _ in range(2):
        seen: list[tuple[str, str | None]] = []
        other: list[str] = []
        handler = functools.partial(Smart, root=root, seen=seen, other=other)
        made.append(Server(held.enter_context(serving(handler)), seen))
        others.append(other)
    one, two = made
    others[0].append(two.url)
    others[1].append(one.url)
    tip = git(work, "rev-parse", "HEAD")
    texts = [
        f'[submodule "{name}"]\n\tpath = {name}\n\turl = {one.url}/{name}/repo.git\n' for name in ("moved", "away")
    ]
    (work / ".gitmodules").write_text("".join(texts))
    for name in ("moved", "away"):
        git(work, "update-index", "--add", "--cacheinfo", f"160000,{tip},{name}")
    git(work, "add", ".gitmodules")
    git(work, "commit", "--quiet", "-m", "submodules")
    git(root, "clone", "--quiet", "--bare", str(work), str(root / "modules.git"))
    return one, two


def taken(url: str, into: Path, authorization: str | None = HEADER) -> list[str]:
    """The files of the repository, resolved and then checked out, as ADD does it."""
    ref = parse_git_url(url)
    assert ref is not None
    into.mkdir()
    checkout(ref, str(into), resolved=resolve(ref, authorization=authorization), authorization=authorization)
    return sorted(str(path.relative_to(into)) for path in into.rglob("*") if path.is_file())


def test_the_header_reaches_its_host(servers: tuple[Server, Server], tmp_path: Path) -> None:
    one, _ = servers
    assert taken(f"{one.url}/private/repo.git", tmp_path / "c") == ["f"]
    assert one.sent() == {HEADER}
    with pytest.raises(ContextError, match="cannot be read"):
        taken(f"{one.url}/private/repo.git", tmp_path / "d", None)


@pytest.mark.parametrize("path", ["moved", "moved/moved", "moved/private"])
def test_a_redirect_on_the_host_is_followed_with_the_header(
    servers: tuple[Server, Server], tmp_path: Path, path: str
) -> None:
    one, _ = servers
    assert taken(f"{one.url}/{path}/repo.git", tmp_path / "c") == ["f"]
    assert one.sent() == {HEADER}


@pytest.mark.parametrize("path", ["away", "moved/away"])
def test_a_redirect_to_another_host_is_followed_without_it(
    servers: tuple[Server, Server], tmp_path: Path, path: str
) -> None:
    """git itself would send it along: it asks the other host what follows, with the header of the first."""
    one, two = servers
    assert taken(f"{one.url}/{path}/repo.git", tmp_path / "c") == ["f"]
    assert two.sent() == {None}
    with pytest.raises(ContextError, match="cannot be read"):
        taken(f"{one.url}/{path}/private/repo.git", tmp_path / "d")
    assert two.sent() == {None}


def test_submodules_that_are_redirected(servers: tuple[Server, Server], tmp_path: Path) -> None:
    one, two = servers
    assert taken(f"{one.url}/modules.git", tmp_path / "c") == [".gitmodules", "away/f", "f", "moved/f"]
    assert two.sent() == {None}


def test_what_a_server_says_is_no_redirect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """git passes on what a server writes: it could name a host that shall not get the header."""
    ref = parse_git_url("http://127.0.0.1:1/repo.git")
    assert ref is not None
    message = "remote: unable to access 'http://127.0.0.1:2/x/': The requested URL returned error: 302"

    def fail(*_: object) -> str:
        raise GitFailed(message)

    program = Git(ref, None, HEADER, "")
    monkeypatch.setattr(Git, "_run", fail)
    monkeypatch.setattr("builder.context.git_program._landing", lambda *_: pytest.fail("asked"))
    with pytest.raises(GitFailed):
        program.run("fetch")


def test_redirects_without_an_end(servers: tuple[Server, Server], tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="cannot be read") as caught:
        taken(f"{servers[0].url}/loop/repo.git", tmp_path / "c")
    assert HEADER not in f"{caught.value} {caught.value.details}"


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    (tmp_path / "certificates").mkdir()
    made = make_certificates(tmp_path / "certificates")
    (made / "authorities").mkdir()
    (made / "authorities/ca.crt").write_bytes((made / "ca.crt").read_bytes())
    subprocess.run(["openssl", "rehash", str(made / "authorities")], check=True, capture_output=True)
    return made


@pytest.mark.parametrize(("variable", "path"), [("GIT_SSL_CAINFO", "ca.crt"), ("GIT_SSL_CAPATH", "authorities")])
def test_a_redirect_is_asked_for_with_the_authorities_of_git(
    servers: tuple[Server, Server],
    certificates: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    path: str,
) -> None:
    seen: list[tuple[str, str | None]] = []
    handler = functools.partial(Smart, root=tmp_path / "served", seen=seen, other=[servers[0].url])
    monkeypatch.setenv(variable, str(certificates / path))
    with serving(handler, certificates) as url:
        assert taken(f"{url}/moved/repo.git", tmp_path / "c") == ["f"]
    assert {header for _, header in seen} == {HEADER}


def test_a_redirect_is_asked_for_by_the_rules_for_proxies(servers: tuple[Server, Server]) -> None:
    """This machine itself never through one: it would see the header."""
    environ = {"HTTP_PROXY": servers[1].url, "http_proxy": servers[1].url}
    url = servers[0].url
    assert _landing(f"{url}/moved/repo.git", HEADER, environ) == f"{url}/repo.git"
    assert servers[1].seen == []
    far = "http://192.0.2.1/moved/repo.git"
    assert _landing(far, HEADER, environ) != ""
    assert [header for _, header in servers[1].seen] == [HEADER]


def test_what_git_gets_of_a_given_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/mine")
    ref = parse_git_url("https://host.example/a.git")
    assert ref is not None
    given = {"SSH_AUTH_SOCK": "/given", "SSL_CERT_FILE": "/ca", "https_proxy": "http://p", "OTHER": "x"}
    found = Git(ref, None, None, "", environ=given)._environment
    assert found.items() >= (given.items() - {("OTHER", "x")})
    assert "OTHER" not in found
    assert found["PATH"] == os.environ["PATH"]
    assert "SSH_AUTH_SOCK" not in Git(ref, None, None, "", environ={})._environment
    assert Git(ref, None, None, "")._environment["SSH_AUTH_SOCK"] == "/mine"


def test_a_redirect_that_a_proxy_keeps_from_being_asked_for(
    servers: tuple[Server, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """git may know proxies that we do not."""
    monkeypatch.setenv("ALL_PROXY", "nonsense://x")
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # which git reads
    with pytest.raises(ContextError, match="proxy settings") as caught:
        taken(f"{servers[0].url}/moved/repo.git", tmp_path / "c")
    assert caught.value.place == f"{servers[0].url}/moved/repo.git"
