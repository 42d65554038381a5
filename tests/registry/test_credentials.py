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
