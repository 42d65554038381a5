"""Agents made of key files: what they serve, what is refused, and that nothing of them stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.context.git import checkout
from builder.context.git_url import parse_git_url
from builder.errors import StepFailed
from builder.solver.ssh_keys import open_agents
from tests.support.builds import PROJECT

pytestmark = pytest.mark.skipif(
    shutil.which("ssh-agent") is None or shutil.which("ssh-add") is None or shutil.which("ssh-keygen") is None,
    reason="needs ssh-agent (Debian package openssh-client)",
)


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where agents' directories are made."""
    with tempfile.TemporaryDirectory(prefix="t") as directory:  # a socket's path must be short
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)


def key(path: Path, *options: str, passphrase: str = "") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-N", passphrase, "-C", path.name, "-f", path, *options], check=True)
    return path


def listed(socket: str) -> str:
    return subprocess.run(
        ["ssh-add", "-l"], env={**os.environ, "SSH_AUTH_SOCK": socket}, capture_output=True, text=True, check=False
    ).stdout


def test_keys_of_every_kind(tmp_path: Path, temporary: Path) -> None:
    kinds = {
        "ed": ("-t", "ed25519"),
        "rsa": ("-t", "rsa", "-b", "2048"),
        "pem": ("-t", "rsa", "-b", "2048", "-m", "PEM"),
        "pkcs8": ("-t", "ecdsa", "-m", "PKCS8"),
    }
    paths = tuple(str(key(tmp_path / name, *options)) for name, options in kinds.items())
    Path(paths[0]).write_bytes(Path(paths[0]).read_bytes().rstrip(b"\n"))
    Path(paths[1]).chmod(0o666)
    with open_agents({"a": paths, "b": paths[:1]}) as agents:
        assert [line.split()[-1] for line in listed(agents["a"]).splitlines()] == [
            "(ED25519)",
            "(RSA)",
            "(RSA)",
            "(ECDSA)",
        ]
        assert len(listed(agents["b"]).splitlines()) == 1
        assert oct(os.stat(os.path.dirname(agents["a"])).st_mode & 0o777) == "0o700"
        with open_agents({"c": (agents["a"],)}) as others:
            assert others == {"c": agents["a"]}
        assert listed(agents["a"])
    assert not listed(agents["a"])
    assert os.listdir(temporary) == []


@pytest.mark.parametrize("options", [("-t", "ed25519"), ("-t", "rsa", "-m", "PEM"), ("-t", "rsa", "-m", "PKCS8")])
def test_a_passphrase(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = key(tmp_path / "key", *options, passphrase="secret")
    with pytest.raises(StepFailed, match="has a passphrase") as refused, open_agents({"a": (str(path),)}):
        pass
    assert refused.value.place == str(path)


def test_what_is_no_key(tmp_path: Path, temporary: Path) -> None:
    good = key(tmp_path / "good", "-t", "ed25519")
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "broken").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    for name, cause in (
        ("text", "neither an agent's socket nor a private key"),
        ("good.pub", "neither an agent's socket nor a private key"),
        ("missing", "cannot be read: No such file"),
        (".", "cannot be read: Is a directory"),
        ("broken", "cannot be used: "),
    ):
        with pytest.raises(StepFailed, match=cause), open_agents({"a": (str(good), str(tmp_path / name))}):
            pass
        assert os.listdir(temporary) == []


def test_without_openssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = key(tmp_path / "key", "-t", "ed25519")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StepFailed, match="needs ssh-agent"), open_agents({"a": (str(path),)}):
        pass


def test_a_killed_builder_leaves_no_agent(tmp_path: Path, temporary: Path) -> None:
    path = key(tmp_path / "key", "-t", "ed25519")
    program = (
        "import sys, time\nfrom builder.solver.ssh_keys import open_agents\n"
        "with open_agents({'a': (sys.argv[1],)}) as agents:\n    print(agents['a'], flush=True)\n    time.sleep(60)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(PROJECT), "TMPDIR": str(temporary)}
    with subprocess.Popen([sys.executable, "-c", program, path], env=environ, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        socket = process.stdout.readline().decode().strip()
        assert listed(socket)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while os.listdir(temporary) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert os.listdir(temporary) == []
    assert not listed(socket)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_uses_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ssh` is a script here that notes what keys it is offered, and serves the repository."""
    repository = tmp_path / "repository"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(repository)]
    subprocess.run(["git", "init", "-q", repository], check=True)
    (repository / "file").write_text("content")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin/ssh"
    ssh.write_text(f'#!/bin/sh\nssh-add -l >> {tmp_path}/log\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    ref = parse_git_url(f"ssh://git@example.invalid{repository}")
    assert ref is not None
    (tmp_path / "into").mkdir()
    with open_agents({"default": (str(key(tmp_path / "key", "-t", "ed25519")),)}) as agents:
        checkout(ref, str(tmp_path / "into"), agent=agents["default"])
    assert (tmp_path / "into/file").read_text() == "content"
    offered = (tmp_path / "log").read_text().splitlines()
    assert len(offered) == 2  # ls-remote and fetch
    assert all(line.endswith("(ED25519)") for line in offered)
