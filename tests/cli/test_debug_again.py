"""`debug --rerun`: a failed step done again knows what its build knew, its secrets, its keys and its contexts."""

from __future__ import annotations

import functools
import http.server
import io
import os
import shutil
import subprocess
import tarfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from builder.store.failed import FailedStates
from builder.store.store import Store
from tests.support.builds import BASE, Cli, busybox_context, needs_sandbox
from tests.support.http import serving

TOKEN = "tok-3n.of-some~length"
SECRET = ("--secret", "id=token,env=TOKEN")
MOUNT = "RUN --mount=type=secret,id=token,env=T "


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "store", TOKEN=TOKEN)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return busybox_context(tmp_path / "context")


def fail(cli: Cli, dockerfile: str, directory: Path, *options: str) -> str:
    (directory / "Dockerfile").write_text(dockerfile)
    done = cli("build", "--progress=plain", "--on-error=keep", *options, directory)
    assert done.status == 1, done.err
    assert "the step is kept: 'builder debug " in done.err
    return done.err


# --- secrets


def test_an_ssh_key_is_looked_for(cli: Cli, directory: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    if subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], capture_output=True).returncode:
        pytest.skip("ssh-keygen is missing")
    shutil.copy(key, directory / "leak")
    said = f"the value of the SSH key {key} would be in the image: the content of /leak"
    assert said in fail(cli, "FROM scratch\nCOPY leak /\n", directory, "--ssh", f"default={key}")
    again = cli("debug", "--rerun")
    assert (again.status, again.out) == (1, b"")
    assert said in again.err


@needs_sandbox
@pytest.mark.parametrize("stream", [1, 2])
def test_a_command_that_prints_a_secret(cli: Cli, directory: Path, stream: int) -> None:
    dockerfile = f"{BASE}{MOUNT}echo a $T b >&{stream}; echo unfinished $T tok-3n\n"
    said = f"the value of secret 'token' to its standard {'output' if stream == 1 else 'error'}"
    assert said in fail(cli, dockerfile, directory, *SECRET)
    again = cli("debug", "--rerun")
    assert again.status == 1
    assert TOKEN not in again.out.decode() + again.err
    shown = again.out.decode().splitlines(), again.err.splitlines()
    assert "a *** b" in shown[stream - 1]
    assert "unfinished *** tok-3n" in shown[0]
    assert "error: the command printed the value of secret 'token' to its standard " in again.err
    assert said in again.err
    (cli.root.parent / "builder.toml").write_text('[secrets]\nprinted = "mask"\n')  # as a build takes it
    again = cli("debug", "--rerun")
    assert again.status == 0
    assert TOKEN not in again.out.decode() + again.err
    (warning,) = [line for line in again.err.splitlines() if line.startswith("WARNING: [base 2/2] RUN")]
    assert said in warning
    assert warning.endswith("; the log is masked")
    assert cli.leftovers() == []


@needs_sandbox
def test_a_command_that_fails_and_prints_a_secret(cli: Cli, directory: Path) -> None:
    fail(cli, f"{BASE}{MOUNT}echo $T; exit 7\n", directory, *SECRET)
    again = cli("debug", "--rerun")
    assert (again.status, again.out) == (7, b"***\n")
    assert again.err == "WARNING: the command printed the value of secret 'token', which is masked\n"


@needs_sandbox
def test_a_secret_that_the_step_does_not_mount(cli: Cli, directory: Path) -> None:
    """It may know it from elsewhere: a cache mount here."""
    keep = MOUNT.replace("RUN", "RUN --mount=type=cache,target=/c")
    dockerfile = f"{BASE}{keep}echo $T > /c/t\nRUN --mount=type=cache,target=/c cat /c/t; exit 7\n"
    fail(cli, dockerfile, directory, *SECRET)
    again = cli("debug", "--rerun")
    assert (again.status, again.out) == (7, b"***\n")


@needs_sandbox
def test_a_secret_that_a_command_writes_down(cli: Cli, directory: Path) -> None:
    fail(cli, f"{BASE}{MOUNT}echo $T > /note\n", directory, *SECRET, "--break", ":4")
    again = cli("debug", "--rerun")
    assert again.status == 1
    assert "error: the value of secret 'token' would be in the image: the content of /note" in again.err


@needs_sandbox
def test_a_command_in_a_chroot(cli: Cli, directory: Path) -> None:
    """There is no shell to stand in, but the command can be run again."""
    dockerfile = (
        f"{BASE}RUN --mount=type=bind,source=f,target=/f cat /f; echo b >&2; echo more >> /note; cat /note; exit 4\n"
    )
    (directory / "f").write_text("a\n")
    fail(cli, dockerfile, directory, "--isolation=chroot")
    for _ in range(2):  # what it writes is thrown away
        again = cli("debug", "--rerun")
        assert (again.status, again.out, again.err) == (4, b"a\nmore\nmore\n", "b\n")
    assert cli.leftovers() == []


# --- contexts


class Files(http.server.SimpleHTTPRequestHandler):
    """Files of a directory; for those in `private/` one has to be me:s3same."""

    def do_GET(self) -> None:
        wanted = "Basic " + b64encode(b"me:s3same").decode()
        if self.path.startswith("/private/") and self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, format: str, *arguments: object) -> None: ...


class Server(NamedTuple):
    host: str
    root: Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    root = tmp_path / "served"
    (root / "private").mkdir(parents=True)
    with serving(functools.partial(Files, directory=str(root))) as url:
        yield Server(url.removeprefix("http://"), root)


def archive(path: Path, **files: bytes) -> None:
    with tarfile.open(path, "w") as made:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize("kept", [True, False])
def test_a_repository_with_its_history(cli: Cli, server: Server, tmp_path: Path, kept: bool) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "Dockerfile").write_text("FROM scratch\nCOPY .git/HEAD /\n")
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    who = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    for where, arguments in (
        (work, ("init", "-q")),
        (work, ("add", ".")),
        (work, (*who, "commit", "-qm", "one")),
        (work, ("clone", "-q", "--bare", ".", str(server.root / "r.git"))),
        (server.root / "r.git", ("update-server-info",)),
    ):
        subprocess.run(["git", *arguments], cwd=where, env=environ, check=True, capture_output=True)
    argument = f"BUILDKIT_CONTEXT_KEEP_GIT_DIR={int(kept)}"
    url = f"http://{server.host}/r.git"
    assert cli("build", "--build-arg", argument, "--on-error=keep", "--break", "1", url).status == 1
    again = cli("debug", "--rerun")
    if kept:
        assert (again.status, again.out) == (0, b"A /HEAD\n"), again.err
    else:
        assert (again.status, "/.git/HEAD was not found" in again.err) == (1, True)


def no_credentials(cli: Cli) -> bool:
    files = [path for path in (cli.root / "failed").rglob("*") if path.is_file()]
    assert files
    return not any(word in path.read_bytes() for path in files for word in (b"s3same", b"me:"))


@pytest.mark.parametrize("credentials", ["me:s3same@", ""])
def test_an_address_with_credentials(cli: Cli, server: Server, credentials: str) -> None:
    """They are not kept: the step cannot be done again, and says so. Without any it is fetched again."""
    place = "private/c.tar" if credentials else "c.tar"
    archive(server.root / place, Dockerfile=b"FROM scratch\nCOPY Dockerfile /first\nCOPY new /\n")
    assert cli("build", "--on-error=keep", f"http://{credentials}{server.host}/{place}").status == 1
    archive(server.root / place, Dockerfile=b"FROM scratch\nCOPY Dockerfile /first\nCOPY new /\n", new=b"1")
    assert no_credentials(cli)
    again = cli("debug", "--rerun")
    if credentials:
        assert (again.status, again.out) == (1, b"")
        assert again.err == (
            f"error: http://xxxxx@{server.host}/private/c.tar: the context was fetched with a user or password, which"
            " is not kept\nhelp: build again, with it\n"
        )
    else:
        assert (again.status, again.out) == (0, b"A /new\n"), again.err
    assert cli("debug", "--ls", "/").out.endswith(b" first\n")


def test_a_named_context_with_credentials(cli: Cli, server: Server, directory: Path) -> None:
    archive(server.root / "private/c.tar", f=b"1")
    named = ("--build-context", f"Other=http://me:s3same@{server.host}/private/c.tar")
    fail(cli, "FROM scratch\nCOPY --from=Other missing /\n", directory, *named)
    assert no_credentials(cli)
    again = cli("debug", "--rerun")
    assert (again.status, "help: build again, with it" in again.err) == (1, True)
    fail(cli, "FROM scratch\nCOPY --from=Other context /\nCOPY missing /\n", directory, *named)
    (directory / "missing").write_text("")
    assert cli("debug", "--rerun").out == b"A /missing\n"  # the other context is not needed


@needs_sandbox
def test_a_command_does_not_need_them(cli: Cli, server: Server, directory: Path) -> None:
    with tarfile.open(server.root / "private/c.tar", "w") as made:
        (directory / "Dockerfile").write_text(BASE + "RUN echo here; exit 3\n")
        made.add(directory, ".")
    assert cli("build", "--on-error=keep", f"http://me:s3same@{server.host}/private/c.tar").status == 1
    assert no_credentials(cli)
    again = cli("debug", "--rerun")
    assert (again.status, again.out) == (3, b"here\n"), again.err


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("https://token@example.com/x.git#main", "https://xxxxx@example.com/x.git#main"),
        ("https://me:s3same@example.com/x.tar", "https://xxxxx@example.com/x.tar"),
        ("ssh://git:s3same@example.com/x", "ssh://xxxxx@example.com/x"),
        ("ssh://git@example.com/x", "ssh://git@example.com/x"),
        ("git@example.com:x", "git@example.com:x"),
        ("https://example.com/x.tar?a=b@c", "https://example.com/x.tar?a=b@c"),
        (f"docker-image://alpine:3@sha256:{'0' * 64}", f"docker-image://alpine:3@sha256:{'0' * 64}"),
        ("https://me:s3same@[example/x.tar", "https://xxxxx@[example/x.tar"),
        ("https://me:s3/same@example.com/x.tar", "https://xxxxx@example.com/x.tar"),
    ],
)
def test_what_credentials_are(cli: Cli, directory: Path, address: str, kept: str) -> None:
    """A user is none where the key makes the difference, as with ssh."""
    fail(cli, "FROM scratch\nCOPY missing /\n", directory, "--build-context", f"other={address}")
    store = Store(str(cli.root))
    with FailedStates(store.root, store.temporary).hold() as (_, data, _):
        step = msgspec.msgpack.decode(data)
    assert step["contexts"] == {"other": kept}
    assert step["withheld"] == ([] if kept == address else [kept])


# --- the work that it takes


def test_nothing_is_compressed(cli: Cli, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layer is thrown away."""
    fail(cli, "FROM scratch\nCOPY missing /\n", directory)
    (directory / "missing").write_text("")
    from builder.filesystem import compress
    from builder.filesystem.encoders import encoder

    asked: list[str] = []

    def observed(kind: str, level: int | None) -> object:
        asked.append(kind)
        return encoder(kind, level)

    monkeypatch.setattr(compress, "encoder", observed)
    assert cli("debug", "--rerun").out == b"A /missing\n"
    assert asked == ["uncompressed"]
