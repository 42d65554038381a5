"""`builder.Store` and `builder.Image`: what can be done with images."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import builder
from tests.support.builds import busybox_context, needs_sandbox


def test_images(root: Path, directory: Path, tmp_path: Path) -> None:
    assert builder.images(root) == []
    first = builder.build(directory, tags=["app:1", "app:2"], labels={"k": "v"}, root=root)
    [image] = builder.images(root)
    assert image == first.image == builder.Store(root).image("app:2") == builder.Store(root).image(first.image_id[7:19])
    assert (image.id, image.digest, sorted(image.tags)) == (first.image_id, first.digest, ["app:1", "app:2"])
    assert image.labels == {"k": "v"}
    assert image.created is not None
    assert image.created.tzinfo is not None
    assert image.config.rootfs.diff_ids == [layer.diff_id for layer in image.layers]
    assert image.size == sum(layer.size for layer in image.layers) > 0
    assert image.history[-1].created_by == "COPY a.txt / # buildkit"
    assert (image.history[-1].size, image.history[-1].empty) == (image.layers[0].size, False)

    image.tag("other:1")
    assert builder.Store(root).image("other:1").digest == image.digest
    image.save(tmp_path / "app.tar")
    image.save(tmp_path / "app.oci", format="oci")
    image.export(tmp_path / "files.tar")
    image.export(tmp_path / "files")
    assert (tmp_path / "files/a.txt").read_text() == "one\n"
    with tarfile.open(tmp_path / "files.tar") as tar:
        assert tar.getnames() == ["a.txt"]

    with pytest.raises(builder.StoreError, match="several names"):
        image.remove()
    image.remove(force=True)
    assert builder.images(root) == []
    for name in ("app.tar", "app.oci"):
        [loaded] = builder.Store(root).load(tmp_path / name)
        assert (loaded.digest, sorted(loaded.tags)) == (image.digest, ["app:1", "app:2"])
    with open(tmp_path / "app.oci", "rb") as file:
        assert builder.Store(root).load(file)[0].id == image.id


def test_platforms_of_an_image(root: Path, directory: Path) -> None:
    result = builder.build(directory, platforms=["linux/amd64", "linux/arm64"], tags="app", root=root)
    assert result.platforms == ("linux/amd64", "linux/arm64")
    image = result.image
    assert image.platforms == result.platforms
    assert image.variant("linux/arm64").config.architecture == "arm64"
    with pytest.raises(builder.StoreError, match="no variant for linux/s390x"):
        image.variant("linux/s390x")


@pytest.mark.parametrize("form", ["docker-archive", "oci"])
def test_a_variant_is_saved_and_exported_alone(root: Path, directory: Path, tmp_path: Path, form: Any) -> None:
    text = "FROM scratch\nARG TARGETARCH\nCOPY a.txt /$TARGETARCH\n"
    platforms = ["linux/amd64", "linux/arm64"]
    image = builder.build(directory, dockerfile=text, platforms=platforms, tags=["app:1", "app:2"], root=root).image
    for architecture in ("amd64", "arm64"):
        variant = image.variant(f"linux/{architecture}")
        variant.save(tmp_path / "one.tar", format=form)
        [loaded] = builder.Store(tmp_path / f"store-{architecture}").load(tmp_path / "one.tar")
        assert (loaded.platforms, sorted(loaded.tags)) == ((f"linux/{architecture}",), ["app:1", "app:2"])
        assert loaded.config == variant.config
        assert loaded.digest != image.digest
        variant.export(tmp_path / architecture)
        assert os.listdir(tmp_path / architecture) == [architecture]
    image.save(tmp_path / "both.tar", format=form)
    assert builder.Store(tmp_path / "both").load(tmp_path / "both.tar")[0].digest == image.digest


def test_the_limits_of_the_settings(
    root: Path, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder.build(directory, tags="app", root=root).image.save(tmp_path / "app.tar")
    settings = tmp_path / "builder.toml"
    settings.write_text("[limits]\nload_entries = 2\n")
    monkeypatch.setenv("BUILDER_CONFIG", str(settings))
    with pytest.raises(builder.BuilderError) as caught:
        builder.Store(tmp_path / "other").load(tmp_path / "app.tar")
    assert "raise load_entries" in str(caught.value.remedy)
    settings.write_text("[limits]\nload_entries = 99\n")
    assert builder.Store(tmp_path / "other").load(tmp_path / "app.tar")


@pytest.mark.parametrize("call", [lambda s: s.image("none"), lambda s: s.load("/none.tar"), lambda s: s.image("A!")])
def test_what_is_not_there(root: Path, call: Callable[[builder.Store], object]) -> None:
    with pytest.raises(builder.StoreError):
        call(builder.Store(root))


def test_the_default_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BUILDER_ROOT", str(tmp_path / "mine"))
    assert builder.Store().root == str(tmp_path / "mine")
    assert repr(builder.Store("/x")) == "Store('/x')"


@needs_sandbox
def test_run(root: Path, tmp_path: Path) -> None:
    directory = busybox_context(
        tmp_path / "context", "RUN --mount=type=secret,id=s cat /run/secrets/s | wc -c > /size\n"
    )
    image = builder.build(directory, secrets={"s": b"12345"}, root=root).image
    assert image.run(["cat", "/size"]).stdout == "5\n"
    done = image.run(["sh", "-c", "cat; echo $X >&2; exit 3"], input="in", env={"X": "err"})
    assert (done.returncode, done.stdout, done.stderr) == (3, "in", "err\n")
    assert image.run(["cat"], input=b"\xff", text=False).stdout == b"\xff"
    (tmp_path / "file").write_text("host")
    assert image.run(["cat", "/mnt/f"], volumes={"/mnt/f": tmp_path / "file"}).stdout == "host"
    assert image.run(["1:2"], entrypoint="echo").stdout == "1:2\n"
    assert image.run(["sh", "-c", "id -u; id -g; pwd"], user="5:6", workdir="/tmp/new").stdout == "5\n6\n/tmp/new\n"
    interfaces = ["ls", "/sys/class/net"]
    assert image.run(interfaces, network="none").stdout == "lo\n"
    assert image.run(interfaces, network="host").stdout.split() == sorted(os.listdir("/sys/class/net"))
    with pytest.raises(builder.UsageError, match="network='bridge'"):
        image.run(["true"], network="bridge")  # type: ignore[arg-type]
    with pytest.raises(subprocess.CalledProcessError):
        image.run(["sh", "-c", "exit 1"], check=True)
    with pytest.raises(builder.StepFailed, match="not found"):
        image.run(["nonsense"])
    with pytest.raises(subprocess.TimeoutExpired):
        image.run(["sleep", "20"], timeout=0.5)
