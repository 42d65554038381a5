"""SSH keys in files, served by an agent that lives as long as the build (`--ssh ID=KEYFILE`).

The agent is OpenSSH's own: it reads every form of key that the user's `ssh` reads, keeps the keys out of core dumps and
of other processes' sight, and whoever fetches from git over ssh has it installed already. Keys are handed over on
ssh-add's standard input, so that the modes of files in CI systems do not matter. A key with a passphrase is refused:
there is nobody to ask.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from builder.errors import StepFailed
from builder.solver.agents import check_agent

_LARGEST = 1 << 20  # bytes of a key file
_SECONDS = 30
_ARMOUR = re.compile(rb"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----\s(.*?)-----END", re.DOTALL)
_MAGIC = b"openssh-key-v1\0"

_GUARD = 'echo ready; cat >/dev/null; kill "$SSH_AGENT_PID"; rm -f "$SSH_AUTH_SOCK"; rmdir "$0"'
"""What holds the agent: when standard input ends, as it does with whatever death of the builder, all of it goes."""


@contextmanager
def open_agents(given: Mapping[str, tuple[str, ...]]) -> Iterator[dict[str, str]]:
    """The sockets of agents by ID, from what --ssh gave: the socket of one, or the files of keys.

    Raises StepFailed for what is neither.
    """
    with ExitStack() as held:
        sockets = {}
        for name, paths in given.items():
            if len(paths) == 1 and (_is_socket(paths[0]) or not os.path.exists(paths[0])):
                check_agent(name, paths[0])
                sockets[name] = paths[0]
            else:
                keys = {path: _read_key(name, path) for path in paths}
                sockets[name] = held.enter_context(_agent_with(name, keys))
        yield sockets


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _read_key(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST)
    except OSError as error:
        raise StepFailed(f"SSH key for agent {name!r} cannot be read: {error.strerror}", place=path) from error
    match = _ARMOUR.search(data)
    if match is None:
        raise StepFailed(
            f"SSH agent {name!r}: this is neither an agent's socket nor a private key",
            place=path,
            remedy="give --ssh ID=SOCKET, or --ssh ID=KEYFILE with a private key of OpenSSH's or PEM's form",
        )
    if _is_encrypted(match[1], match[2]):
        raise StepFailed(
            f"SSH key for agent {name!r} has a passphrase, which a build cannot ask for",
            place=path,
            remedy="add it to an agent (eval $(ssh-agent); ssh-add FILE), and give --ssh ID=$SSH_AUTH_SOCK",
        )
    return data if data.endswith(b"\n") else data + b"\n"  # OpenSSH insists


def _is_encrypted(kind: bytes, body: bytes) -> bool:
    """By the forms of PKCS #8 and PEM, and OpenSSH's own (PROTOCOL.key), in which the cipher's name comes first."""
    if b"ENCRYPTED" in kind or b"Proc-Type: 4,ENCRYPTED" in body:
        return True
    try:
        data = base64.b64decode(body)
    except binascii.Error:
        return False
    return data.startswith(_MAGIC) and not data.startswith(_MAGIC + b"\0\0\0\4none")


@contextmanager
def _agent_with(name: str, keys: Mapping[str, bytes]) -> Iterator[str]:
    """An agent that holds the keys; the path of its socket."""
    for program in ("ssh-agent", "ssh-add"):
        if shutil.which(program) is None:
            raise StepFailed(
                f"SSH agent {name!r}: serving keys from files needs {program}",
                remedy="install OpenSSH's client (on Debian: apt-get install openssh-client), or give a socket",
            )
    directory = tempfile.mkdtemp(prefix="builder-ssh-")
    path = os.path.join(directory, "agent")
    guard = subprocess.Popen(
        ["ssh-agent", "-a", path, "/bin/sh", "-c", _GUARD, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # an interrupt is for the build, which then ends the agent
    )
    assert guard.stdin is not None
    assert guard.stdout is not None
    assert guard.stderr is not None
    try:
        if not guard.stdout.readline():
            raise StepFailed(f"SSH agent {name!r} does not start: {_last_line(guard.stderr.read())}")
        for file, data in keys.items():
            _add(name, path, file, data)
        yield path
    finally:
        guard.stdin.close()
        guard.wait()
        guard.stdout.close()
        guard.stderr.close()
        shutil.rmtree(directory, ignore_errors=True)


def _add(name: str, path: str, file: str, data: bytes) -> None:
    environ = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    environ |= {"SSH_AUTH_SOCK": path, "SSH_ASKPASS": "/bin/false", "SSH_ASKPASS_REQUIRE": "force", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["ssh-add", "-q", "-"], input=data, capture_output=True, env=environ, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise StepFailed(f"SSH key for agent {name!r}: ssh-add does not answer", place=file) from error
    if done.returncode != 0:
        raise StepFailed(f"SSH key for agent {name!r} cannot be used: {_last_line(done.stderr)}", place=file)


def _last_line(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "no reason was given"
