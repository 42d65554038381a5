"""Sources that a server gives only to who sends the right header: contexts, Dockerfiles and what ADD fetches."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.test_remote_contexts import archive, git, kept, needs_git
from tests.support.builds import Cli, context
from tests.support.http import serving

TOKEN = "hunter2hunter2"
BASIC = "basic " + b64encode(f"x-access-token:{TOKEN}".encode()).decode()


class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None: ...

    def do_GET(self) -> None:
        if self.headers.get("Authorization") in (f"Bearer {TOKEN}", BASIC):
            super().do_GET()
        else:
            self.send_error(401, f"who sends {self.headers.get('Authorization')}?")


class Server(NamedTuple):
    url: str
    root: Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Serves an archive, a Dockerfile, a file and, where there is git, a repository."""
    root = tmp_path / "served"
    root.mkdir()
    archive(root / "c.tar.gz", Dockerfile="FROM scratch\nCOPY f /\n", f="f")
    (root / "Dockerfile").write_text("FROM scratch\nCOPY f /\n")
    (root / "f").write_text("f")
    if shutil.which("git"):
        work = context(tmp_path / "work", "FROM scratch\nCOPY f /\n", f="f")
        git(work, "init", "--quiet", "--initial-branch=main")
        git(work, "add", ".")
        git(work, "commit", "--quiet", "--message=one")
        git(work, "clone", "--quiet", "--bare", ".", str(root / "r.git"))
        git(root / "r.git", "update-server-info")
    with serving(functools.partial(Files, directory=str(root))) as url:
        yield Server(url, root)


SOURCES = {
    "a main context": ("{url}/c.tar.gz",),
    "a Dockerfile": ("-f", "{url}/Dockerfile", "{directory}"),
    "a named context": ("--build-context", "other={url}/f", "{directory}", "COPY --from=other context /f"),
    "a file": ("{directory}", "ADD {url}/f /"),
}
REPOSITORIES = {
    "a main context": ("{url}/r.git",),
    "a named context": ("--build-context", "other={url}/r.git#main", "{directory}", "COPY --from=other f /"),
    "a copy": ("{directory}", "ADD {url}/r.git /"),
}


@pytest.mark.parametrize("name", [*SOURCES, *(pytest.param(f"git: {name}", marks=needs_git) for name in REPOSITORIES)])
def test_secrets_open_the_source(cli: Cli, server: Server, tmp_path: Path, name: str) -> None:
    """They are kept and shown nowhere, not even if the server says what it was sent."""
    source = REPOSITORIES[name.removeprefix("git: ")] if name.startswith("git: ") else SOURCES[name]
    secret = "GIT_AUTH_TOKEN" if name.startswith("git: ") else "HTTP_AUTH_TOKEN_127.0.0.1"
    instruction = source[-1] if source[-1].startswith(("COPY", "ADD")) else "COPY f /"
    directory = context(tmp_path / "context", f"FROM scratch\n{instruction.format(url=server.url)}\n", f="f")
    words = [word.format(url=server.url, directory=directory) for word in source if word != instruction]
    given = ("--secret", f"id={secret},env=TOKEN")
    told = ("--report", tmp_path / "page.html", "--trace", tmp_path / "trace.json")
    done = cli("--debug", "build", "-t", "x", *told, *given, *words, environ={"TOKEN": TOKEN})
    assert done.status == 0, done.err
    assert "f" in cli.files("x")
    again = cli.build("--provenance=mode=max", *given, *words, environ={"TOKEN": TOKEN})
    assert again.cached() == 1
    refused = [cli("build", *words), cli("build", *given, *words, environ={"TOKEN": TOKEN[::-1]})]
    assert [one.status for one in refused] == [1, 1]
    texts = b"\0".join([kept(cli.root, tmp_path / "page.html", tmp_path / "trace.json"), *(
        one.out + one.err.encode() for one in (done, again, *refused))])  # fmt: skip
    for word in (TOKEN, TOKEN[::-1]):
        assert word.encode() not in texts
        assert b64encode(f"x-access-token:{word}".encode()) not in texts


def test_a_secret_that_can_be_read_but_once(cli: Cli, server: Server, tmp_path: Path) -> None:
    archive(server.root / "c.tar.gz", Dockerfile=f"FROM scratch\nADD {server.url}/f /\n")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writing = threading.Thread(target=fifo.write_text, args=(TOKEN,), daemon=True)
    writing.start()
    done = cli("build", "-t", "x", "--secret", f"id=HTTP_AUTH_TOKEN_127.0.0.1,src={fifo}", f"{server.url}/c.tar.gz")
    writing.join()
    assert done.status == 0, done.err
    assert set(cli.files("x")) == {"f"}


def test_a_step_that_failed_has_them_again(cli: Cli, server: Server, tmp_path: Path) -> None:
    """A kept step's contexts are fetched again as they were."""
    archive(server.root / "c.tar.gz", Dockerfile="FROM scratch\nCOPY new /\n")
    given = ("--secret", "id=HTTP_AUTH_TOKEN_127.0.0.1,env=TOKEN")
    assert cli("build", "--on-error=keep", *given, f"{server.url}/c.tar.gz", environ={"TOKEN": TOKEN}).status == 1
    archive(server.root / "c.tar.gz", Dockerfile="FROM scratch\nCOPY new /\n", new="1")
    again = cli("debug", "--rerun", environ={"TOKEN": TOKEN})
    assert again.out == b"A /new\n", again.err
    assert TOKEN.encode() not in kept(cli.root)
    refused = cli("--debug", "debug", "--rerun", environ={"TOKEN": TOKEN[::-1]})
    assert (refused.status, "who sends Bearer ***?" in refused.err) == (1, True)
    assert TOKEN[::-1] not in refused.err


def test_a_secret_that_cannot_be_read(cli: Cli, server: Server) -> None:
    done = cli("build", "--secret", "id=HTTP_AUTH_TOKEN_127.0.0.1,env=NOT_SET", f"{server.url}/c.tar.gz")
    assert done.status == 1
    assert "error: secret 'HTTP_AUTH_TOKEN_127.0.0.1': the variable NOT_SET is not set" in done.err
