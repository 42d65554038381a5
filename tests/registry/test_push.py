from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pytest

from builder.config import RegistryConfig
from builder.errors import RegistryError, StoreError
from builder.oci import reference
from builder.oci.reference import Reference
from builder.oci.spec import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Descriptor, Platform, digest_of
from builder.progress import Event, Transfer
from builder.registry.pull import resolve
from builder.registry.push import push
from builder.registry.transport import Session
from tests.registry.conftest import QUICK, MakeSession
from tests.support.registry import FakeRegistry, Faults

AMD64 = Platform("linux", "amd64")


class Blobs:
    """A local store: blobs by digest, and how often each was opened."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.opened: list[str] = []

    def add(self, data: bytes, media_type: str) -> Descriptor:
        self.held[digest_of(data)] = data
        return Descriptor(media_type, digest_of(data), len(data))

    def open(self, digest: str) -> BinaryIO:
        self.opened.append(digest)
        if digest not in self.held:
            raise StoreError(f"no blob {digest}")
        return io.BytesIO(self.held[digest])

    def image(self, *layers: bytes, architecture: str = "amd64", **layer_fields: Any) -> Descriptor:
        config = self.add(
            json.dumps({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers"}}).encode(), OCI_CONFIG
        )
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config.digest, "size": config.size},
            "layers": [
                {"mediaType": OCI_LAYER, "digest": (d := self.add(data, OCI_LAYER)).digest, "size": d.size}
                | layer_fields
                for data in layers
            ],
        }
        return self.add(json.dumps(document).encode(), OCI_MANIFEST)

    def index(self, **images: Descriptor) -> Descriptor:
        entries = [
            {
                "mediaType": image.media_type,
                "digest": image.digest,
                "size": image.size,
                "platform": {"os": "linux", "architecture": architecture},
            }
            for architecture, image in images.items()
        ]
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        return self.add(json.dumps(document).encode(), OCI_INDEX)


@pytest.fixture
def blobs() -> Blobs:
    return Blobs()


def ref(registry: FakeRegistry, rest: str = "app:1") -> Reference:
    return reference.parse(f"{registry.host}/{rest}")


def test_push_and_pull(registry: FakeRegistry, session: Session, blobs: Blobs) -> None:
    image = blobs.image(b"one", b"two" * 1_000_000, b"")
    events: list[Event] = []
    done = push(session, ref(registry), image, blobs.open, tags=["2", "1"], reporter=events.append)
    assert done.digest == image.digest
    assert len(done.uploaded) == 4
    for tag in ("app:1", "app:2", f"app@{image.digest}"):
        assert resolve(session, ref(registry, tag), AMD64).descriptor.digest == image.digest
    last_upload = max(number for number, request in enumerate(registry.requests) if "/blobs/uploads/" in request)
    assert registry.requests.index("PUT /v2/app/manifests/1") > last_upload
    large = digest_of(b"two" * 1_000_000)
    assert Transfer(f"pushing {large[:19]}", 3_000_000, 3_000_000, "sent") in events


def test_nothing_is_sent_twice(registry: FakeRegistry, session: Session, blobs: Blobs) -> None:
    first = blobs.image(b"base", b"one", b"one")
    push(session, ref(registry), first, blobs.open)
    registry.requests.clear()
    blobs.opened.clear()
    assert push(session, ref(registry), first, blobs.open).uploaded == ()
    assert registry.requests == ["HEAD /v2/app/manifests/1"]
    assert blobs.opened == []
    registry.requests.clear()
    push(session, ref(registry, "app:2"), first, blobs.open)
    assert registry.count("POST") == 0
    assert registry.count("PUT") == 1
    done = push(session, ref(registry, "app:3"), blobs.image(b"base", b"two"), blobs.open)
    assert digest_of(b"two") in done.uploaded
    assert digest_of(b"base") in done.present


def test_blobs_are_mounted(registry: FakeRegistry, session: Session, blobs: Blobs) -> None:
    base = registry.add_blob("library/debian", b"base")
    image = blobs.image(b"base", b"new")
    origins = {base: ["app", "library/debian"], digest_of(b"new"): ["library/debian"]}
    done = push(session, ref(registry), image, blobs.open, origins=lambda: origins)
    assert done.mounted == (base,)
    assert base not in blobs.opened
    assert digest_of(b"new") in done.uploaded  # not there: the registry answers the mount with an upload


@pytest.mark.parametrize("refusal", [(404, {}), (403, {})])
def test_mounts_that_fail_become_uploads(
    registry: FakeRegistry, session: Session, blobs: Blobs, refusal: tuple[int, dict[str, str]]
) -> None:
    image = blobs.image(b"base")
    registry.faults = Faults(only="POST .*mount=", statuses=[refusal])
    done = push(session, ref(registry), image, blobs.open, origins=lambda: {digest_of(b"base"): ["other"]})
    assert len(done.uploaded) == 2


def test_an_index_with_its_images(registry: FakeRegistry, session: Session, blobs: Blobs) -> None:
    index = blobs.index(amd64=blobs.image(b"x"), arm64=blobs.image(b"y", architecture="arm64"))
    push(session, ref(registry), index, blobs.open)
    found = resolve(session, ref(registry), Platform("linux", "arm64"))
    assert found.descriptor.digest == index.digest
    assert found.config.architecture == "arm64"


def test_an_index_of_which_one_image_is_not_here(registry: FakeRegistry, session: Session, blobs: Blobs) -> None:
    arm = blobs.image(b"y", architecture="arm64")
    index = blobs.index(amd64=blobs.image(b"x"), arm64=arm)
    manifest = blobs.held.pop(arm.digest)
    with pytest.raises(StoreError, match="no blob"):
        push(session, ref(registry), index, blobs.open)
    registry.add_manifest("app", manifest)
    push(session, ref(registry), index, blobs.open)


def test_by_digest_without_a_tag(registry: FakeRegistry, session: Session, blobs: Blobs) -> None:
    image = blobs.image(b"x")
    push(session, ref(registry, f"app@{image.digest}"), image, blobs.open)
    assert list(registry.repositories["app"]) == [image.digest]


def test_foreign_layers_stay_where_they_are(registry: FakeRegistry, session: Session, blobs: Blobs) -> None:
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    image = blobs.image(b"x", mediaType=kind, urls=["https://example.com/x"])
    done = push(session, ref(registry), image, blobs.open)
    assert digest_of(b"x") not in done.uploaded


def test_broken_uploads_start_anew(registry: FakeRegistry, session: Session, blobs: Blobs) -> None:
    image = blobs.image(b"x" * 5_000_000)
    registry.faults = Faults(drop_uploads=3)
    push(session, ref(registry), image, blobs.open)
    assert resolve(session, ref(registry), AMD64).descriptor.digest == image.digest


@pytest.mark.parametrize("only", ["HEAD .*blobs", "POST", "PUT .*uploads", "PUT .*manifests"])
def test_statuses_that_are_tried_again(registry: FakeRegistry, session: Session, blobs: Blobs, only: str) -> None:
    image = blobs.image(b"x")
    registry.faults = Faults(only=only, statuses=[(503, {}), (429, {"Retry-After": "0"})])
    push(session, ref(registry), image, blobs.open)
    assert resolve(session, ref(registry), AMD64).descriptor.digest == image.digest


def test_a_failure_stops_the_other_uploads(registry: FakeRegistry, session: Session, blobs: Blobs) -> None:
    image = blobs.image(*(bytes([number]) * 100 for number in range(20)))
    registry.faults = Faults(only="PUT", statuses=[(400, {})] * 99)
    with pytest.raises(RegistryError, match="answered 400 Bad Request for blob"):
        push(session, ref(registry), image, blobs.open)
    assert registry.count("PUT") <= 8
    assert "app" not in registry.repositories


def test_a_local_blob_that_is_cut_short(registry: FakeRegistry, session: Session, blobs: Blobs) -> None:
    image = blobs.image(b"x" * 100)
    blobs.held[digest_of(b"x" * 100)] = b"x" * 50
    with pytest.raises(StoreError, match="does not have its size"):
        push(session, ref(registry), image, blobs.open)


def test_authentication(session_for: MakeSession, tmp_path: Path, blobs: Blobs) -> None:
    with FakeRegistry(auth="token", users={"u": "p"}) as registry:
        image = blobs.image(b"base", b"x")
        with pytest.raises(RegistryError, match="refuses access"):
            push(session_for(), ref(registry), image, blobs.open)
        (tmp_path / ".docker").mkdir()
        auths = {"auths": {registry.host: {"username": "u", "password": "p"}}}
        (tmp_path / ".docker/config.json").write_text(json.dumps(auths))
        base = registry.add_blob("library/debian", b"base")
        registry.requests.clear()
        done = push(session_for(), ref(registry), image, blobs.open, origins=lambda: {base: ["library/debian"]})
        assert done.mounted == (base,)
        assert registry.count("GET /token") == 2  # one for the repository, one with the origin of the mount


def test_origins_are_looked_for_only_when_there_is_something_to_send(
    registry: FakeRegistry, session: Session, blobs: Blobs
) -> None:
    asked: list[int] = []

    def origins() -> dict[str, list[str]]:
        asked.append(len(blobs.opened))
        return {}

    image = blobs.image(b"x")
    push(session, ref(registry), image, blobs.open, origins=origins)
    assert asked == [1]  # the manifest
    push(session, ref(registry), image, blobs.open, origins=origins)
    push(session, ref(registry, "app:2"), image, blobs.open, origins=origins)
    assert asked == [1]


def test_mirrors_are_not_pushed_to(registry: FakeRegistry, session_for: MakeSession, blobs: Blobs) -> None:
    session = session_for({registry.host: RegistryConfig(mirrors=("127.0.0.1:1",))})
    push(session, ref(registry), blobs.image(b"x"), blobs.open)


def test_uploads_run_side_by_side_but_not_all(registry: FakeRegistry, session: Session, blobs: Blobs) -> None:
    image = blobs.image(*(bytes([number]) * 100 for number in range(8)))
    registry.faults = Faults(only="PUT .*uploads", silent=0.1, meet=4)
    push(session, ref(registry), image, blobs.open)
    assert registry.most_waiting == 4
    assert registry.count("POST") == 9


def test_a_registry_that_writes_its_own_name_otherwise(session_for: MakeSession, tmp_path: Path, blobs: Blobs) -> None:
    with FakeRegistry(auth="basic", users={"u": "p"}, address="127.0.0.1") as registry:
        host = registry.host.replace("127.0.0.1", "localhost")
        registry.faults = Faults(uploads_at=f"HTTP://LOCALHOST:{registry.host.partition(':')[2]}")
        (tmp_path / ".docker").mkdir()
        (tmp_path / ".docker/config.json").write_text(json.dumps({"auths": {host: {"username": "u", "password": "p"}}}))
        push(session_for(), reference.parse(f"{host}/app:1"), blobs.image(b"x"), blobs.open)
        assert "1" in registry.repositories["app"]


def test_cookies_are_not_shown(session_for: MakeSession, blobs: Blobs) -> None:
    with FakeRegistry(auth="token", faults=Faults(cookies=True)) as registry:
        push(session_for(), ref(registry), blobs.image(b"x"), blobs.open)
        assert "1" in registry.repositories["app"]


def test_an_upload_that_breaks_after_the_budget_is_tried_again(
    registry: FakeRegistry, session_for: MakeSession, blobs: Blobs
) -> None:
    """What limits the time is for failing and waiting, not for sending."""
    image = blobs.image(b"x" * 5_000_000)
    opened = blobs.open

    def slowly(digest: str) -> BinaryIO:
        file = opened(digest)
        if len(blobs.held[digest]) < 1_000_000:
            return file

        class Slow(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                time.sleep(0.3)
                return super().read(size)

        return Slow(file.read())

    registry.faults = Faults(only=f"PUT .*{digest_of(b'x' * 5_000_000)[7:]}", hang_up=1)
    session = session_for(patience=msgspec.structs.replace(QUICK, budget=1.2))
    push(session, ref(registry), image, slowly)
    assert resolve(session, ref(registry), AMD64).descriptor.digest == image.digest


@pytest.mark.parametrize("location", ["http://[x", "http://h:port"])
def test_a_location_that_is_no_url(session: Session, registry: FakeRegistry, blobs: Blobs, location: str) -> None:
    registry.faults = Faults(uploads_at=location)
    with pytest.raises(RegistryError, match="is not a URL"):
        push(session, ref(registry), blobs.image(b"x"), blobs.open)
