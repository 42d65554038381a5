"""The same registry with other clients: what we push they read, what they push we read. Debian's docker-registry, with
an authority of its own and a password."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builds import Cli, context
from tests.support.certificates import make_certificates
from tests.support.docker_registry import docker_registry, needs_docker_registry

pytestmark = needs_docker_registry


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"{program} is not installed (Debian package {program})"
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def trust(certificates: Path, tmp_path: Path) -> Path:
    """A directory with the authority alone: other tools take every key in it for a client's."""
    (tmp_path / "trust").mkdir()
    shutil.copy(certificates / "ca.crt", tmp_path / "trust")
    return tmp_path / "trust"


@pytest.fixture
def host(tmp_path: Path, certificates: Path) -> Iterator[str]:
    with docker_registry(tmp_path / "registry", password=True, certificates=certificates) as host:
        yield host


@pytest.fixture
def cli(tmp_path: Path, host: str, certificates: Path) -> Cli:
    """Logged in, with the authority in builder.toml."""
    (tmp_path / "builder.toml").write_text(f'[registry."{host}"]\nca = ["{certificates}/ca.crt"]\n')
    cli = Cli(tmp_path / "store")
    done = cli("login", "-u", "u", "--password-stdin", host, stdin=b"p")
    assert done.status == 0, done.err
    return cli


def run(*command: str | os.PathLike[str], home: Path) -> str:
    done = subprocess.run(command, env={**os.environ, "HOME": str(home)}, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(cli: Cli, name: str, platforms: str) -> None:
    directory = context(cli.root.parent / "context", "FROM scratch\nCOPY a /dir/\nLABEL made=here\n", a="A")
    cli.build("-t", name, "--platform", platforms, directory)


def labels(cli: Cli, name: str) -> object:
    return json.loads(cli("inspect", name).out)[0]["Config"]["Labels"]


@needs("skopeo")
def test_skopeo(cli: Cli, host: str, trust: Path, tmp_path: Path) -> None:
    build(cli, f"{host}/team/app:1", "linux/amd64,linux/arm64")
    assert cli("push", f"{host}/team/app:1").status == 0
    # skopeo reads the credentials that our login kept.
    shown = json.loads(run("skopeo", "inspect", f"--cert-dir={trust}", f"docker://{host}/team/app:1", home=tmp_path))
    assert shown["Labels"] == {"made": "here"}
    assert shown["RepoTags"] == ["1"]
    trusts = [f"--src-cert-dir={trust}", f"--dest-cert-dir={trust}"]
    copy = ("skopeo", "copy", "--all", *trusts, f"docker://{host}/team/app:1", f"docker://{host}/other/app:2")
    run(*copy, home=tmp_path)
    digest = cli.entries()[f"{host}/team/app:1"]["digest"]
    pulled = cli("pull", "--platform", "linux/arm64", f"{host}/other/app:2")
    assert f"Digest: {digest}" in pulled.out.decode(), pulled.err
    # ... and one platform of it, with Docker's media types.
    copy = ("skopeo", "copy", "--format=v2s2", *trusts, f"docker://{host}/team/app:1", f"docker://{host}/third:1")
    run(*copy, home=tmp_path)
    assert cli("pull", f"{host}/third:1").status == 0
    assert labels(cli, f"{host}/third:1") == {"made": "here"}


@needs("podman")
@pytest.mark.skipif(os.geteuid() != 0, reason="podman's storage needs root here")
def test_podman(cli: Cli, host: str, trust: Path, tmp_path: Path) -> None:
    build(cli, f"{host}/app:1", "linux/amd64")
    assert cli("push", f"{host}/app:1").status == 0
    with tempfile.TemporaryDirectory(prefix="podman") as runroot:  # pytest's own paths are too long for podman

        def podman(command: str, *arguments: str) -> str:
            storage = [f"--root={tmp_path}/podman", f"--runroot={runroot}", "--storage-driver=vfs"]
            return run("podman", *storage, command, *arguments, home=tmp_path)

        certs = f"--cert-dir={trust}"
        podman("login", certs, f"--authfile={tmp_path}/.config/containers/auth.json", "-u", "u", "-p", "p", host)
        podman("pull", certs, f"{host}/app:1")
        assert podman("inspect", "--format", "{{.Labels.made}}", f"{host}/app:1").strip() == "here"
        podman("tag", f"{host}/app:1", f"{host}/theirs:2")
        podman("push", certs, f"{host}/theirs:2")
    assert cli("logout", host).status == 0  # podman's own file is left, and is enough
    pulled = cli("pull", f"{host}/theirs:2")
    assert pulled.status == 0, pulled.err
    assert labels(cli, f"{host}/theirs:2") == {"made": "here"}


def test_mirrors_with_an_authority(cli: Cli, host: str, certificates: Path, tmp_path: Path) -> None:
    """The registry stands in for Docker Hub; what it lacks is asked of the next mirror, then of the Hub itself."""
    build(cli, f"{host}/library/app:1", "linux/amd64")
    assert cli("push", f"{host}/library/app:1").status == 0
    (tmp_path / "builder.toml").write_text(
        f'[registry."docker.io"]\nmirrors = ["127.0.0.1:1", "{host}"]\n'
        f'[registry."{host}"]\nca = ["{certificates}/ca.crt"]\n'
    )
    pulled = cli("pull", "app:1")
    assert pulled.status == 0, pulled.err
    assert pulled.out.decode().splitlines()[-1] == "docker.io/library/app:1"
