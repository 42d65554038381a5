"""Layers of the step cache that were made before a secret was given."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from builder.filesystem import moments
from builder.store.layers import Layers
from tests.support.builds import Cli, Done, context

VALUE = b"tok/en+s3cr3t~0xC0FFEE?"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setattr(moments, "_ROUNDED", -(10**12))  # files are recognised however new they are
    (tmp_path / "secret").write_bytes(VALUE + b"\n")
    return Cli(tmp_path / "store")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The diff IDs of layers whose streams are read."""
    found: list[str] = []
    real = Layers.open_tar

    def open_tar(self: Layers, diff_id: str) -> object:
        found.append(diff_id)
        return real(self, diff_id)

    monkeypatch.setattr(Layers, "open_tar", open_tar)
    return found


def build(cli: Cli, made: Path, *options: str | Path) -> Done:
    return cli("build", "--progress", "plain", "-t", "app", *options, made)


def secret(tmp_path: Path, name: str = "npm") -> tuple[str, str]:
    return "--secret", f"id={name},src={tmp_path / 'secret'}"


def test_a_cached_layer_with_the_secret_is_refused(cli: Cli, tmp_path: Path) -> None:
    made = context(
        tmp_path / "c", "FROM scratch\nCOPY a /a\nCOPY . /app/\nCOPY a /b\n", a="1", conf__env=b"TOKEN=" + VALUE + b"\n"
    )
    assert build(cli, made).status == 0
    before = cli.image_id("app")
    for _ in range(2):
        done = build(cli, made, *secret(tmp_path), "--label", "x=y")
        assert done.status == 1
        assert done.cached() == 3
        assert (
            "error: Dockerfile:3: the value of secret 'npm' would be in the image, in a layer of the step cache:"
            " the content of /app/conf/env" in done.err
        )
        assert "builder prune -a" in done.err
    assert cli.image_id("app") == before
    (made / ".dockerignore").write_text("conf\n")
    assert build(cli, made, *secret(tmp_path)).status == 0


@pytest.mark.parametrize("name", ["a" * 90 + VALUE.decode().replace("/", "%2F"), VALUE.decode().replace("/", "%2f")])
def test_names_are_searched_too(cli: Cli, tmp_path: Path, name: str) -> None:
    made = context(tmp_path / "c", "FROM scratch\nCOPY . /app/\n")
    (tmp_path / "secret").write_text(name)
    (made / name).write_text("1")
    assert build(cli, made).status == 0
    done = build(cli, made, *secret(tmp_path))
    assert "in a layer of the step cache: the name or link of /app/***" in done.err


def test_each_layer_is_searched_once_for_a_secret(cli: Cli, tmp_path: Path, opened: list[str]) -> None:
    made = context(tmp_path / "c", "FROM scratch\nCOPY a /a\nCOPY b /b\n", a="1", b="2")
    assert build(cli, made).status == 0
    diff_ids = sorted(cli.config("app")["rootfs"]["diff_ids"])
    opened.clear()
    assert build(cli, made, *secret(tmp_path)).status == 0
    assert sorted(opened) == diff_ids
    opened.clear()
    assert build(cli, made, *secret(tmp_path)).status == 0
    assert opened == []
    assert build(cli, made, *secret(tmp_path), *secret(tmp_path, "other")).status == 0
    assert sorted(opened) == diff_ids
    assert build(cli, made).status == 0
    assert len(opened) == 2


def test_what_a_build_writes_is_not_read_again(cli: Cli, tmp_path: Path, opened: list[str]) -> None:
    made = context(tmp_path / "c", "FROM scratch\nCOPY a /a\n", a="1")
    for _ in range(2):
        assert build(cli, made, *secret(tmp_path)).status == 0
    assert opened == []


def test_nothing_is_kept_that_a_value_could_be_compared_with(cli: Cli, tmp_path: Path) -> None:
    made = context(tmp_path / "c", "FROM scratch\nCOPY a /a\n", a="1")
    for _ in range(2):
        assert build(cli, made, *secret(tmp_path)).status == 0
    kept = b"".join(path.read_bytes() for path in cli.root.rglob("*") if path.is_file())
    for value in (VALUE, VALUE + b"\n"):
        for name in ("md5", "sha1", "sha256", "sha512"):
            digest = hashlib.new(name, value)
            assert digest.digest() not in kept
            assert digest.hexdigest().encode() not in kept


def test_layers_that_a_cache_elsewhere_gives(cli: Cli, tmp_path: Path) -> None:
    made = context(tmp_path / "c", "FROM scratch\nCOPY a /a\nCOPY .env /app/\n", a="1", **{".env": VALUE})
    (tmp_path / "other").mkdir()
    other = Cli(tmp_path / "other/store")
    assert build(other, made, "--cache-to", f"type=local,dest={tmp_path / 'cache'},mode=max").status == 0
    done = build(cli, made, "--cache-from", f"type=local,src={tmp_path / 'cache'}", *secret(tmp_path))
    assert done.cached() == 2, done.err
    assert done.status == 1
    assert "Dockerfile:3: the value of secret 'npm' would be in the image, in a layer of the step cache" in done.err


def test_base_images_and_other_stages_are_not_searched(cli: Cli, tmp_path: Path) -> None:
    layer = context(tmp_path / "layer", "FROM scratch\nCOPY f /f\n", f=VALUE)
    assert build(cli, layer).status == 0
    assert cli("save", "-o", tmp_path / "base.tar", "app").status == 0
    (tmp_path / "other").mkdir()
    other = Cli(tmp_path / "other/store")
    assert other("load", "-i", tmp_path / "base.tar").status == 0
    text = "FROM app AS stage\nCOPY g /h\nFROM app\nCOPY g /g\nCOPY --from=stage /h /h\n"
    made = context(tmp_path / "c", text, g="1")
    assert other("build", "-t", "y", made).status == 0
    done = other("build", "-t", "y", *secret(tmp_path), made)
    assert done.status == 0, done.err
