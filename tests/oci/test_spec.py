"""The structures: read leniently, written in one canonical form."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import StoreError
from builder.oci.spec import (
    OCI_LAYER,
    ContainerConfig,
    Descriptor,
    Healthcheck,
    History,
    ImageConfig,
    Index,
    Manifest,
    PlatformRecord,
    RootFS,
    decode,
    digest_of,
    encode,
)

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
DICTIONARIES = st.dictionaries(TEXTS, TEXTS, max_size=3)
DIGEST = digest_of(b"")


def test_the_canonical_bytes_of_a_configuration() -> None:
    config = ImageConfig(
        architecture="amd64",
        os="linux",
        rootfs=RootFS(diff_ids=[DIGEST]),
        config=ContainerConfig(env=["A=1"], cmd=[], labels={"b": "2", "a": "1"}, exposed_ports={"80/tcp": {}}),
        history=[History(created="2020-01-01T00:00:00Z", created_by="RUN x", empty_layer=True)],
    )
    assert encode(config) == (
        b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["' + DIGEST.encode() + b'"]},'
        b'"config":{"ExposedPorts":{"80/tcp":{}},"Env":["A=1"],"Cmd":[],"Labels":{"a":"1","b":"2"}},'
        b'"history":[{"created":"2020-01-01T00:00:00Z","created_by":"RUN x","empty_layer":true}]}'
    )


def test_the_canonical_bytes_of_a_manifest() -> None:
    descriptor = Descriptor(OCI_LAYER, DIGEST, 3, platform=PlatformRecord("arm", "linux", variant="v7"))
    assert encode(Manifest(2, Descriptor("c", DIGEST, 2), [descriptor])) == (
        b'{"schemaVersion":2,"config":{"mediaType":"c","digest":"' + DIGEST.encode() + b'","size":2},'
        b'"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"' + DIGEST.encode() + b'",'
        b'"size":3,"platform":{"architecture":"arm","os":"linux","variant":"v7"}}]}'
    )


@given(DICTIONARIES, st.lists(TEXTS, max_size=3), st.one_of(st.none(), st.lists(TEXTS, max_size=2)))
def test_what_is_written_reads_the_same(labels: dict[str, str], env: list[str], cmd: list[str] | None) -> None:
    inner = ContainerConfig(labels=labels, env=env, cmd=cmd, healthcheck=Healthcheck(test=["NONE"]))
    config = ImageConfig(architecture="a", os="b", config=inner)
    data = encode(config)
    assert decode(data, ImageConfig, "x") == config
    assert encode(decode(data, ImageConfig, "x")) == data
    shuffled = ContainerConfig(
        labels=dict(reversed(labels.items())), env=env, cmd=cmd, healthcheck=Healthcheck(test=["NONE"])
    )
    assert encode(ImageConfig(architecture="a", os="b", config=shuffled)) == data


def test_none_and_empty_are_told_apart() -> None:
    assert json.loads(encode(ContainerConfig(cmd=[], entrypoint=None))) == {"Cmd": []}


def test_reading_is_lenient_about_what_it_does_not_know() -> None:
    data = b'{"architecture":"a","os":"linux","rootfs":{"type":"layers","diff_ids":null},"new":[1],"config":{"Hm":1}}'
    assert decode(data, ImageConfig, "x").os == "linux"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"schemaVersion":"2","manifests":[]}',
        b'{"schemaVersion":2}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_what_is_malformed_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(StoreError, match="the file is not a valid Index"):
        decode(data, Index, "the file")


@pytest.mark.parametrize("text", ['"manifests":null', '"manifests":null,"x":null'])
def test_null_for_an_empty_list(text: str) -> None:
    """As Go's tools write it: BuildKit for an image without layers, umoci for a layout without images."""
    assert decode(f'{{"schemaVersion":2,{text}}}'.encode(), Index, "the file").manifests == []
    config = '"config":{"mediaType":"c","digest":"sha256:0","size":1}'
    manifest = decode(f'{{"schemaVersion":2,{config},"layers":null}}'.encode(), Manifest, "the file")
    assert manifest.layers == []


def test_deep_nesting_in_an_unknown_field() -> None:
    data = b'{"schemaVersion":2,"manifests":[],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(StoreError, match="not a valid Index"):
        decode(data, Index, "the file")


def test_digests() -> None:
    assert digest_of(b"abc") == "sha256:" + hashlib.sha256(b"abc").hexdigest()
