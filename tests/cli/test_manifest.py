"""`builder manifest`: manifests as Docker's command shows and combines them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.builds import Cli, context, text
from tests.support.certificates import make_certificates
from tests.support.docker_registry import docker_registry, needs_docker_registry
from tests.support.registry import FakeRegistry, digest_of, fake_registries


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as running:
        running.add_image("amd", "1", layers=(b"amd", b"shared"))
        running.add_image("arm", "1", layers=(b"arm", b"shared"), architecture="arm", variant="v6")
        running.add_index("both", "1", running.add_image("both"), running.add_image("both", architecture="arm64"))
        yield running


def shown(cli: Cli, *arguments: str) -> Any:
    return json.loads(text(cli("manifest", "inspect", *arguments)))


def test_inspect(cli: Cli, registry: FakeRegistry) -> None:
    assert shown(cli, f"{registry.host}/amd:1") == json.loads(registry.repositories["amd"]["1"][1])
    assert shown(cli, f"{registry.host}/both:1") == json.loads(registry.repositories["both"]["1"][1])
    (first, second) = shown(cli, "-v", f"{registry.host}/both:1")
    data = registry.repositories["both"][first["Descriptor"]["digest"]][1]
    assert first["Ref"] == f"{registry.host}/both:1@{digest_of(data)}"
    assert base64.b64decode(first["Raw"]) == data
    assert first["OCIManifest"] == json.loads(data)
    assert second["Descriptor"]["platform"] == {"architecture": "arm64", "os": "linux"}
    assert shown(cli, "-v", f"{registry.host}/arm:1")["Descriptor"]["platform"] == {
        "architecture": "arm",
        "os": "linux",
        "variant": "v6",
    }
    assert cli("manifest", "inspect", f"{registry.host}/nothing:1").status == 1
    assert cli("manifest", "inspect", "a", "b", "c").status == 2


def test_a_list_from_beginning_to_end(cli: Cli, registry: FakeRegistry) -> None:
    host = registry.host
    names = [f"{host}/amd:1", f"{host}/arm:1"]
    target = f"{host}/list:1"
    assert text(cli("manifest", "create", target, *names)) == f"Created manifest list {target}\n"
    assert "list" not in registry.repositories
    again = cli("manifest", "create", target, *names)
    assert again.status == 1
    assert "--amend" in again.err
    text(cli("manifest", "create", "-a", target, names[0]))
    text(cli("manifest", "annotate", target, names[1], "--variant", "v7", "--os-features", "a,b", "--os-features", "a"))
    local = shown(cli, target)
    assert [one["platform"] for one in local["manifests"]] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm", "os": "linux", "os.features": ["a", "b"], "variant": "v7"},
    ]
    assert shown(cli, target, names[0]) == json.loads(registry.repositories["amd"]["1"][1])
    assert shown(cli, "-v", target, names[1])["Descriptor"]["platform"]["variant"] == "v7"
    out = text(cli("manifest", "push", target)).splitlines()
    media, data = registry.repositories["list"]["1"]
    assert json.loads(data) == local
    assert media == local["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert out[-1] == digest_of(data)
    assert out[:2] == [
        f"Pushed ref {host}/list@{one['digest']} with digest: {one['digest']}" for one in local["manifests"]
    ]
    assert registry.count("PUT .*/blobs/") == 0  # all of it was mounted
    text(cli("manifest", "push", "--purge", target))
    assert shown(cli, target) == local  # now the registry's
    assert cli("manifest", "push", target).status == 1
    assert list((cli.root / "manifest-lists").iterdir()) == []


def test_refusals(cli: Cli, registry: FakeRegistry) -> None:
    host = registry.host
    of_list = cli("manifest", "create", f"{host}/list", f"{host}/both:1")
    assert of_list.status == 1
    assert "is a manifest list" in of_list.err
    assert cli("manifest", "create", f"{host}/list", f"{host}/nothing:1").status == 1
    assert cli("manifest", "inspect", f"{host}/list").status == 1  # nothing was made
    text(cli("manifest", "create", f"{host}/list", f"{host}/amd:1"))
    assert cli("manifest", "annotate", f"{host}/list", f"{host}/arm:1", "--arch", "arm").status == 1
    assert cli("manifest", "annotate", f"{host}/none", f"{host}/arm:1", "--arch", "arm").status == 1
    removed = cli("manifest", "rm", f"{host}/none", f"{host}/list")
    assert removed.status == 1
    assert "there is no such manifest list here" in removed.err
    assert cli("manifest", "rm", f"{host}/list").status == 1  # it was removed nevertheless
    assert cli("manifest", "create", f"{host}/list").status == 2


def test_over_two_registries(cli: Cli) -> None:
    with fake_registries(2) as (one, two):
        one.add_image("app", "1", layers=(b"x" * 1000,))
        text(cli("manifest", "create", f"{two.host}/list", f"{one.host}/app:1"))
        text(cli("manifest", "push", f"{two.host}/list"))
        assert two.blobs["list"] == one.blobs["app"]
        assert cli.leftovers() == []


def test_insecure(cli: Cli, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    config = tmp_path / "builder.toml"
    with FakeRegistry(tls=context) as secure, FakeRegistry() as plain:
        for registry in (secure, plain):
            registry.add_image("app", "1")
            config.write_text(f'[registry."{registry.host}"]\nhttp = false\n')
            assert cli("manifest", "inspect", f"{registry.host}/app:1").status == 1
            assert shown(cli, "--insecure", f"{registry.host}/app:1")["schemaVersion"] == 2


def test_an_output_to_an_insecure_registry(cli: Cli, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    made = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a="a")
    with FakeRegistry(tls=tls) as secure, FakeRegistry() as plain:
        for registry in (secure, plain):
            (tmp_path / "builder.toml").write_text(f'[registry."{registry.host}"]\nhttp = false\n')
            arguments = ("build", "-t", f"{registry.host}/app:1", made, "-o")
            assert cli(*arguments, "type=registry").status == 1
            assert cli(*arguments, "type=registry,registry.insecure=false").status == 1
            done = cli(*arguments, "type=image,push=true,registry.insecure=true")
            assert done.status == 0, done.err
            assert "1" in registry.repositories["app"]


@needs_docker_registry
@pytest.mark.parametrize("oci", ["true", "false"])
def test_as_docker_does(cli: Cli, tmp_path: Path, oci: str) -> None:
    if shutil.which("docker") is None:
        pytest.skip("docker's command line is not installed (Debian package docker.io)")
    if b" version 20." in subprocess.run(["docker", "--version"], capture_output=True).stdout:
        pytest.skip("docker's command line is 20.10, which shows less of manifests and reads none of OCI's types")

    def docker(*arguments: str) -> str:
        done = subprocess.run(
            ["docker", "manifest", *arguments],
            env={**os.environ, "DOCKER_CONFIG": str(tmp_path / "docker"), "DOCKER_CLI_EXPERIMENTAL": "enabled"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ours(*arguments: str) -> str:
        return text(cli("manifest", *arguments))

    directory = context(tmp_path / "context", "FROM scratch\nCOPY Dockerfile /\n")
    with docker_registry(tmp_path / "registry") as host:
        for name, platforms in (("amd", "linux/amd64"), ("arm", "linux/arm/v6"), ("both", "linux/amd64,linux/s390x")):
            kind = ("-o", f"type=image,oci-mediatypes={oci}")
            cli.build("-t", f"{host}/{name}:1", "--platform", platforms, *kind, directory)
            text(cli("push", f"{host}/{name}:1"))
            for options in ([], ["-v"]):
                theirs = docker("inspect", "--insecure", *options, f"{host}/{name}:1")
                assert json.loads(theirs) == shown(cli, *options, f"{host}/{name}:1")
        for run in (docker, ours):
            run("create", "--insecure", f"{host}/list:1", f"{host}/amd:1", f"{host}/arm:1")
            run("annotate", "--variant", "v7", f"{host}/list:1", f"{host}/arm:1")
        assert docker("inspect", f"{host}/list:1") == ours("inspect", f"{host}/list:1")
        pushed = docker("push", "--insecure", f"{host}/list:1").splitlines()[-1]
        assert ours("push", f"{host}/list:1").splitlines()[-1] == pushed
