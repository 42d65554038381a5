"""Credentials are tried, kept and forgotten; everything else in the user's file stays."""

from __future__ import annotations

import base64
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from builder.config import Config
from builder.errors import RegistryError
from builder.registry.credentials import Credential, CredentialStore
from builder.registry.helpers import HelperError
from builder.registry.login import forget, save, server_of, verify
from tests.registry.conftest import QUICK
from tests.support.registry import FakeRegistry, Faults
from tests.support.together import together

USER = Credential("u", "p:q")


def environ(directory: Path) -> dict[str, str]:
    return {"HOME": str(directory), "PATH": f"{directory}/bin:/usr/bin:/bin"}


def document(directory: Path) -> Any:
    return json.loads((directory / ".docker/config.json").read_text())


def write(directory: Path, value: Any) -> Path:
    path = directory / ".docker/config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def helper(directory: Path) -> Path:
    """A credential helper `test` that keeps what it is given in a file, as the protocol says; the file."""
    kept = directory / "kept"
    (directory / "bin").mkdir()
    program = directory / "bin/docker-credential-test"
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$1" >>{directory}/calls\n'
        'case "$1" in\n'
        f"store) cat >{kept} ;;\n"
        f"get) if [ -e {kept} ]; then cat {kept}; else echo credentials not found in native keychain; exit 1; fi ;;\n"
        f"erase) cat >/dev/null; rm {kept} || exit 1 ;;\n"
        "esac\n"
    )
    program.chmod(0o755)
    return kept


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("https://ghcr.io/", "ghcr.io"),
        ("localhost:5000", "localhost:5000"),
        ("http://127.0.0.1:5000/v2/", "127.0.0.1:5000"),
    ],
)
def test_servers(text: str, host: str) -> None:
    assert server_of(text) == host


# trying


@pytest.mark.parametrize("auth", ["", "basic", "token"])
def test_what_the_registry_accepts(tmp_path: Path, auth: str) -> None:
    write(tmp_path, {"auths": {"x": {}}})  # files do not matter
    with FakeRegistry(auth=auth, users={"u": "p:q"}, anonymous_pull=False) as registry:
        assert verify(Config(), environ(tmp_path), registry.host, USER, patience=QUICK) == USER


def test_an_identity_token_comes_back(tmp_path: Path) -> None:
    with FakeRegistry(auth="token", users={"u": "p:q"}, identity_token="i") as registry:
        found = verify(Config(), environ(tmp_path), registry.host, USER, patience=QUICK)
        assert found == Credential("u", identity_token="i")
        # It is as good as the password from then on, also to be tried again.
        assert verify(Config(), environ(tmp_path), registry.host, found, patience=QUICK) == found
        with pytest.raises(RegistryError, match="refuses the credentials"):
            verify(Config(), environ(tmp_path), registry.host, Credential(identity_token="x"), patience=QUICK)


def test_what_the_registry_refuses(tmp_path: Path) -> None:
    for auth in ("basic", "token"):
        with (
            FakeRegistry(auth=auth, users={"u": "other"}, anonymous_pull=False) as registry,
            pytest.raises(RegistryError, match="refuses the"),
        ):
            verify(Config(), environ(tmp_path), registry.host, USER, patience=QUICK)
    with FakeRegistry() as registry:
        registry.faults = Faults(statuses=[(404, {})])
        with pytest.raises(RegistryError, match="where a registry says that it is one"):
            verify(Config(), environ(tmp_path), registry.host, USER, patience=QUICK)


# keeping


def test_a_new_file(tmp_path: Path) -> None:
    os.umask(0o022)
    kept = save(environ(tmp_path), "ghcr.io", USER)
    assert kept.path == str(tmp_path / ".docker/config.json")
    assert not kept.helper
    assert document(tmp_path) == {"auths": {"ghcr.io": {"auth": base64.b64encode(b"u:p:q").decode()}}}
    assert (tmp_path / ".docker/config.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".docker").stat().st_mode & 0o777 == 0o700
    assert os.listdir(tmp_path / ".docker") == ["config.json"]
    assert CredentialStore(environ(tmp_path)).get("ghcr.io") == USER


def test_everything_else_is_kept(tmp_path: Path) -> None:
    before = {"psFormat": "table {{.ID}}", "auths": {"b": {"auth": "Yjpi", "email": "x"}}, "proxies": {"default": {}}}
    write(tmp_path, before).chmod(0o644)
    save(environ(tmp_path), "docker.io", USER)
    after = document(tmp_path)
    assert after["auths"].pop("https://index.docker.io/v1/")
    assert after == before
    assert (tmp_path / ".docker/config.json").stat().st_mode & 0o777 == 0o600
    forget(environ(tmp_path), "docker.io")
    assert document(tmp_path) == before


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings/docker.json").write_text("{}")
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").symlink_to("../settings/docker.json")
    save(environ(tmp_path), "ghcr.io", USER)
    assert (tmp_path / ".docker/config.json").is_symlink()
    assert "ghcr.io" in (tmp_path / "settings/docker.json").read_text()


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": 3}', "\xff"])
def test_a_malformed_file_is_left_alone(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    for change in (lambda: save(environ(tmp_path), "x.io", USER), lambda: forget(environ(tmp_path), "x.io")):
        with pytest.raises(RegistryError) as caught:
            change()
        assert caught.value.place == str(path)
    assert path.read_text() == text


def test_two_at_once_lose_nothing(tmp_path: Path) -> None:
    hosts = [f"h{number}.io" for number in range(12)]
    together(*(partial(save, environ(tmp_path), host, USER) for host in hosts))
    assert sorted(document(tmp_path)["auths"]) == sorted(hosts)


def test_a_credential_helper(tmp_path: Path) -> None:
    kept = helper(tmp_path)
    write(tmp_path, {"credsStore": "test"})
    assert save(environ(tmp_path), "docker.io", USER).helper == "test"
    stored = json.loads(kept.read_text())
    assert stored == {"ServerURL": "https://index.docker.io/v1/", "Username": "u", "Secret": "p:q"}
    assert document(tmp_path) == {"credsStore": "test", "auths": {"https://index.docker.io/v1/": {}}}
    assert CredentialStore(environ(tmp_path)).get("docker.io") == USER
    forget(environ(tmp_path), "docker.io")
    assert not kept.exists()
    assert document(tmp_path) == {"credsStore": "test", "auths": {}}


def test_an_identity_token_is_kept_in_place_of_the_password(tmp_path: Path) -> None:
    token = Credential("u", identity_token="i")
    save(environ(tmp_path), "a.io", token)
    assert document(tmp_path)["auths"]["a.io"]["identitytoken"] == "i"
    assert CredentialStore(environ(tmp_path)).get("a.io") == token
    kept = helper(tmp_path)
    write(tmp_path, {"credHelpers": {"b.io": "test"}})
    save(environ(tmp_path), "b.io", token)
    assert json.loads(kept.read_text())["Username"] == "<token>"
    assert CredentialStore(environ(tmp_path)).get("b.io") == Credential(identity_token="i")


def test_a_helper_that_fails_keeps_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, {"credsStore": "missing"})
    before = path.read_bytes()
    with pytest.raises(HelperError, match="docker-credential-missing is not installed") as caught:
        save(environ(tmp_path), "ghcr.io", USER)
    assert "p:q" not in str(caught.value)
    assert path.read_bytes() == before


# forgetting


def test_all_names_of_a_registry_are_forgotten(tmp_path: Path) -> None:
    keys = ["ghcr.io", "https://ghcr.io", "http://ghcr.io/v1/", "ghcr.io:443", "x.ghcr.io"]
    write(tmp_path, {"auths": {key: {"auth": "dTpw"} for key in keys}})
    forget(environ(tmp_path), "ghcr.io")
    assert list(document(tmp_path)["auths"]) == ["ghcr.io:443", "x.ghcr.io"]
    forget(environ(tmp_path), "never.io")


def test_without_a_file_nothing_is_made(tmp_path: Path) -> None:
    forget(environ(tmp_path), "ghcr.io")
    assert not (tmp_path / ".docker").exists()


def test_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked for, or kept, in a directory that is named ~."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    (tmp_path / "~/.docker").mkdir(parents=True)
    (tmp_path / "~/.docker/config.json").write_text("no JSON")
    absent: tuple[dict[str, str], ...] = ({}, {"HOME": "~"})
    for without in absent:
        assert CredentialStore(without).get("ghcr.io") is None
        with pytest.raises(RegistryError, match="not known where") as caught:
            save(without, "ghcr.io", USER)
        assert "HOME" in (caught.value.remedy or "")
        forget(without, "ghcr.io")
