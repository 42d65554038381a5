from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from builder.config import RegistryConfig
from builder.errors import NotFoundError, RegistryError, Unsupported
from builder.oci import reference
from builder.oci.reference import Reference
from builder.oci.spec import DOCKER_MANIFEST, OCI_LAYER, Descriptor, Platform, digest_of
from builder.registry.blobs import fetch_blob
from builder.registry.pull import fetch_manifest, resolve
from builder.registry.transport import Session
from tests.registry.conftest import QUICK, MakeSession
from tests.support.registry import FakeRegistry, Faults, fake_registries

AMD64 = Platform("linux", "amd64")
BLOB = random.Random(1).randbytes(300_000)


def ref(registry: FakeRegistry, rest: str = "app:1") -> Reference:
    return reference.parse(f"{registry.host}/{rest}")


def blob_of(registry: FakeRegistry, data: bytes = BLOB) -> Descriptor:
    return Descriptor(OCI_LAYER, registry.add_blob("app", data), len(data))


# resolve


def test_an_image_without_an_index(registry: FakeRegistry, session: Session) -> None:
    manifest = registry.add_image("app", "1", layers=(b"one", b"two"), architecture="s390x")
    found = resolve(session, ref(registry), AMD64)
    assert found.descriptor.digest == found.manifest_descriptor.digest == manifest["digest"]
    assert digest_of(found.data) == manifest["digest"]
    assert [layer.digest for layer in found.layers] == [digest_of(b"one"), digest_of(b"two")]
    assert str(found.config.platform()) == "linux/s390x"  # whether it fits is the planner's to say
    assert digest_of(found.config_data) == found.manifest.config.digest


def test_a_platform_out_of_an_index(registry: FakeRegistry, session: Session) -> None:
    amd = registry.add_image("app", architecture="amd64")
    arm = registry.add_image("app", architecture="arm64")
    index = registry.add_index("app", "1", amd, arm)
    found = resolve(session, ref(registry), Platform("linux", "arm64"))
    assert found.descriptor.digest == index["digest"]
    assert found.manifest_descriptor.digest == arm["digest"]
    assert found.manifest_descriptor.platform is not None
    assert found.config.architecture == "arm64"
    with pytest.raises(NotFoundError) as caught:
        resolve(session, ref(registry), Platform("linux", "s390x"))
    assert "no image for linux/s390x; it has: linux/amd64, linux/arm64" in caught.value.cause


def test_entries_without_a_platform_are_judged_by_their_configuration(registry: FakeRegistry, session: Session) -> None:
    arm = registry.add_image("app", architecture="arm64")
    amd = registry.add_image("app", architecture="amd64")
    for entry in (arm, amd):
        del entry["platform"]
    registry.add_index("app", "1", arm, amd)
    assert resolve(session, ref(registry), AMD64).manifest_descriptor.digest == amd["digest"]
    with pytest.raises(NotFoundError):
        resolve(session, ref(registry), Platform("linux", "riscv64"))


def test_an_index_within_an_index(registry: FakeRegistry, session: Session) -> None:
    amd = registry.add_image("app")
    registry.add_index("app", "1", registry.add_index("app", None, amd))
    assert resolve(session, ref(registry), AMD64).manifest_descriptor.digest == amd["digest"]


def test_what_indexes_list_many_times_is_asked_for_once(registry: FakeRegistry, session: Session) -> None:
    listed = {**registry.add_image("app", architecture="s390x"), "platform": None}
    for _ in range(3):
        listed = registry.add_index("app", None, *[listed] * 5)
    registry.add_index("app", "1", *[listed] * 5)
    with pytest.raises(NotFoundError, match="has no image for linux/amd64"):
        resolve(session, ref(registry), AMD64)
    assert len(registry.requests) == 1 + 3 + 2


def test_by_digest(registry: FakeRegistry, session: Session) -> None:
    manifest = registry.add_image("app", "1")
    assert resolve(session, ref(registry, f"app@{manifest['digest']}"), AMD64).descriptor.digest == manifest["digest"]
    missing = "sha256:" + "0" * 64
    with pytest.raises(NotFoundError):
        resolve(session, ref(registry, f"app@{missing}"), AMD64)


def test_by_a_digest_of_another_algorithm(registry: FakeRegistry, session: Session) -> None:
    manifest = registry.add_image("app", "1")
    media, data = registry.repositories["app"][manifest["digest"]]
    other = f"sha512:{hashlib.sha512(data).hexdigest()}"
    registry.repositories["app"][other] = media, data
    registry.faults = Faults(only="GET", no_digest_header=True)
    found = resolve(session, ref(registry, f"app@{other}"), AMD64)
    assert found.descriptor.digest == manifest["digest"]  # by which it is kept
    registry.repositories["app"][other] = media, data + b" "
    with pytest.raises(RegistryError, match="wrong manifest"):
        resolve(session, ref(registry, f"app@{other}"), AMD64)


def test_an_image_without_layers_as_buildkit_writes_it(registry: FakeRegistry, session: Session) -> None:
    registry.add_image("app", "1", layers=())
    document = json.loads(registry.repositories["app"]["1"][1]) | {"layers": None}
    registry.add_manifest("app", document, "2")
    assert resolve(session, ref(registry, "app:2"), AMD64).layers == []


def test_docker_types(registry: FakeRegistry, session: Session) -> None:
    registry.add_image("app", "1")
    document = json.loads(registry.repositories["app"]["1"][1]) | {"mediaType": DOCKER_MANIFEST}
    document["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    registry.add_manifest("app", document, "2")
    assert resolve(session, ref(registry, "app:2"), AMD64).descriptor.media_type == DOCKER_MANIFEST


def test_not_found(registry: FakeRegistry, session: Session) -> None:
    with pytest.raises(NotFoundError) as caught:
        resolve(session, ref(registry, "no/such:1"))
    assert caught.value.cause == f"{registry.host}/no/such:1 was not found"
    assert any("MANIFEST_UNKNOWN" in line for line in caught.value.details)


@pytest.mark.parametrize(
    ("document", "error", "says"),
    [
        (b"<html>", RegistryError, "not valid JSON"),
        (b'{"x":' + b"[" * 100_000, RegistryError, "not valid JSON"),
        (b'{"schemaVersion":1,"fsLayers":[]}', Unsupported, "schema 1"),
        (b'{"schemaVersion":2,"manifests":[],"layers":[]}', RegistryError, "ambiguous"),
        (b'{"schemaVersion":2,"mediaType":"application/x"}', Unsupported, "not an image"),
        (b'{"schemaVersion":2,"layers":"x","config":{}}', RegistryError, "not a valid Manifest"),
        (
            b'{"schemaVersion":2,"layers":[],"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json",'
            b'"digest":"sha256:0","size":1}}',
            Unsupported,
            "not an image",
        ),
    ],
)
def test_what_is_no_image(
    registry: FakeRegistry, session: Session, document: bytes, error: type[Exception], says: str
) -> None:
    registry.add_manifest("app", document, "1", "application/vnd.oci.image.manifest.v1+json")
    with pytest.raises(error, match=says):
        resolve(session, ref(registry))


def test_wrong_manifests_are_refused(registry: FakeRegistry, session: Session) -> None:
    manifest = registry.add_image("app", "1")
    registry.faults = Faults(only="manifests", corrupt=True)
    for name in ("app:1", f"app@{manifest['digest']}"):
        with pytest.raises(RegistryError, match="wrong manifest"):
            fetch_manifest(session, ref(registry, name))
    registry.faults = Faults(wrong_digest_header=True)
    with pytest.raises(RegistryError, match="wrong manifest"):
        fetch_manifest(session, ref(registry))
    registry.faults = Faults(only="blobs", corrupt=True)
    with pytest.raises(RegistryError, match="wrong blob"):
        resolve(session, ref(registry))


def test_documents_that_are_at_hand_are_not_fetched(registry: FakeRegistry, session: Session) -> None:
    registry.add_index("app", "1", registry.add_image("app"))
    held: dict[str, bytes] = {}

    def keep(descriptor: Descriptor, fetch: Callable[[], bytes]) -> bytes:
        if descriptor.digest not in held:
            held[descriptor.digest] = fetch()
        return held[descriptor.digest]

    first = resolve(session, ref(registry), AMD64, keep)
    registry.requests.clear()
    assert resolve(session, ref(registry), AMD64, keep) == first
    assert registry.requests == ["GET /v2/app/manifests/1"]
    held[first.manifest_descriptor.digest] += b" "
    with pytest.raises(RegistryError, match="is malformed"):
        resolve(session, ref(registry), AMD64, keep)


# blobs


def test_a_blob_into_a_file_and_a_function(registry: FakeRegistry, session: Session, tmp_path: Path) -> None:
    blob = blob_of(registry)
    seen: list[tuple[int, int]] = []
    with open(tmp_path / "blob", "wb") as file:
        fetch_blob(session, ref(registry), blob, file, lambda done, size: seen.append((done, size)))
    assert (tmp_path / "blob").read_bytes() == BLOB
    assert seen[-1] == (len(BLOB), len(BLOB))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    parts: list[bytes] = []
    fetch_blob(session, ref(registry), blob, parts.append)
    assert b"".join(parts) == BLOB
    assert max(map(len, parts)) <= 1 << 20


def test_an_empty_blob(registry: FakeRegistry, session: Session) -> None:
    fetch_blob(session, ref(registry), blob_of(registry, b""), io.BytesIO())


@pytest.mark.parametrize("no_range", [False, True])
@pytest.mark.parametrize("function", [False, True])
def test_a_cut_connection_is_resumed(registry: FakeRegistry, session: Session, no_range: bool, function: bool) -> None:
    blob = blob_of(registry)
    registry.faults = Faults(only="blobs", cut_after=[100_000, 120_000], no_range=no_range)
    file = io.BytesIO()
    fetch_blob(session, ref(registry), blob, file.write if function else file)
    assert file.getvalue() == BLOB
    assert [headers["range"] for headers in registry.headers[1:]] == [
        "bytes=100000-",
        "bytes=120000-" if no_range else "bytes=220000-",
    ]


@pytest.mark.parametrize("kept", [100_000, len(BLOB), 0])
def test_what_an_earlier_call_left_is_not_fetched_again(registry: FakeRegistry, session: Session, kept: int) -> None:
    blob = blob_of(registry)
    file = io.BytesIO(BLOB[:kept])
    fetch_blob(session, ref(registry), blob, file, resume=True)
    assert file.getvalue() == BLOB
    asked = [headers.get("range") for headers in registry.headers]
    assert asked == {100_000: ["bytes=100000-"], len(BLOB): [], 0: [None]}[kept]


@pytest.mark.parametrize("left", [b"x" * 100_000, b"x" * len(BLOB), b"x" * 400_000])
def test_what_an_earlier_call_left_may_be_wrong(registry: FakeRegistry, session: Session, left: bytes) -> None:
    file = io.BytesIO(left)
    fetch_blob(session, ref(registry), blob_of(registry), file, resume=True)
    assert file.getvalue() == BLOB
    registry.faults = Faults(only="blobs", corrupt=True)
    with pytest.raises(RegistryError, match="wrong blob"):
        fetch_blob(session, ref(registry), blob_of(registry), file := io.BytesIO(left), resume=True)
    assert file.getvalue() == b""  # nothing wrong is left to be gone on with


def test_progress_renews_the_attempts(registry: FakeRegistry, session: Session) -> None:
    blob = blob_of(registry)
    registry.faults = Faults(only="blobs", cut_after=[0, 70_000, 0, 0, 70_000, 0, 0, 70_000])
    file = io.BytesIO()
    fetch_blob(session, ref(registry), blob, file)
    assert file.getvalue() == BLOB


def test_a_connection_that_is_always_cut_fails(registry: FakeRegistry, session: Session) -> None:
    blob = blob_of(registry)
    registry.faults = Faults(only="blobs", cut_after=[10] * 100)
    with pytest.raises(RegistryError, match="broke off"):
        fetch_blob(session, ref(registry), blob, io.BytesIO())
    assert len(registry.requests) == QUICK.attempts


def test_a_server_that_resumes_at_the_wrong_place(registry: FakeRegistry, session: Session) -> None:
    blob = blob_of(registry)
    registry.faults = Faults(only="blobs", cut_after=[100_000], wrong_range=True)
    file = io.BytesIO()
    fetch_blob(session, ref(registry), blob, file)
    assert file.getvalue() == BLOB


def test_a_slow_drip_arrives_and_silence_does_not(registry: FakeRegistry, session_for: MakeSession) -> None:
    session = session_for(patience=msgspec.structs.replace(QUICK, read=1, attempts=2))
    blob = blob_of(registry, BLOB[:5000])
    registry.faults = Faults(only="blobs", drip=0.25)  # 1.25 s in all
    file = io.BytesIO()
    fetch_blob(session, ref(registry), blob, file)
    assert file.getvalue() == BLOB[:5000]
    registry.faults = Faults(silent=60)
    with pytest.raises(RegistryError, match="was silent for 1 s"):
        fetch_blob(session, ref(registry), blob, io.BytesIO())


def test_wrong_bytes_are_refused(registry: FakeRegistry, session: Session) -> None:
    blob = blob_of(registry)
    registry.faults = Faults(corrupt=True)
    file = io.BytesIO()
    with pytest.raises(RegistryError, match="wrong blob"):
        fetch_blob(session, ref(registry), blob, file)
    assert file.getvalue() == b""
    for size in (len(BLOB) - 1, len(BLOB) + 1):
        with pytest.raises(RegistryError, match=f"{len(BLOB)} bytes instead of {size}"):
            fetch_blob(session, ref(registry), msgspec.structs.replace(blob, size=size), io.BytesIO())


def test_errors_of_writing_pass_through(registry: FakeRegistry, session: Session) -> None:
    blob = blob_of(registry)

    def full(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fetch_blob(session, ref(registry), blob, full)
    assert len(registry.requests) == 1


def test_foreign_layers(registry: FakeRegistry, session: Session) -> None:
    digest = registry.add_blob("elsewhere", BLOB)
    url = f"{registry.origin}/v2/elsewhere/blobs/{digest}"
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    file = io.BytesIO()
    fetch_blob(session, ref(registry), Descriptor(kind, digest, len(BLOB), urls=[url]), file)
    assert file.getvalue() == BLOB
    # Only layers that are meant to live elsewhere: an image does not choose whom we talk to.
    with pytest.raises(NotFoundError):
        fetch_blob(session, ref(registry), Descriptor(OCI_LAYER, digest, len(BLOB), urls=[url]), io.BytesIO())


def test_redirected_blobs_without_our_credentials(session_for: MakeSession, tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    with FakeRegistry(auth="basic", users={"u": "p"}) as main, FakeRegistry() as storage:
        auths: dict[str, Any] = {"auths": {main.host: {"username": "u", "password": "p"}}}
        (tmp_path / ".docker/config.json").write_text(json.dumps(auths))
        blob = blob_of(main)
        blob_of(storage)
        main.faults.redirect_blobs = storage.origin
        storage.faults = Faults(statuses=[(403, {})], cut_after=[1000])  # a link that ran out, a cut
        file = io.BytesIO()
        fetch_blob(session_for(), ref(main), blob, file)
        assert file.getvalue() == BLOB
        assert "authorization" in main.headers[-1]
        assert all("authorization" not in headers for headers in storage.headers)


def test_redirects_end(registry: FakeRegistry, session: Session) -> None:
    blob = blob_of(registry)
    registry.faults.redirect_blobs = registry.origin
    with pytest.raises(RegistryError, match="redirects more than"):
        fetch_blob(session, ref(registry), blob, io.BytesIO())


# mirrors


def mirrored(session_for: MakeSession, main: FakeRegistry, *mirrors: str) -> Session:
    return session_for({main.host: RegistryConfig(mirrors=mirrors, http=True)})


def test_a_mirror_is_asked_first(session_for: MakeSession) -> None:
    with fake_registries(2) as (main, mirror):
        mirror.add_image("app", "1")
        resolve(mirrored(session_for, main, mirror.host), ref(main), AMD64)
        assert main.requests == []
        assert mirror.requests[0] == f"GET /v2/app/manifests/1?ns={main.host}"


@pytest.mark.parametrize(
    "faults",
    [
        None,
        Faults(statuses=[(500, {})] * 99),
        Faults(statuses=[(403, {})] * 99),
        Faults(corrupt=True),
        Faults(cut_after=[5] * 99),
        Faults(hang_up=99),
    ],
)
def test_a_mirror_that_fails_is_passed_over(session_for: MakeSession, faults: Faults | None) -> None:
    with fake_registries(2) as (main, mirror):
        main.add_image("app", "1")
        blob = blob_of(main)
        if faults:
            mirror.add_image("app", "1")
            blob_of(mirror)
            mirror.faults = faults
        session = mirrored(session_for, main, mirror.host)
        resolve(session, ref(main), AMD64)
        file = io.BytesIO()
        fetch_blob(session, ref(main), blob, file)
        assert file.getvalue() == BLOB


def test_a_half_and_wrong_blob_of_a_mirror_is_forgotten(session_for: MakeSession) -> None:
    with fake_registries(2) as (main, mirror):
        blob = blob_of(main)
        mirror.blobs = {"app": {blob.digest: bytes(len(BLOB))}}
        mirror.faults = Faults(cut_after=[100_000, 0, 0, 0, 0, 0])
        file = io.BytesIO()
        fetch_blob(mirrored(session_for, main, mirror.host), ref(main), blob, file)
        assert file.getvalue() == BLOB


def test_the_error_names_all_that_was_tried(session_for: MakeSession) -> None:
    with fake_registries(2) as (main, mirror):
        session = mirrored(session_for, main, mirror.host, "http://127.0.0.1:1")
        for _ in range(2):  # the second time the server that is down is asked last
            with pytest.raises(NotFoundError) as caught:
                resolve(session, ref(main), AMD64)
            details = "\n".join(caught.value.details)
            assert f"also tried {mirror.origin} (mirror of {main.host}): not found" in details
            assert "also tried http://127.0.0.1:1" in details
            assert "refuses connections" in details


def test_threads_share_a_session(session_for: MakeSession) -> None:
    with FakeRegistry(auth="token") as registry:
        session = session_for()
        blobs = [blob_of(registry, bytes([number]) * 50_000) for number in range(16)]

        def fetch(blob: Descriptor) -> bytes:
            file = io.BytesIO()
            fetch_blob(session, ref(registry), blob, file)
            return file.getvalue()

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(fetch, blobs))
        assert [digest_of(data) for data in found] == [blob.digest for blob in blobs]
        assert registry.count("GET /token") == 1
