"""Against the real thing: Debian's docker-registry (the distribution project's), with and without a password."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from builder.errors import NotFoundError, RegistryError
from builder.oci import reference
from builder.oci.spec import Platform
from builder.registry.blobs import fetch_blob
from builder.registry.listing import list_tags
from builder.registry.pull import resolve
from builder.registry.push import push
from tests.registry.conftest import MakeSession
from tests.registry.test_push import Blobs
from tests.support.docker_registry import docker_registry, needs_docker_registry

pytestmark = needs_docker_registry


def test_round_trip(tmp_path: Path, session_for: MakeSession) -> None:
    blobs = Blobs()
    large = random.Random(2).randbytes(5_000_000)
    index = blobs.index(amd64=blobs.image(large, b"small"), arm64=blobs.image(b"arm", architecture="arm64"))
    with docker_registry(tmp_path / "registry") as host, session_for() as session:
        name = reference.parse(f"{host}/team/app:1")
        done = push(session, name, index, blobs.open, tags=["2"])
        assert len(done.uploaded) == 5
        assert push(session, name, index, blobs.open).uploaded == ()
        found = resolve(session, name, Platform("linux", "amd64"))
        assert found.data == blobs.held[index.digest]
        with open(tmp_path / "blob", "w+b") as file:
            fetch_blob(session, name, found.layers[0], file)
            file.seek(0)
            assert file.read() == large
        assert list_tags(session, name) == ["1", "2"]
        other = reference.parse(f"{host}/team/other:1")
        origins = {digest: ["team/app"] for digest in blobs.held}
        assert len(push(session, other, index, blobs.open, origins=lambda: origins).mounted) == 5
        with pytest.raises(NotFoundError):
            resolve(session, reference.parse(f"{host}/team/app:3"))


def test_basic_authentication(tmp_path: Path, session_for: MakeSession) -> None:
    blobs = Blobs()
    image = blobs.image(b"x")
    with docker_registry(tmp_path / "registry", password=True) as host:
        name = reference.parse(f"{host}/app:1")
        with pytest.raises(RegistryError, match="user name and a password"):
            push(session_for(), name, image, blobs.open)
        (tmp_path / ".docker").mkdir()
        auths = {"auths": {host: {"username": "u", "password": "p"}}}
        (tmp_path / ".docker/config.json").write_text(json.dumps(auths))
        push(session_for(), name, image, blobs.open)
        assert resolve(session_for(), name, Platform("linux", "amd64")).descriptor.digest == image.digest
