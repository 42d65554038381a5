from __future__ import annotations

from pathlib import Path

import pytest

from builder import places
from builder.config import (
    ArchiveLimits,
    CachePolicy,
    Config,
    ConfigError,
    KeyPair,
    RegistryConfig,
    cache_policy,
    is_loopback,
    load,
)


@pytest.fixture(autouse=True)
def no_system_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(places, "SYSTEM_FILE", str(tmp_path / "system.toml"))
    return tmp_path / "system.toml"


def environ(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "xdg"), **more}


def test_no_file_gives_the_defaults(tmp_path: Path) -> None:
    found = load(environ(tmp_path))
    assert found.registries == {}
    assert found.registry("docker.io") == RegistryConfig()
    assert str(tmp_path / "xdg/docker/certs.d") in found.certificate_directories


def test_the_form_of_buildkit(tmp_path: Path) -> None:
    path = tmp_path / "builder.toml"
    path.write_text(
        """
        [registry."docker.io"]
        mirrors = ["127.0.0.1:5050", "mirror.example.com/proxy"]
        [registry."127.0.0.1:5050"]
        http = true
        [registry."private.example.com:5000"]
        insecure = true
        ca = ["ca.pem", "/abs/ca.pem"]
        keypair = [{ key = "k.pem", cert = "c.pem" }]
        [[registry."other".keypair]]
        key = "/k"
        cert = "/c"
        """
    )
    found = load(environ(tmp_path, BUILDER_CONFIG=str(path)))
    assert found.registry("docker.io").mirrors == ("127.0.0.1:5050", "mirror.example.com/proxy")
    assert found.registry("127.0.0.1:5050").http is True
    assert found.registry("docker.io").http is None
    private = found.registry("private.example.com:5000")
    assert private.insecure is True
    assert private.ca == (str(tmp_path / "ca.pem"), "/abs/ca.pem")
    assert private.keypair == (KeyPair(str(tmp_path / "k.pem"), str(tmp_path / "c.pem")),)
    assert found.registry("other").keypair == (KeyPair("/k", "/c"),)


def test_the_users_table_replaces_the_systems(tmp_path: Path, no_system_file: Path) -> None:
    no_system_file.write_text('[registry.a]\nmirrors = ["m"]\nhttp = true\n[registry.b]\nhttp = true\n')
    user = tmp_path / "xdg/builder/builder.toml"
    user.parent.mkdir(parents=True)
    user.write_text('[registry.a]\nmirrors = ["n"]\n')
    found = load(environ(tmp_path))
    assert found.registry("a") == RegistryConfig(mirrors=("n",))
    assert found.registry("b").http is True


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[registry", "not valid TOML"),
        ("\xff", "not valid TOML"),
        ('[registry.a]\nhttp = "yes"', "Expected `bool"),
        ('[registry.a]\nmirror = ["x"]', "unknown field `mirror`"),
        ("[worker]", "unknown field `worker`"),
        ('[registry.a]\nmirrors = "x"', "Expected `array`"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "builder.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load(environ(tmp_path, BUILDER_CONFIG=str(path)))
    assert caught.value.place == str(path)
    assert says in caught.value.cause


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load(environ(tmp_path, BUILDER_CONFIG=str(tmp_path / "none.toml")))
    with pytest.raises(ConfigError, match="cannot be read"):
        load(environ(tmp_path, BUILDER_CONFIG=str(tmp_path)))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("127.0.0.1.evil.com", False),
        ("localhost.evil.com:5000", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_config_needs_no_arguments() -> None:
    assert Config().registries == {}


def test_limits_of_archives(tmp_path: Path) -> None:
    path = tmp_path / "xdg/builder/builder.toml"
    path.parent.mkdir(parents=True)
    assert load(environ(tmp_path)).limits == ArchiveLimits()
    path.write_text("[limits]\nentries = 10\nratio = 0\nload_entries = 7\n")
    assert load(environ(tmp_path)).limits == ArchiveLimits(entries=10, ratio=0, load_entries=7)


@pytest.mark.parametrize("text", ["entries = -1", 'size = "1GB"', "files = 3", "ratio = 1.5"])
def test_wrong_limits(tmp_path: Path, text: str) -> None:
    path = tmp_path / "builder.toml"
    path.write_text(f"[limits]\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        load(environ(tmp_path, BUILDER_CONFIG=str(path)))
    assert "[limits] has entries, size, ratio and load_entries" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", None),
        ('[registry."gcr.io"]\nhttp = true\n', None),
        ("[gc]\n", CachePolicy()),
        ('[gc]\nmax-used-space = "1.5 GiB"\nkeep-duration = "48h"\n', CachePolicy("1.5 GiB", keep_duration="48h")),
        ("[gc]\nreserved-space = 5\nmin-free-space = '10MB'\n", CachePolicy(0, 5, "10MB")),
    ],
)
def test_the_policy_of_the_build_cache(tmp_path: Path, text: str, policy: CachePolicy | None) -> None:
    path = tmp_path / "builder.toml"
    path.write_text(text)
    assert cache_policy(environ(tmp_path, BUILDER_CONFIG=str(path))) == policy
    assert cache_policy(environ(tmp_path)) is None


@pytest.mark.parametrize(
    "wrong",
    [
        "max-used-space = '20%'",
        "max-used-space = ''",
        "max-used-space = '9999999t'",
        "min-free-space = -1",
        "min-free-space = 1.5",
        "keep-duration = ''",
        "keep-duration = '2d'",
        "keep_duration = '2h'",
    ],
)
def test_a_wrong_policy_of_the_build_cache(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "builder.toml"
    path.write_text(f"[gc]\n{wrong}\n")
    with pytest.raises(ConfigError, match="wrong setting") as caught:
        cache_policy(environ(tmp_path, BUILDER_CONFIG=str(path)))
    assert "[gc] has max-used-space" in (caught.value.remedy or "")
