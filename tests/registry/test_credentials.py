from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from builder.errors import RegistryError
from builder.registry.credentials import Credential, CredentialStore


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def store(tmp_path: Path, config: Any) -> CredentialStore:
    text = config if isinstance(config, str) else json.dumps(config)
    (tmp_path / "config.json").write_text(text)
    return CredentialStore({"DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"})


def helper(tmp_path: Path, name: str, script: str) -> None:
    path = tmp_path / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_no_file(tmp_path: Path) -> None:
    found = CredentialStore({"HOME": str(tmp_path)})
    assert found.get("ghcr.io") is None
    assert found.path == str(tmp_path / ".docker/config.json")


@pytest.mark.parametrize("key", ["ghcr.io", "https://ghcr.io", "https://ghcr.io/v1/", "http://ghcr.io/v2/"])
def test_auths(tmp_path: Path, key: str) -> None:
    found = store(tmp_path, {"auths": {key: auth("u", "p:q")}})
    assert found.get("ghcr.io") == Credential("u", "p:q")
    assert found.get("ghcr.io:443") is None


@pytest.mark.parametrize("host", ["docker.io", "registry-1.docker.io", "index.docker.io"])
@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io"])
def test_docker_hub(tmp_path: Path, host: str, key: str) -> None:
    assert store(tmp_path, {"auths": {key: auth("u", "p")}}).get(host) == Credential("u", "p")


def test_parts_of_a_registry(tmp_path: Path) -> None:
    """As podman keeps them, containers-auth.json(5): what names the most of a repository's path counts."""
    keys = ["quay.io/team", "quay.io/team/app", "docker.io/team", "https://old.io/some/path"]
    given = {"auths": {key: auth("u", key) for key in keys}}
    (tmp_path / "auth.json").write_text(json.dumps(given))
    found = CredentialStore({"HOME": str(tmp_path), "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")})

    def key(host: str, repository: str = "") -> str | None:
        credential = found.get(host, repository)
        return credential.password if credential else None

    assert key("quay.io", "team/app") == "quay.io/team/app"
    assert key("quay.io", "team/app/part") == "quay.io/team/app"
    assert key("quay.io", "team/other") == "quay.io/team"
    assert key("quay.io", "team2/app") is None
    assert key("quay.io") is None
    assert key("registry-1.docker.io", "team/app") == "docker.io/team"
    assert key("old.io", "any") == "https://old.io/some/path"
    docker = store(tmp_path, given)  # which knows hosts alone
    for repository, known in (("team2/app", keys[0]), ("", keys[0]), ("team/app", keys[1])):
        assert docker.get("quay.io", repository) == Credential("u", known)
    whole = store(tmp_path, {"auths": {"quay.io/team": auth("a", "p"), "quay.io": auth("b", "p")}})
    assert [whole.get("quay.io", name) for name in ("team/x", "x", "")] == [
        Credential("a", "p"),
        Credential("b", "p"),
        Credential("b", "p"),
    ]


def test_identity_and_registry_tokens(tmp_path: Path) -> None:
    found = store(tmp_path, {"auths": {"a": {"identitytoken": "i"}, "b": {"registrytoken": "r"}, "c": {}}})
    assert found.get("a") == Credential(identity_token="i")
    assert found.get("b") == Credential(registry_token="r")
    assert found.get("c") is None


def test_helpers(tmp_path: Path) -> None:
    helper(tmp_path, "one", 'read host; echo "{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"for $host\\"}"')
    helper(tmp_path, "two", 'read host; echo "{\\"Username\\":\\"u\\",\\"Secret\\":\\"$host\\"}"')
    found = store(
        tmp_path, {"credHelpers": {"gcr.io": "one"}, "credsStore": "two", "auths": {"gcr.io": auth("x", "y")}}
    )
    assert found.get("gcr.io") == Credential(identity_token="for gcr.io")
    assert found.get("quay.io") == Credential("u", "quay.io")
    assert found.get("registry-1.docker.io") == Credential("u", "https://index.docker.io/v1/")


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        ("echo credentials not found in native keychain; exit 1", None),
        ("echo the keychain is locked; exit 1", "the keychain is locked"),
        ("echo hello", "not JSON"),
        (None, "is not installed"),
    ],
)
def test_a_helper_that_gives_nothing(tmp_path: Path, script: str | None, trouble: str | None) -> None:
    if script:
        helper(tmp_path, "h", script)
    found = store(tmp_path, {"credsStore": "h"})
    assert found.get("ghcr.io") is None
    said = found.trouble("ghcr.io")
    assert said is None if trouble is None else trouble in (said or "")


@pytest.mark.parametrize(
    "config", ["{", "[]", {"auths": {"ghcr.io": {"auth": "%%%"}}}, {"auths": {"ghcr.io": {"auth": "bm9jb2xvbg=="}}}]
)
def test_a_malformed_file_is_named(tmp_path: Path, config: Any) -> None:
    with pytest.raises(RegistryError) as caught:
        store(tmp_path, config).get("ghcr.io")
    assert caught.value.place == str(tmp_path / "config.json")


def test_the_variable_counts_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"a": auth("u", "file"), "b": auth("u", "file")}}))
    text = json.dumps({"auths": {"a": auth("u", "variable")}})
    found = CredentialStore({"DOCKER_CONFIG": str(tmp_path), "DOCKER_AUTH_CONFIG": text})
    assert found.get("a") == Credential("u", "variable")
    assert found.get("b") == Credential("u", "file")
    with pytest.raises(RegistryError) as caught:
        CredentialStore({"HOME": str(tmp_path), "DOCKER_AUTH_CONFIG": "{"}).get("a")
    assert caught.value.place == "DOCKER_AUTH_CONFIG"


def test_podmans_file_is_the_last_resort(tmp_path: Path) -> None:
    def write(path: str, host: str, password: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(json.dumps({"auths": {host: auth("u", password), "all": auth("u", password)}}))

    write(".docker/config.json", "a", "docker")
    write(".config/containers/auth.json", "b", "home")
    write("run/containers/auth.json", "c", "run")
    write("given.json", "d", "given")
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    found = CredentialStore(environ)
    assert [found.get(host) for host in "abcd"] == [
        Credential("u", "docker"),
        Credential("u", "home"),
        Credential("u", "run"),
        None,
    ]
    assert found.get("all") == Credential("u", "docker")
    assert found.place("c") == str(tmp_path / "run/containers/auth.json")
    assert found.place("x") is None
    given = CredentialStore(environ | {"REGISTRY_AUTH_FILE": str(tmp_path / "given.json")})
    assert given.get("d") == Credential("u", "given")
    assert given.get("b") is None
