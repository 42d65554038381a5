"""Contexts and ADD sources on a server: archives, lone Dockerfiles, git repositories; all on loopback."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.builds import Cli, context
from tests.support.http import serving

PASSWORD = "s3cr3tok"
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


class Files(http.server.SimpleHTTPRequestHandler):
    """Files of a directory, with an ETag; `requests` are path, If-None-Match and the status of the answer."""

    requests: list[tuple[str, str | None, int]]

    def __init__(self, *arguments: Any, requests: list[tuple[str, str | None, int]], **options: Any) -> None:
        self.requests = requests
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        self.etag = f'"{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"' if path.is_file() else None
        if self.etag is not None and self.headers.get("If-None-Match") == self.etag:
            self.send_response(304)
            self.end_headers()
        else:
            super().do_GET()

    def end_headers(self) -> None:
        if self.etag is not None:
            self.send_header("ETag", self.etag)
        super().end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        self.requests.append((self.path, self.headers.get("If-None-Match"), int(code)))

    def log_error(self, format: str, *arguments: object) -> None: ...


class Server(NamedTuple):
    """Where it is, which directory it serves, and what it was asked."""

    url: str
    root: Path
    requests: list[tuple[str, str | None, int]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    root = tmp_path / "served"
    root.mkdir()
    requests: list[tuple[str, str | None, int]] = []
    handler = functools.partial(Files, directory=str(root), requests=requests)
    with serving(handler) as url:
        yield Server(url, root, requests)


def archive(path: Path, **files: str) -> None:
    """A compressed archive of files by name (`__` for a slash)."""
    with tarfile.open(path, "w:gz") as made:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(content)
            made.addfile(info, io.BytesIO(content.encode()))


def git(directory: Path, *arguments: str) -> str:
    environ = {"PATH": os.environ["PATH"], "HOME": str(directory), "GIT_CONFIG_NOSYSTEM": "1"}
    for who in ("AUTHOR", "COMMITTER"):
        environ |= {f"GIT_{who}_NAME": "t", f"GIT_{who}_EMAIL": "t@example.com"}
    done = subprocess.run(["git", *arguments], cwd=directory, env=environ, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def commit(server: Server, tmp_path: Path) -> str:
    """Serves `repo.git`, whose branch main has a Dockerfile at the top and another in `sub`; returns its commit."""
    work = context(
        tmp_path / "work",
        "FROM scratch\nCOPY . /top/\n",
        sub__Dockerfile="FROM scratch\nCOPY . /sub/\n",
        sub__Other="FROM scratch\nLABEL which=other\nCOPY file /\n",
        sub__file="of the branch",
    )
    git(work, "init", "--quiet", "--initial-branch=main")
    git(work, "add", ".")
    git(work, "commit", "--quiet", "--message=one")
    git(work, "clone", "--quiet", "--bare", ".", str(server.root / "repo.git"))
    git(server.root / "repo.git", "update-server-info")
    return git(work, "rev-parse", "HEAD")


# --- the main context


@pytest.mark.parametrize("arguments", [(), ("-f", "sub/Other")])
def test_an_archive(cli: Cli, server: Server, arguments: tuple[str, ...]) -> None:
    archive(
        server.root / "context.tar.gz",
        Dockerfile="FROM scratch\nCOPY . /\n",
        sub__Other="FROM scratch\nCOPY sub /\n",
        sub__f="f",
        **{".dockerignore": "Dockerfile\n"},
    )
    cli.build("-t", "x", *arguments, f"{server.url}/context.tar.gz")
    wanted = {"Other", "f"} if arguments else {".dockerignore", "Dockerfile", "sub", "sub/Other", "sub/f"}
    assert set(cli.files("x")) == wanted
    again = cli.build("-t", "x", *arguments, f"{server.url}/context.tar.gz")
    assert again.cached() == 1


def with_credentials(url: str) -> str:
    return url.replace("http://", f"http://user:{PASSWORD}@")


def kept(*places: Path) -> bytes:
    """All bytes below these directories and in these files."""
    files = [path for place in places for path in (place, *place.rglob("*")) if path.is_file()]
    return b"\0".join(path.read_bytes() for path in files)


def test_credentials_are_not_recorded(cli: Cli, server: Server, tmp_path: Path) -> None:
    archive(server.root / "context.tar.gz", Dockerfile="FROM scratch\nCOPY f /\n", f="f")
    page, trace = tmp_path / "page.html", tmp_path / "trace.json"
    told = ("--report", page, "--trace", trace)
    for name, status in (("context.tar.gz", 0), ("nothing.tar.gz", 1), ("nothing.git", 1)):
        done = cli("build", *told, with_credentials(f"{server.url}/{name}"))
        assert done.status == status, done.err
        shown = f"{server.url}/{name}".replace("://", "://xxxxx@")
        assert shown in cli("builds", "show").out.decode()
        assert cli("builds", "-n", "1", "--format", "{{.Context}}").out.decode() == f"{shown}\n"
        assert shown in page.read_text()
        assert PASSWORD not in done.err
        assert PASSWORD.encode() not in kept(cli.root, page, trace)


def test_a_dockerfile_at_a_url(cli: Cli, server: Server, tmp_path: Path) -> None:
    """Its credentials are shown and recorded nowhere, and its checks are done."""
    directory = context(tmp_path / "context", "FROM scratch\nCOPY nothing /\n", f="f")
    (server.root / "Other").write_text("FROM scratch as base\nCOPY f /there\n")
    url = with_credentials(f"{server.url}/Other")
    shown = f"{server.url}/Other".replace("://", "://xxxxx@")
    cli.build("-t", "x", "-f", url, directory)
    assert set(cli.files("x")) == {"there"}
    assert json.loads(cli("explain", "--format", "json").out)["dockerfile"] == shown
    checked = cli("build", "--check", "-f", url, directory)
    assert f"{shown}:1" in checked.out.decode()
    (server.root / "Other").write_text("FROM scratch\nCOPY nothing /\n")
    assert cli("build", "--on-error=keep", "-f", url, directory).status == 1
    again = cli("debug", "--rerun")
    assert "nothing" in again.err  # not found again
    (directory / "nothing").write_text("")
    assert cli("debug", "--rerun").out == b"A /nothing\n"
    assert PASSWORD.encode() not in kept(cli.root)
    for other in ("Missing", "Other"):
        done = cli("build", *(("--offline",) if other == "Other" else ()), "-f", url.replace("Other", other), directory)
        assert done.status == 1
        assert PASSWORD not in done.err


def test_credentials_do_not_make_another_project(cli: Cli, server: Server) -> None:
    url = f"{server.url}/context.tar.gz"
    archive(server.root / "context.tar.gz", Dockerfile="FROM scratch\nCOPY f /\n", f="1")
    cli.build(with_credentials(url))
    archive(server.root / "context.tar.gz", Dockerfile="FROM scratch\nCOPY f /\n", f="2")
    done = cli("plan", with_credentials(url).replace(PASSWORD, "another"))
    assert "because f changed" in done.out.decode()


def test_credentials_of_an_unknown_scheme_are_not_shown(cli: Cli) -> None:
    done = cli("build", f"ftp://user:{PASSWORD}@127.0.0.1/x.tar")
    assert done.status == 1
    assert "'ftp://xxxxx@127.0.0.1/x.tar'" in done.err
    assert PASSWORD.encode() not in kept(cli.root)


def test_a_dockerfile_alone(cli: Cli, server: Server) -> None:
    (server.root / "Dockerfile").write_text("FROM scratch\nCOPY <<END /f\ntext\nEND\nLABEL a=b\n")
    cli.build("-t", "x", f"{server.url}/Dockerfile")
    assert cli.files("x")["f"].content == b"text\n"
    (server.root / "Dockerfile").write_text("FROM scratch\nCOPY missing /\n")
    done = cli("build", f"{server.url}/Dockerfile")
    assert done.status == 1
    assert "error: Dockerfile:2: " in done.err


def test_a_context_that_is_not_there(cli: Cli, server: Server) -> None:
    done = cli("build", f"{server.url}/none.tar")
    assert done.status == 1
    assert f"error: {server.url}/none.tar: the server answers 404" in done.err


@needs_git
@pytest.mark.parametrize(
    ("fragment", "arguments", "files"),
    [
        ("", (), {"top/sub/file", "top/Dockerfile"}),
        ("#main", (), {"top/sub/file", "top/Dockerfile"}),
        ("#main:sub", (), {"sub/file", "sub/Dockerfile", "sub/Other"}),
        ("#:sub", ("-f", "Other"), {"file"}),
        ("#{commit}:sub", ("-f", "Other"), {"file"}),
        ("?branch=main&subdir=sub", (), {"sub/file"}),
    ],
)
def test_a_repository(
    cli: Cli, server: Server, commit: str, fragment: str, arguments: tuple[str, ...], files: set[str]
) -> None:
    cli.build("-t", "x", *arguments, f"{server.url}/repo.git{fragment.format(commit=commit)}")
    found = set(cli.files("x"))
    assert files <= found
    assert not any("/.git/" in path for path in found)


DATED = ("--build-arg", "SOURCE_DATE_EPOCH=context")


@needs_git
def test_the_time_of_a_repository(cli: Cli, server: Server, commit: str, tmp_path: Path) -> None:
    """As in BuildKit the time of the commit, which the files have as well if the build argument is given."""
    cli.build("-t", "x", *DATED, f"{server.url}/repo.git#{commit}")
    when = git(tmp_path / "work", "show", "--no-patch", "--format=%ct", commit)
    assert datetime.fromisoformat(cli.config("x")["created"]).timestamp() == int(when)
    later = ("--build-arg", f"SOURCE_DATE_EPOCH={int(when) + 9}")
    for arguments in (DATED, later):
        cli.build("-t", "x", *arguments, f"{server.url}/repo.git#{commit}")
        assert {int(entry.mtime) for path, entry in cli.files("x").items() if path != "top"} == {int(when)}


@pytest.mark.parametrize("name", ["context.tar.gz", "Dockerfile"])
def test_the_time_of_a_url(cli: Cli, server: Server, name: str) -> None:
    archive(server.root / "context.tar.gz", Dockerfile="FROM scratch\nLABEL a=b\n")
    (server.root / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    os.utime(server.root / name, (1000, 1000))
    cli.build("-t", "x", *DATED, f"{server.url}/{name}")
    assert cli.config("x")["created"] == "1970-01-01T00:16:40Z"


@needs_git
def test_a_repository_with_its_history(cli: Cli, server: Server, commit: str) -> None:
    cli.build("-t", "x", "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", f"{server.url}/repo.git")
    head = cli.files("x")["top/.git/HEAD"].content
    assert head is not None
    assert head.decode().strip() in (commit, "ref: refs/heads/main")


@needs_git
@pytest.mark.usefixtures("commit")
def test_a_repository_without_what_was_asked_for(cli: Cli, server: Server) -> None:
    for fragment, message in (
        ("#other", "the repository has no branch or tag 'other'"),
        ("#main:none", "the repository has no directory 'none'"),
    ):
        done = cli("build", f"{server.url}/repo.git{fragment}")
        assert done.status == 1
        assert message in done.err
    done = cli("build", "-f", "../../Dockerfile", f"{server.url}/repo.git#main:sub")
    assert done.status == 1
    assert "error: ../../Dockerfile: there is no such Dockerfile" in done.err


# --- named contexts


@needs_git
def test_named_contexts(cli: Cli, server: Server, commit: str, tmp_path: Path) -> None:
    archive(server.root / "a.tar.gz", f="of the archive")
    directory = context(
        tmp_path / "context", "FROM scratch\nCOPY --from=archived context /one\nCOPY --from=repository file /two\n"
    )
    arguments = (
        "--build-context", f"archived={server.url}/a.tar.gz",
        "--build-context", f"repository={server.url}/repo.git#{commit}:sub",
    )  # fmt: skip
    cli.build("-t", "x", *arguments, directory)
    files = cli.files("x")
    assert files["one"].content == (server.root / "a.tar.gz").read_bytes()
    assert files["two"].content == b"of the branch"
    assert cli.build("-t", "x", *arguments, directory).cached() == 2


# --- ADD


def added(cli: Cli, tmp_path: Path, instruction: str) -> tuple[int, str, int]:
    """Build with one ADD: the status, the log, and the number of cached steps."""
    done = cli(
        "build", "--progress", "plain", "-t", "x", context(tmp_path / "context", f"FROM scratch\n{instruction}\n")
    )
    return done.status, done.err, done.cached()


def test_add_asks_again_for_what_it_has(cli: Cli, server: Server, tmp_path: Path) -> None:
    instruction = f"ADD {server.url}/file.txt /dir/"
    (server.root / "file.txt").write_text("one")
    assert added(cli, tmp_path, instruction)[::2] == (0, 0)
    entry = cli.files("x")["dir/file.txt"]
    assert (entry.content, entry.mode) == (b"one", 0o600)
    assert int(entry.mtime) == int((server.root / "file.txt").stat().st_mtime)
    etag = f'"{hashlib.sha256(b"one").hexdigest()[:8]}"'
    server.requests.clear()
    assert added(cli, tmp_path, instruction)[::2] == (0, 1)
    assert server.requests == [("/file.txt", etag, 304)]
    server.requests.clear()
    (server.root / "file.txt").write_text("two")
    assert added(cli, tmp_path, instruction)[::2] == (0, 0)
    assert server.requests == [("/file.txt", etag, 200)]
    assert cli.files("x")["dir/file.txt"].content == b"two"


def test_add_with_a_checksum(cli: Cli, server: Server, tmp_path: Path) -> None:
    (server.root / "file.txt").write_text("one")
    right, wrong = (hashlib.sha256(data).hexdigest() for data in (b"one", b"two"))
    status, log, _ = added(cli, tmp_path, f"ADD --checksum=sha256:{wrong} {server.url}/file.txt /f")
    assert status == 1
    assert f"error: Dockerfile:2: {server.url}/file.txt has the checksum sha256:{right}, not sha256:{wrong}" in log
    assert added(cli, tmp_path, f"ADD --checksum=sha256:{right} {server.url}/file.txt /f")[0] == 0
    assert cli.files("x")["f"].content == b"one"


def test_a_cached_add_with_a_checksum_asks_nobody(cli: Cli, server: Server, tmp_path: Path) -> None:
    """As in BuildKit, whose key of it needs no request; nor does another server's file of that name."""
    (server.root / "file.txt").write_text("one")
    instruction = f"ADD --checksum=sha256:{hashlib.sha256(b'one').hexdigest()} {{}}/file.txt /f"
    assert added(cli, tmp_path, instruction.format(server.url))[::2] == (0, 0)
    server.requests.clear()
    assert added(cli, tmp_path, instruction.format(server.url))[::2] == (0, 1)
    assert server.requests == []
    other = instruction.format("http://127.0.0.1:9/other")
    assert added(cli, tmp_path, other)[::2] == (0, 1)
    done = cli("build", "--offline", context(tmp_path / "context", f"FROM scratch\n{other}\n"))
    assert (done.status, done.cached()) == (0, 1)


def test_an_add_with_a_checksum_that_is_not_here(cli: Cli, server: Server, tmp_path: Path) -> None:
    (server.root / "file.txt").write_text("one")
    line = f"ADD --checksum=sha256:{hashlib.sha256(b'one').hexdigest()} {server.url}/file.txt /f"
    done = cli("build", "--offline", context(tmp_path / "context", f"FROM scratch\n{line}\n"))
    assert done.status == 1
    assert f"error: Dockerfile:2: {server.url}/file.txt was not fetched before; the build is offline" in done.err
    assert server.requests == []


def test_credentials_are_not_in_a_wrong_checksum(cli: Cli, server: Server, tmp_path: Path) -> None:
    """Neither shown nor recorded; the instruction itself only says `$TOKEN`."""
    (server.root / "file.txt").write_text("one")
    url = f"{server.url}/file.txt".replace("://", "://user:$TOKEN@")
    built = context(tmp_path / "context", f"FROM scratch\nARG TOKEN\nADD --checksum=sha256:{'0' * 64} {url} /f\n")
    done = cli("build", "--build-arg", f"TOKEN={PASSWORD}", built)
    assert done.status == 1
    assert f"{server.url}/file.txt has the checksum".replace("://", "://xxxxx@") in done.err
    assert PASSWORD not in done.err
    assert PASSWORD.encode() not in kept(cli.root)


def test_add_unpacks_on_request(cli: Cli, server: Server, tmp_path: Path) -> None:
    archive(server.root / "a.tar.gz", d__f="f")
    assert added(cli, tmp_path, f"ADD {server.url}/a.tar.gz /packed/")[0] == 0
    assert "packed/a.tar.gz" in cli.files("x")
    assert added(cli, tmp_path, f"ADD --unpack {server.url}/a.tar.gz /unpacked/")[0] == 0
    assert cli.files("x")["unpacked/d/f"].content == b"f"


@needs_git
def test_add_a_repository(cli: Cli, server: Server, commit: str, tmp_path: Path) -> None:
    url = f"{server.url}/repo.git"
    assert added(cli, tmp_path, f"ADD {url}#main:sub /r/")[::2] == (0, 0)
    assert set(cli.files("x")) == {"r", "r/Dockerfile", "r/Other", "r/file"}
    assert added(cli, tmp_path, f"ADD {url}#main:sub /r/")[::2] == (0, 1)
    assert added(cli, tmp_path, f"ADD --keep-git-dir {url}#main /r/")[0] == 0
    assert "r/.git/HEAD" in cli.files("x")
    assert added(cli, tmp_path, f"ADD --checksum={commit} {url}#main /r/")[0] == 0
    assert "r/.git" not in cli.files("x")
    status, log, _ = added(cli, tmp_path, f"ADD --checksum={'0' * 40} {url}#main /r/")
    assert status == 1
    assert f"main is commit {commit}, not {'0' * 40}" in log


# --- policies


def policy(directory: Path, action: str, what: str, **updates: Any) -> dict[str, str]:
    rule = {"action": action, "selector": {"identifier": what}, "updates": updates}
    (directory / "policy.json").write_text(json.dumps({"rules": [rule]}))
    return {"EXPERIMENTAL_BUILDKIT_SOURCE_POLICY": str(directory / "policy.json")}


def test_urls_that_a_policy_denies_or_converts(cli: Cli, server: Server, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (server.root / name).write_text(name)
    url, right = f"{server.url}/a", f"sha256:{hashlib.sha256(b'a').hexdigest()}"
    directory = context(tmp_path / "add", f"FROM scratch\nADD {url} /\n")
    other = context(tmp_path / "named", "FROM scratch\nCOPY --from=named context /\n")
    for arguments, place in (((directory,), "Dockerfile:2: "), (("--build-context", f"named={url}", other), "")):
        done = cli("build", *arguments, environ=policy(tmp_path, "DENY", f"{server.url}/*"))
        assert f"{place}the source policy denies {url}" in done.err
        wrong = right.replace("c", "d")
        done = cli("build", *arguments, environ=policy(tmp_path, "CONVERT", url, attrs={"http.checksum": wrong}))
        assert wrong in done.err
        assert done.status == 1
        cli.build(*arguments, environ=policy(tmp_path, "CONVERT", url, attrs={"http.checksum": right}))
        cli.build("-t", "x", *arguments, environ=policy(tmp_path, "CONVERT", url, identifier=f"{server.url}/b"))
        assert [entry.content for entry in cli.files("x").values()] == [b"b"]
    assert set(cli.files("x")) == {"context"}
    cli.build("-t", "x", directory, environ=policy(tmp_path, "CONVERT", url, identifier=f"{server.url}/b"))
    assert set(cli.files("x")) == {"a"}  # BuildKit's frontend names it before


@needs_git
def test_repositories_that_a_policy_denies_or_converts(cli: Cli, server: Server, commit: str, tmp_path: Path) -> None:
    url = f"{server.url}/repo.git"
    identifier = url.replace("http://", "git://")
    add = context(tmp_path / "add", f"FROM scratch\nADD {url}#main /\n")
    for arguments in ((add,), (f"{url}#main",)):
        done = cli("build", *arguments, environ=policy(tmp_path, "DENY", f"{identifier}*"))
        assert f"the source policy denies {identifier}#main" in done.err
        environ = policy(tmp_path, "CONVERT", f"{identifier}#main", identifier=f"{identifier}#main:sub")
        cli.build("-t", "x", *arguments, environ=environ)
        assert {"file", "sub/file"} & set(cli.files("x"))
        environ = policy(tmp_path, "CONVERT", f"{identifier}#main", attrs={"git.checksum": "0" * 40})
        assert cli("build", *arguments, environ=environ).status == 1
        environ = policy(tmp_path, "CONVERT", f"{identifier}#main", attrs={"git.checksum": commit})
        cli.build(*arguments, environ=environ)
