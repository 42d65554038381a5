"""Proxies that Docker's configuration file gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder.cli.docker_proxies import build_proxies, container_proxies
from builder.errors import UsageError
from tests.support.builds import Cli, context

PROXIES = {"httpProxy": "http://p:1", "httpsProxy": "http://p:2", "noProxy": "x,y", "ftpProxy": "", "allProxy": "all"}


def configure(home: Path, proxies: object) -> dict[str, str]:
    (home / ".docker").mkdir(exist_ok=True)
    (home / ".docker/config.json").write_text(json.dumps({"auths": {}, "proxies": proxies}))
    return {"HOME": str(home)}


def test_builds(tmp_path: Path) -> None:
    environ = configure(tmp_path, {"default": PROXIES, "tcp://elsewhere:2376": {"httpProxy": "other"}})
    found = {"HTTP_PROXY": "http://p:1", "HTTPS_PROXY": "http://p:2", "NO_PROXY": "x,y"}
    assert build_proxies([], environ) == found
    assert build_proxies(["http_proxy", "A", "NO_PROXY"], environ) == {"HTTPS_PROXY": "http://p:2"}
    assert build_proxies([], {"HOME": "/", "DOCKER_CONFIG": str(tmp_path / ".docker")}) == found


def test_containers(tmp_path: Path) -> None:
    environ = configure(tmp_path, {"default": PROXIES})
    found = container_proxies(["http_proxy", "NO_PROXY"], environ)
    assert found == {
        "HTTP_PROXY": "http://p:1", "HTTPS_PROXY": "http://p:2", "https_proxy": "http://p:2", "no_proxy": "x,y",
        "ALL_PROXY": "all", "all_proxy": "all",
    }  # fmt: skip


@pytest.mark.parametrize("proxies", [None, {}, {"default": {}}, {"tcp://elsewhere:2376": PROXIES}])
def test_none(tmp_path: Path, proxies: object) -> None:
    assert build_proxies([], configure(tmp_path, proxies)) == {}


@pytest.mark.parametrize("text", [None, "", "{", '{"auths": {}}', "[]"])
def test_a_file_without_them_is_no_matter(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert build_proxies([], {"DOCKER_CONFIG": str(tmp_path)}) == {}


@pytest.mark.parametrize("text", ['{"proxies": ', '{"proxies": [1]}', '{"proxies": {"default": {"httpProxy": 1}}}'])
def test_wrong_ones_are_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match="'proxies' cannot be read") as caught:
        build_proxies([], {"DOCKER_CONFIG": str(tmp_path)})
    assert caught.value.place == str(tmp_path / "config.json")


def test_a_build_has_them_but_no_cache_key(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "c", "FROM scratch\nARG HTTP_PROXY=none\nLABEL proxy=$HTTP_PROXY\nCOPY a /\n", a="a")

    def built(*arguments: str) -> tuple[str, int]:
        done = cli.build("-t", "app", *arguments, directory)
        label = json.loads(cli("inspect", "app").out)[0]["Config"]["Labels"]["proxy"]
        return label, done.cached()

    assert built() == ("none", 0)
    assert built() == ("none", 1)
    configure(Path(cli.environ["HOME"]), {"default": PROXIES})
    assert built() == ("http://p:1", 1), "no note of the builds before answers"
    assert built("--build-arg", "http_proxy=given", "--build-arg", "HTTP_PROXY=mine") == ("mine", 1)
