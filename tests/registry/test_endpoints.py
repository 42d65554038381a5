from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from builder.config import Config, KeyPair, RegistryConfig
from builder.errors import RegistryError
from builder.registry.endpoints import endpoints, tls_context, tls_files
from tests.support.certificates import make_certificates


def origins(config: Config, domain: str, *, push: bool = False) -> list[str]:
    return [endpoint.origin for endpoint in endpoints(config, domain, push=push)]


def test_mirrors_come_first_and_serve_pulls_only() -> None:
    config = Config({"docker.io": RegistryConfig(mirrors=("127.0.0.1:5050", "mirror.example.com/a/b/", "http://x:1"))})
    found = endpoints(config, "docker.io")
    assert [endpoint.origin for endpoint in found] == [
        "http://127.0.0.1:5050",
        "https://mirror.example.com",
        "http://x:1",
        "https://registry-1.docker.io",
    ]
    assert found[1].url("library/x", "manifests/1") == (
        "https://mirror.example.com/v2/a/b/library/x/manifests/1?ns=docker.io"
    )
    assert found[1].repository("library/x") == "a/b/library/x"
    assert found[3].url("library/x", "manifests/1") == "https://registry-1.docker.io/v2/library/x/manifests/1"
    assert origins(config, "docker.io", push=True) == ["https://registry-1.docker.io"]


@pytest.mark.parametrize(
    ("host", "settings", "scheme"),
    [
        ("example.com", RegistryConfig(), "https"),
        ("example.com", RegistryConfig(http=True), "http"),
        ("example.com", RegistryConfig(insecure=True), "https"),
        ("localhost:5000", RegistryConfig(), "http"),
        ("[::1]:5000", RegistryConfig(), "http"),
        ("localhost:5000", RegistryConfig(http=False), "https"),
        ("localhost:5000", RegistryConfig(insecure=True), "https"),
        ("localhost:5000", RegistryConfig(ca=("x",)), "https"),
        ("localhost:443", RegistryConfig(), "https"),
    ],
)
def test_http_or_https(host: str, settings: RegistryConfig, scheme: str) -> None:
    assert origins(Config({host: settings}), host) == [f"{scheme}://{host}"]


def test_certificate_directories(tmp_path: Path) -> None:
    directory = tmp_path / "localhost:5000"
    directory.mkdir()
    for name in ("b.crt", "a.crt", "client.cert", "client.key", "README"):
        (directory / name).write_text("")
    config = Config({}, (str(tmp_path),))
    (endpoint,) = endpoints(config, "localhost:5000")
    assert endpoint.scheme == "https"
    found = tls_files(config, endpoint)
    assert found.ca == (str(directory / "a.crt"), str(directory / "b.crt"))
    assert found.keypairs == (KeyPair(str(directory / "client.key"), str(directory / "client.cert")),)
    with pytest.raises(RegistryError, match="CA certificate cannot be read") as caught:
        tls_context(config, endpoint)
    assert caught.value.place == str(directory / "a.crt")


def test_authorities_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables are OpenSSL's own."""
    (endpoint,) = endpoints(Config(), "example.com")
    made = make_certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_FILE", str(made / "ca.crt"))
    context = tls_context(Config(), endpoint)
    assert len(context.get_ca_certs()) == 1
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    (tmp_path / "empty.crt").write_text("")
    for name in ("empty.crt", "missing.crt"):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / name))
        tls_context(Config(), endpoint)
    assert len(tls_context(Config(), endpoint).get_ca_certs()) > 10  # there are none: certifi's


@pytest.mark.parametrize("text", ["ftp://x", "user:pass@host", "/path", ""])
def test_wrong_mirrors(text: str) -> None:
    with pytest.raises(RegistryError, match="not a mirror"):
        endpoints(Config({"a": RegistryConfig(mirrors=(text,))}), "a")
