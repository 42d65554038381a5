"""`builder imagetools`: images of registries shown and combined as by buildx."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.builds import Cli, text
from tests.support.registry import OCI_MANIFEST, FakeRegistry, digest_of, fake_registries


def add_multi(registry: FakeRegistry, *, attested: bool = False) -> list[dict[str, Any]]:
    """`app:1` for two platforms, perhaps with an attestation about the first; the entries of its index."""
    entries = [registry.add_image("app"), registry.add_image("app", architecture="arm64", layers=(b"arm",))]
    if attested:
        entries.append(attestation(registry, entries[0]["digest"]))
    registry.add_index("app", "1", *entries)
    return entries


def attestation(registry: FakeRegistry, about: str) -> dict[str, Any]:
    layers = []
    for kind, predicate in (("https://slsa.dev/provenance/v1", {"builder": "b"}), ("https://spdx.dev/Document", [1])):
        data = json.dumps({"predicateType": kind, "predicate": predicate}).encode()
        layers.append(
            {
                "mediaType": "application/vnd.in-toto+json",
                "digest": registry.add_blob("app", data),
                "size": len(data),
                "annotations": {"in-toto.io/predicate-type": kind},
            }
        )
    config = b'{"architecture":"unknown","os":"unknown"}'
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": registry.add_blob("app", config),
            "size": len(config),
        },
        "layers": layers,
    }
    digest = registry.add_manifest("app", manifest)
    return {
        "mediaType": OCI_MANIFEST,
        "digest": digest,
        "size": len(json.dumps(manifest)),
        "platform": {"architecture": "unknown", "os": "unknown"},
        "annotations": {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": about,
        },
    }


# inspect


def test_inspect_an_index(cli: Cli, registry: FakeRegistry) -> None:
    first, second, about = add_multi(registry, attested=True)
    digest = digest_of(registry.repositories["app"]["1"][1])
    name = f"{registry.host}/app"
    expected = f"""\
Name:      {name}:1
MediaType: application/vnd.oci.image.index.v1+json
Digest:    {digest}

Manifests:
  Name:      {name}@{first["digest"]}
  MediaType: application/vnd.oci.image.manifest.v1+json
  Platform:  linux/amd64

  Name:      {name}@{second["digest"]}
  MediaType: application/vnd.oci.image.manifest.v1+json
  Platform:  linux/arm64

  Name:      {name}@{about["digest"]}
  MediaType: application/vnd.oci.image.manifest.v1+json
  Platform:  unknown/unknown
  Annotations:
    vnd.docker.reference.type:   attestation-manifest
    vnd.docker.reference.digest: {first["digest"]}
"""
    assert text(cli("imagetools", "inspect", f"{name}:1")) == expected
    assert text(cli("imagetools", "inspect", "--format", "{{ .Manifest }}", f"{name}:1")) == expected
    assert registry.count("GET") == 2  # nothing but the index


def test_inspect_raw(cli: Cli, registry: FakeRegistry) -> None:
    add_multi(registry)
    done = cli("imagetools", "inspect", "--raw", f"{registry.host}/app:1")
    assert done.out == registry.repositories["app"]["1"][1]
    assert cli("imagetools", "inspect", "--raw", "--format", "x", f"{registry.host}/app:1").status == 2


def test_inspect_by_templates(cli: Cli, registry: FakeRegistry) -> None:
    first, _ = add_multi(registry)
    name = f"{registry.host}/app:1"

    def shown(form: str, which: str = name) -> str:
        return text(cli("imagetools", "inspect", "--format", form, which)).removesuffix("\n")

    assert shown("{{.Name}} {{.Manifest.Digest}}") == f"{name} {digest_of(registry.repositories['app']['1'][1])}"
    assert shown("{{range .Manifest.Manifests}}{{.Platform.Architecture}} {{end}}") == "amd64 arm64 "
    index = json.loads(shown("{{json .Manifest}}"))
    assert index["manifests"] == json.loads(registry.repositories["app"]["1"][1])["manifests"]
    assert "\n  " in shown("{{json .Manifest}}")  # indented, as by buildx
    assert registry.count("GET .*/blobs/") == 0
    images = json.loads(shown("{{json .Image}}"))
    assert images["linux/arm64"]["rootfs"]["diff_ids"] == [digest_of(b"arm")]
    assert shown('{{(index .Image "linux/amd64").Config.Env}}') == "[PATH=/bin]"
    assert sorted(json.loads(shown("{{json .}}"))) == ["image", "manifest", "name"]
    lone = f"{registry.host}/app@{first['digest']}"
    assert json.loads(shown("{{json .Manifest}}", lone))["digest"] == first["digest"]
    assert shown("{{.Image.Architecture}} {{.Image.OS}} {{.Image.RootFS.Type}}", lone) == "amd64 linux layers"
    refused = cli("imagetools", "inspect", "--format", "{{.Nope}}", name)
    assert refused.status == 2
    assert "there is no field 'Nope'" in refused.err


def test_attestations(cli: Cli, registry: FakeRegistry) -> None:
    add_multi(registry, attested=True)
    name = f"{registry.host}/app:1"
    assert json.loads(text(cli("imagetools", "inspect", "--format", "{{json .Provenance}}", name))) == {
        "linux/amd64": {"SLSA": {"builder": "b"}}
    }
    assert text(cli("imagetools", "inspect", "--format", '{{(index .SBOM "linux/amd64").SPDX}}', name)) == "[1]\n"
    registry.add_image("bare", "1")
    assert text(cli("imagetools", "inspect", "--format", "{{json .SBOM}}", f"{registry.host}/bare:1")) == "{}\n"


# create


def test_create(cli: Cli, registry: FakeRegistry, tmp_path: Path) -> None:
    amd, arm = registry.add_image("amd", "1"), registry.add_image("arm", "1", architecture="arm64")
    host = registry.host
    tags = ["-t", f"{host}/both:1", "-t", f"{host}/both:2", "-t", f"{host}/other:1"]
    done = cli(
        "imagetools", "create", *tags, "--annotation", "index:a=b", "--metadata-file", tmp_path / "metadata",
        f"{host}/amd:1", f"{host}/arm:1",
    )  # fmt: skip
    assert done.status == 0, done.err
    data = registry.repositories["both"]["1"][1]
    document = json.loads(data)
    assert [one["digest"] for one in document["manifests"]] == [amd["digest"], arm["digest"]]
    assert document["annotations"] == {"a": "b"}
    assert registry.repositories["both"]["2"] == registry.repositories["other"]["1"]
    assert f"pushed {digest_of(data)} to {host}/both:2" in done.err
    assert json.loads((tmp_path / "metadata").read_text()) == {
        "containerimage.descriptor": {
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": digest_of(data),
            "size": len(data),
        },
        "image.name": f"{host}/both,{host}/other",
    }
    assert text(cli("pull", "--platform", "linux/arm64", "-q", f"{host}/both:1"))


def test_create_shows_and_appends(cli: Cli, registry: FakeRegistry, tmp_path: Path) -> None:
    amd, arm = registry.add_image("app", "1"), registry.add_image("app", "arm", architecture="arm64")
    host = registry.host
    shown = text(cli("imagetools", "create", "--dry-run", f"{host}/app:1", arm["digest"]))
    assert [one["digest"] for one in json.loads(shown)["manifests"]] == [amd["digest"], arm["digest"]]
    assert cli("imagetools", "create", "--append", "-t", f"{host}/app:1", f"{host}/app:arm").status == 0
    assert registry.repositories["app"]["1"][1] + b"\n" == shown.encode()
    descriptor = {"digest": arm["digest"], "platform": {"os": "linux", "architecture": "mips"}}
    (tmp_path / "descriptor").write_text(json.dumps(descriptor))
    shown = text(cli("imagetools", "create", "--dry-run", "-t", f"{host}/app:2", "-f", tmp_path / "descriptor"))
    assert json.loads(shown)["manifests"][0]["platform"]["architecture"] == "mips"
    one = cli("imagetools", "create", "--platform", "linux/arm64", "-t", f"{host}/app:arm64", f"{host}/app:1")
    assert one.status == 0
    assert len(json.loads(registry.repositories["app"]["arm64"][1])["manifests"]) == 1
    copy = cli("imagetools", "create", "--no-prefer-index", "-t", f"{host}/copy:1", f"{host}/app:arm")
    assert copy.status == 0, copy.err
    assert registry.repositories["copy"]["1"] == registry.repositories["app"]["arm"]


def test_create_over_two_registries(cli: Cli) -> None:
    with fake_registries(2) as (one, two):
        image = one.add_image("app", "1", layers=(b"x" * 100_000,))
        assert cli("imagetools", "create", "-t", f"{two.host}/app:1", f"{one.host}/app:1").status == 0
        assert two.blobs["app"] == one.blobs["app"]
        assert image["digest"] in two.repositories["app"]
        assert cli.leftovers() == []


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["-t", "x.io/a"], 2, "there are no sources"),
        (["x.io/a"], 2, "has no name"),
        (["-t", "x.io/a", "-t", "x.io/b", "sha256:" + "0" * 64], 2, "is not known"),
        (["-t", "x.io/a", "sha256:0"], 1, "is not a digest"),
        (["-t", "x.io/a", "{"], 2, "not a valid descriptor"),
        (["-t", "x.io/a", '{"schemaVersion": 2}'], 2, "a manifest, not a descriptor"),
        (["-t", "x.io/a", "-f", "/nonexistent"], 2, "cannot be read"),
        (["-t", "x.io/a", "--annotation", "a=b", "x.io/b"], 1, "would change the images"),
        (["-t", "x.io/a", "--platform", "a/b/c/d", "x.io/b"], 2, "invalid platform"),
    ],
)
def test_wrong_usage_of_create(cli: Cli, arguments: list[str], status: int, says: str) -> None:
    done = cli("imagetools", "create", *arguments)
    assert (done.status, says in done.err) == (status, True), done.err


def test_a_digest_is_that_of_the_bytes(cli: Cli, registry: FakeRegistry) -> None:
    add_multi(registry)
    raw = cli("imagetools", "inspect", "--raw", f"{registry.host}/app:1").out
    shown = text(cli("imagetools", "inspect", "--format", "{{.Manifest.Digest}}", f"{registry.host}/app:1"))
    assert shown.strip() == f"sha256:{hashlib.sha256(raw).hexdigest()}"
