"""`build --offline`: no socket is opened, everything that is missing is told at once, and what is here is used."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.cli.test_remote_contexts import Server, commit, needs_git, server
from tests.support.builds import BASE, Cli, Done, busybox_context, context, needs_sandbox
from tests.support.registry import FakeRegistry

__all__ = ["commit", "server"]  # fixtures

WATCHED = """\
import sys

def watch(event, arguments):
    if event == "socket.__new__" and arguments[1] in (2, 10):
        raise PermissionError(f"a socket of family {arguments[1]} was opened")
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        raise PermissionError(f"{event}{arguments[1:]}")
    if event == "subprocess.Popen" and "git" in str(arguments[0]):
        raise PermissionError("git was started")

sys.addaudithook(watch)
from builder.cli.program import main
main()
"""
"""The program, in which everything fails that could reach another machine."""


def watched(cli: Cli, *arguments: str | os.PathLike[str]) -> Done:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *cli.arguments(*arguments)], env=cli.environ, capture_output=True, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr.decode())


def layer(**files: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content.encode()))
    return stream.getvalue()


# --- what is here is used


def test_a_build_that_has_everything(cli: Cli, registry: FakeRegistry, server: Server, tmp_path: Path) -> None:
    registry.add_image("base", "1", layers=(layer(etc="x"),))
    (server.root / "file").write_text("content")
    text = f"FROM {registry.host}/base:1\nADD {server.url}/file /\nCOPY new /\n"
    built = context(tmp_path / "context", text, new="1")
    assert watched(cli, "build", "-t", "x", built).status == 1  # the watch sees what a build does
    assert cli("build", "-t", "x", built).status == 0

    (built / "new").write_text("2")
    done = watched(cli, "build", "--offline", "--progress", "plain", "-t", "x", built)
    assert done.status == 0, done.err
    assert done.cached() == 1
    assert cli.files("x")["file"].content == b"content"
    assert cli.files("x")["new"].content == b"2"
    assert cli("build", "-t", "y", "--no-cache", "--offline", built).status == 0
    assert cli.files("y")["file"].content == b"content"


@needs_git
def test_a_repository(cli: Cli, server: Server, commit: str, tmp_path: Path) -> None:
    built = context(tmp_path / "context", f"FROM scratch\nADD {server.url}/repo.git#main /r/\n")
    done = watched(cli, "build", "--offline", built)
    assert f"Dockerfile:2: the build is offline and lacks {server.url}/repo.git" in done.err
    cli.build("-t", "x", built)
    assert cli("prune", "-f", "--filter", "until=0s").status == 0, "the image has it, so it stays with its commit"
    done = watched(cli, "build", "--offline", "--progress", "plain", "-t", "x", built)
    assert done.status == 0, done.err
    assert done.cached() == 1
    done = watched(cli, "build", "--offline", "--no-cache", built)
    assert done.status == 1
    assert f"error: Dockerfile:2: {server.url}/repo.git cannot be fetched, and this step is not cached" in done.err


# --- what is not here


def test_one_error_names_everything(cli: Cli, registry: FakeRegistry, tmp_path: Path) -> None:
    text = """\
ARG TAG=3
FROM one AS a
ENV HERE=https://example.invalid
ADD $HERE/file $HERE/other /
FROM scratch AS unneeded
COPY --from=nine / /
FROM two:$TAG
COPY --from=a /file /
COPY --from=three:1 /file /
RUN --mount=type=bind,from=four,target=/m true
ADD https://example.invalid/repo.git#main /r
COPY --from=far / /
COPY --from=near / /
"""
    built = context(tmp_path / "context", text)
    (tmp_path / "near").mkdir()
    done = watched(
        cli,
        *("build", "--offline", "--build-context", "far=https://me:secret@example.invalid/far.git#x"),
        *("--build-context", f"near={tmp_path}/near", built),
    )
    assert done.status == 1
    assert "error: the build is offline and lacks 8 things:" in done.err
    machine = r" for linux/\w+"
    assert re.search(
        rf"""\
    Dockerfile:2: the image one:latest{machine}
    Dockerfile:4: https://example.invalid/file
    Dockerfile:4: https://example.invalid/other
    Dockerfile:7: the image two:3{machine}
    Dockerfile:9: the image three:1{machine}
    Dockerfile:10: the image four:latest{machine}
    Dockerfile:11: https://example.invalid/repo.git
    Dockerfile:12: the context far, https://xxxxx@example.invalid/far.git#x
help: build once without --offline; 'builder pull' fetches images
""",
        done.err,
    )
    assert "secret" not in done.err


def test_layers_that_were_not_fetched(cli: Cli, registry: FakeRegistry, tmp_path: Path) -> None:
    """A stage of which only the configuration was needed has no layers here."""
    registry.add_image("base", "1", layers=(layer(etc="x"), layer(usr="y")))
    text = f"FROM {registry.host}/base:1 AS base\nFROM scratch\nCOPY here /\n"
    built = context(tmp_path / "context", text, here="1")
    assert cli("build", "--call", "outline", "--target", "base", built).status == 0
    assert watched(cli, "build", "--offline", built).status == 0
    done = watched(cli, "build", "--offline", "--target", "base", built)
    assert done.status == 1
    assert re.search(
        rf"error: the build is offline and lacks 2 of 2 layers of {registry.host}/base:1 for linux/\w+", done.err
    )
    (built / "Dockerfile").write_text(text.replace("here", "--from=base /etc"))
    done = watched(cli, "build", "--offline", built)
    assert done.status == 1
    assert (
        f"Dockerfile:3: the build is offline and lacks a layer of {registry.host}/base:1 that a step needs" in done.err
    )
    assert f"    2 of 2 layers of {registry.host}/base:1" in done.err


def test_a_remote_context(cli: Cli) -> None:
    done = watched(cli, "build", "--offline", "https://me:secret@example.invalid/repo.git")
    assert done.status == 1
    assert "https://xxxxx@example.invalid/repo.git: this context must be fetched, and the build is offline" in done.err


@pytest.mark.parametrize(
    "arguments",
    [("--pull",), ("--push", "-t", "x"), ("-o", "type=registry,name=x"), ("--cache-from", "example.invalid/cache")],
)
def test_what_contradicts_it(cli: Cli, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = watched(cli, "build", "--offline", *arguments, context(tmp_path / "context", "FROM scratch\nCOPY . /\n"))
    assert done.status == 2
    assert "needs the network, which --offline forbids" in done.err


# --- steps

OWN = os.readlink("/proc/self/ns/net")


@needs_sandbox
def test_steps_have_no_network(cli: Cli, tmp_path: Path) -> None:
    built = busybox_context(tmp_path / "context", "RUN ls -l /proc/self/ns/net > /net\n")

    def network(*arguments: str) -> str:
        done = cli.build("-t", "x", *arguments, built)
        content = cli.files("x")["net"].content
        assert content is not None
        return f"{done.cached()} {'own' if OWN in content.decode() else 'none'}"

    assert network("--offline") == "0 none"
    assert network("--offline") == "2 none"
    assert network() == "1 own"  # what was made without a network does not serve with one
    assert network("--offline") == "2 own"  # but the other way round
    assert network("--offline", "--no-cache", "--network=default") == "0 own"
    (built / "Dockerfile").write_text(BASE + "RUN --network=host ls -l /proc/self/ns/net > /net\n")
    assert network("--offline", "--allow", "network.host") == "2 none"  # as made above
    assert network("--offline", "--no-cache", "--network=host") == "0 own"
