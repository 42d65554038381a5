"""New images out of those in registries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builder.errors import NotFoundError, RegistryError, UsageError
from builder.oci import reference
from builder.oci.spec import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Platform,
    PlatformRecord,
)
from builder.registry.indexes import Combined, Remote, Source, combine, read_source
from builder.registry.push import Pushed, push
from builder.registry.transport import Session
from tests.registry.conftest import MakeSession
from tests.support.registry import FakeRegistry, digest_of, fake_registries

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
REFERENCE = reference.parse("x.io/app:1")


def digest(text: str) -> str:
    return digest_of(text.encode())


def entry(name: str, architecture: str = "", kind: str = OCI_MANIFEST, **annotations: str) -> Descriptor:
    platform = PlatformRecord(architecture, "linux") if architecture else None
    return Descriptor(kind, digest(name), 10, platform=platform, annotations=annotations or None)


def index_of(*entries: Descriptor, kind: str = OCI_INDEX) -> Source:
    made = combine([Source(REFERENCE, one, b"") for one in entries], prefer_index=True)
    return Source(REFERENCE, Descriptor(kind, made.descriptor.digest, made.descriptor.size), made.data)


def listed(image: Combined) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(image.data)["manifests"]
    return found


def test_images_and_indexes_are_listed_one_by_one_and_once() -> None:
    amd, arm, other = entry("a", "amd64"), entry("b", "arm64"), entry("c", "s390x")
    made = combine([index_of(amd, arm), Source(REFERENCE, other, b""), Source(REFERENCE, amd, b"")])
    assert [one["digest"] for one in listed(made)] == [amd.digest, arm.digest, other.digest]
    assert made.descriptor.media_type == OCI_INDEX
    assert made.descriptor.digest == digest_of(made.data)
    assert made.descriptor.size == len(made.data)
    assert set(made.sources) == {amd.digest, arm.digest, other.digest}


def test_the_form_is_buildxs() -> None:
    text = combine([Source(REFERENCE, entry("a", "amd64"), b"")]).data.decode()
    assert text == (
        '{\n  "schemaVersion": 2,\n  "mediaType": "application/vnd.oci.image.index.v1+json",\n  "manifests": [\n'
        '    {\n      "mediaType": "application/vnd.oci.image.manifest.v1+json",\n'
        f'      "digest": "{digest("a")}",\n      "size": 10,\n'
        '      "platform": {\n        "architecture": "amd64",\n        "os": "linux"\n      }\n    }\n  ]\n}'
    )


def test_a_lone_source_is_taken_as_it_is() -> None:
    index = index_of(entry("a", "amd64"), entry("b", "arm64"))
    assert combine([index]).data == index.data
    image = Source(REFERENCE, entry("a", "amd64"), b"the manifest")
    assert combine([image], prefer_index=False).data == b"the manifest"
    assert combine([image]).descriptor.media_type == OCI_INDEX


def test_dockers_type_where_all_are_of_it() -> None:
    docker = [entry("a", "amd64", DOCKER_MANIFEST), entry("b", "arm64", DOCKER_MANIFEST)]
    assert combine([Source(REFERENCE, one, b"") for one in docker]).descriptor.media_type == DOCKER_INDEX
    mixed = [*docker, entry("c", "s390x")]
    assert combine([Source(REFERENCE, one, b"") for one in mixed]).descriptor.media_type == OCI_INDEX
    with pytest.raises(UsageError, match="cannot have annotations"):
        combine([Source(REFERENCE, one, b"") for one in docker], annotations={"a": "b"})


def test_annotations() -> None:
    made = combine(
        [index_of(entry("a", "amd64", old="1"), entry("b", "arm64"))],
        annotations={"of": "index"},
        descriptor_annotations=[(ARM64, "of", "arm"), (None, "all", "x")],
    )
    assert json.loads(made.data)["annotations"] == {"of": "index"}
    assert [one["annotations"] for one in listed(made)] == [{"old": "1", "all": "x"}, {"of": "arm", "all": "x"}]


def test_platforms_with_their_attestations() -> None:
    about = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest("b")}
    attestation = entry("t", "unknown", **about)
    index = index_of(entry("a", "amd64"), entry("b", "arm64"), attestation)
    made = combine([index], platforms=[ARM64])
    assert [one["digest"] for one in listed(made)] == [digest("b"), digest("t")]
    assert combine([index], platforms=[ARM64, AMD64]).data == index.data
    with pytest.raises(NotFoundError):
        combine([index], platforms=[Platform("linux", "riscv64")])
    with pytest.raises(UsageError):
        combine([Source(REFERENCE, entry("a", "amd64"), b"")], platforms=[ARM64], prefer_index=False)


# with registries


def test_a_platform_comes_from_the_configuration(registry: FakeRegistry, session: Session) -> None:
    registry.add_image("app", "1", architecture="arm", variant="v6")
    name = reference.parse(f"{registry.host}/app:1")
    assert read_source(session, name).descriptor.platform == PlatformRecord("arm", "linux", variant="v6")
    given = Descriptor("", "", 0, platform=PlatformRecord("mips", ""))
    assert read_source(session, name, given).descriptor.platform == PlatformRecord("mips", "linux")
    with pytest.raises(RegistryError, match="bytes, not 7"):
        read_source(session, name, Descriptor("", "", 7))


def push_combined(session: Session, scratch: Path, target: str, *sources: str) -> Pushed:
    image = combine([read_source(session, reference.parse(source)) for source in sources])
    name = reference.parse(target)
    remote = Remote(session, image, str(scratch), name.domain)
    return push(session, name, image.descriptor, remote.open, origins=remote.origins)


def test_within_a_registry_blobs_are_mounted(registry: FakeRegistry, session: Session, tmp_path: Path) -> None:
    registry.add_image("one", "1", layers=(b"a", b"shared"))
    registry.add_index("two", "1", registry.add_image("two", layers=(b"b", b"shared"), architecture="arm64"))
    host = registry.host
    done = push_combined(session, tmp_path, f"{host}/both:1", f"{host}/one:1", f"{host}/two:1")
    assert not done.uploaded
    assert len(done.mounted) == 5
    assert registry.count("GET /v2/.*/blobs/sha256:" + digest_of(b"a")[7:]) == 0
    manifests = json.loads(registry.repositories["both"]["1"][1])["manifests"]
    assert [one["platform"]["architecture"] for one in manifests] == ["amd64", "arm64"]
    assert push_combined(session, tmp_path, f"{host}/both:1", f"{host}/one:1", f"{host}/two:1").present == ()


def test_between_registries_blobs_are_copied(session_for: MakeSession, tmp_path: Path) -> None:
    with fake_registries(2) as (one, two):
        one.add_image("app", "1", layers=(b"a" * 100_000, b"b"))
        done = push_combined(session_for(), tmp_path, f"{two.host}/app:1", f"{one.host}/app:1")
        assert len(done.uploaded) == 3
        assert two.blobs["app"] == one.blobs["app"]
        assert list(tmp_path.glob("tmp*")) == []


def test_a_wrong_blob_is_not_passed_on(session_for: MakeSession, tmp_path: Path) -> None:
    with fake_registries(2) as (one, two):
        one.add_image("app", "1", layers=(b"a" * 1000,))
        one.faults.corrupt, one.faults.only = True, digest_of(b"a" * 1000)
        with pytest.raises(RegistryError, match="wrong blob"):
            push_combined(session_for(), tmp_path, f"{two.host}/app:1", f"{one.host}/app:1")
        assert digest_of(b"a" * 1000) not in two.blobs.get("app", {})
        assert "app" not in two.repositories
