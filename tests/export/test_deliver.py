"""Outputs of a build: archives that others read, directories, names in the store, and nothing half done."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from builder.errors import BuilderError, StoreError, UsageError
from builder.export.deliver import deliver
from builder.export.output import parse_output
from builder.oci import reference
from builder.oci.layout import Layout
from builder.oci.spec import IMAGE_NAME, REF_NAME
from builder.progress import StepDone, StepStarted
from builder.solver.annotations import Annotation
from builder.store.store import Store
from tests.export.support import add_layer, delivery, flatten, read_layout
from tests.support.layers import layer_bytes

needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo (Debian package skopeo)")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def layers(store: Store) -> tuple[str, ...]:
    return (
        add_layer(store, ("d/", {"mode": 0o700}), ("d/a", {"data": b"1"}), ("gone", {"data": b"x"})),
        add_layer(
            store, ("d/", {"mode": 0o750}), ("d/b", {"data": b"2", "owner": (3, 4)}), (".wh.gone", {"data": b""})
        ),
    )


def inspect(source: str) -> dict[str, Any]:
    """What skopeo says of an image."""
    done = subprocess.run(["skopeo", "inspect", source], capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_without_outputs_the_store_gets_names(store: Store, layers: tuple[str, ...]) -> None:
    events: list[Any] = []
    made = deliver(delivery(store, layers, report=events.append))
    assert made is not None
    found = store.images.get(reference.parse("app:1"))
    assert found is not None
    assert found.descriptor.digest == made.descriptor.digest
    assert [type(event) for event in events] == [StepStarted, StepDone]


def test_an_archive_read_by_tarfile(store: Store, layers: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    made = deliver(delivery(store, layers, outputs=(parse_output(f"type=oci,dest={path}"),)))
    assert made is not None
    root = read_layout(path.read_bytes(), tmp_path / "x")
    layout = Layout(str(root))
    (entry,) = layout.index().manifests
    assert entry.digest == made.descriptor.digest
    assert entry.annotations == {IMAGE_NAME: "docker.io/library/app:1", REF_NAME: "1"}
    manifest = json.loads(layout.read(entry.digest))
    config = json.loads(layout.read(manifest["config"]["digest"]))
    assert config["rootfs"]["diff_ids"] == list(layers)
    for blob in manifest["layers"]:
        assert len(layout.read(blob["digest"])) == blob["size"]
    assert not (root / "manifest.json").exists()
    assert store.images.all() == []  # nothing was asked for the store
    with tarfile.open(path) as members:
        assert {(member.uid, member.gid, member.mtime) for member in members} == {(0, 0, 0)}


def test_a_docker_archive(store: Store, layers: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    names = (reference.parse("app:1"), reference.parse("ghcr.io/a/b:2"))
    deliver(delivery(store, layers, outputs=(parse_output(f"type=docker,dest={path}"),), names=names))
    root = read_layout(path.read_bytes(), tmp_path / "x")
    (image,) = json.loads((root / "manifest.json").read_text())
    assert image["RepoTags"] == ["app:1", "ghcr.io/a/b:2"]
    assert len(image["Layers"]) == 2
    assert all((root / name).is_file() for name in [image["Config"], *image["Layers"]])
    assert len(Layout(str(root)).index().manifests) == 2


def test_archives_are_the_same_each_time(store: Store, layers: tuple[str, ...], tmp_path: Path) -> None:
    outputs = tuple(parse_output(f"type=oci,dest={tmp_path}/{number}.tar") for number in range(2))
    deliver(delivery(store, layers, outputs=outputs))
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "1.tar").read_bytes()


@needs_skopeo
@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_an_archive_read_by_skopeo(store: Store, layers: tuple[str, ...], tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.tar"
    deliver(delivery(store, layers, outputs=(parse_output(f"type={kind},dest={path}"),)))
    source = f"{'oci' if kind == 'oci' else 'docker'}-archive:{path}"
    found = inspect(source if kind == "oci" else f"{source}:docker.io/library/app:1")
    assert found["Env"] == ["A=1"]
    assert len(found["Layers"]) == 2


@needs_skopeo
@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
def test_a_layout_read_by_skopeo(store: Store, layers: tuple[str, ...], tmp_path: Path, compression: str) -> None:
    path = tmp_path / "layout"
    output = parse_output(f"type=oci,dest={path},tar=false,compression={compression}")
    deliver(delivery(store, layers, outputs=(output,)))
    assert len(inspect(f"oci:{path}")["Layers"]) == 2
    subprocess.run(["skopeo", "copy", "-q", f"oci:{path}", f"dir:{tmp_path}/copy"], check=True, timeout=60)


@needs_skopeo
@pytest.mark.parametrize(("names", "tag"), [(("app:1", "other:2"), "1"), ((), "latest")])
def test_a_layout_read_by_tag(
    store: Store, layers: tuple[str, ...], tmp_path: Path, names: tuple[str, ...], tag: str
) -> None:
    """As BuildKit writes it: the tag alone is the reference, and an image without a name is `latest`."""
    output = parse_output(f"type=oci,dest={tmp_path}/layout,tar=false")
    references = tuple(map(reference.parse, names))
    for _ in range(2):  # the second takes the place of the first
        deliver(delivery(store, layers, outputs=(output,), names=references))
    assert len(inspect(f"oci:{tmp_path}/layout:{tag}")["Layers"]) == 2
    assert len(Layout(f"{tmp_path}/layout").index().manifests) == len(names or [""])


def test_a_layout_takes_several_images_and_is_clean(store: Store, layers: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "layout"
    for number in (1, 2):
        output = parse_output(f"type=oci,dest={path},tar=false")
        names = (reference.parse(f"app:{number}"),)
        deliver(delivery(store, layers[:number], outputs=(output,), names=names))
    assert {(entry.annotations or {})[IMAGE_NAME] for entry in Layout(str(path)).index().manifests} == {
        "docker.io/library/app:1", "docker.io/library/app:2",
    }  # fmt: skip
    assert sorted(os.listdir(path)) == ["blobs", "index.json", "oci-layout"]


def test_files_as_a_tar(store: Store, layers: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    assert deliver(delivery(store, layers, outputs=(parse_output(f"type=tar,dest={path}"),))) is None
    assert flatten([path.read_bytes()]) == flatten([layer_bytes(store, diff_id) for diff_id in layers])


def test_files_in_a_directory(store: Store, layers: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "out"
    (path / "d").mkdir(parents=True)
    (path / "d" / "mine").write_text("stays")
    assert deliver(delivery(store, layers, outputs=(parse_output(str(path)),))) is None
    assert {str(found.relative_to(path)) for found in path.rglob("*")} == {"d", "d/a", "d/b", "d/mine"}
    assert (path / "d").stat().st_mode & 0o777 == 0o750
    assert {(found.stat().st_uid, found.stat().st_gid) for found in path.rglob("*")} == {(os.getuid(), os.getgid())}
    assert (path / "d/mine").read_text() == "stays"


def test_files_in_a_directory_are_the_callers(store: Store, tmp_path: Path) -> None:
    """As with BuildKit; none may be run as the caller that was to run as another, and a tar says whose they were."""
    mine, other = (os.getuid(), os.getgid()), (os.getuid() + 1234, os.getgid() + 1234)
    layer = add_layer(
        store,
        ("own", {"data": b"", "mode": 0o6755, "owner": mine}),
        ("other", {"data": b"", "mode": 0o6755, "owner": other}),
        ("user", {"data": b"", "mode": 0o6755, "owner": (mine[0], other[1])}),
        ("closed/", {"mode": 0, "owner": other}),
        ("closed/a", {"data": b"1", "owner": other}),
        ("d/", {"mode": 0o2775, "owner": other}),
        ("d/link", {"type": tarfile.SYMTYPE, "link": "x", "mode": 0o777, "owner": other}),
    )
    outputs = (parse_output(f"{tmp_path}/out"), parse_output(f"type=tar,dest={tmp_path}/tar"))
    deliver(delivery(store, (layer,), outputs=outputs))
    found = {str(path.relative_to(tmp_path / "out")): path.lstat() for path in (tmp_path / "out").rglob("*")}
    assert {(status.st_uid, status.st_gid) for status in found.values()} == {mine}
    modes = {name: status.st_mode & 0o7777 for name, status in found.items() if name != "d/link"}
    assert modes == {
        "own": 0o6755, "other": 0o755, "user": 0o4755, "closed": 0, "closed/a": 0o644, "d": 0o2775,
    }  # fmt: skip
    assert flatten([(tmp_path / "tar").read_bytes()]) == flatten([layer_bytes(store, layer)])


def test_standard_output(store: Store, layers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", out)
    deliver(delivery(store, layers, outputs=(parse_output("-"),)))
    assert sorted(flatten([out.buffer.getvalue()])) == ["d", "d/a", "d/b"]


def test_several_outputs_share_what_is_the_same(store: Store, layers: tuple[str, ...], tmp_path: Path) -> None:
    outputs = [f"type=oci,dest={tmp_path}/a.tar", "type=image,name=other:1", "type=image,name=zstd:1,compression=zstd"]
    made = deliver(delivery(store, layers, outputs=tuple(parse_output(text) for text in outputs)))
    assert made is not None
    other, zstd = store.images.find("other:1"), store.images.find("zstd:1")
    assert other.descriptor.digest == made.descriptor.digest
    assert zstd.descriptor.digest != made.descriptor.digest
    assert store.images.image_id(zstd.descriptor) == made.config_digests[0]


def test_annotations(store: Store, layers: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    annotations = (
        Annotation("manifest", "a", "1"),
        Annotation("manifest-descriptor", "b", "2"),
        Annotation("index-descriptor", "d", "4"),
    )
    output = parse_output(f"type=oci,dest={path},annotation.c=3")
    deliver(delivery(store, layers, outputs=(output,), annotations=annotations))
    layout = Layout(str(read_layout(path.read_bytes(), tmp_path / "x")))
    (entry,) = layout.index().manifests
    assert json.loads(layout.read(entry.digest))["annotations"] == {"a": "1", "c": "3"}
    names = {IMAGE_NAME: "docker.io/library/app:1", REF_NAME: "1"}
    assert entry.annotations == names | {"b": "2", "d": "4"}


@pytest.mark.parametrize("how", ["all", "new"])
def test_squashed(store: Store, how: str) -> None:
    stack = tuple(add_layer(store, (name, {"data": name.encode()})) for name in ("base", "a", "b"))
    made = deliver(delivery(store, stack, inherited=1, squash=how))
    assert made is not None
    config = store.images.config(made.descriptor)
    diff_ids = config.rootfs.diff_ids or []
    assert len(diff_ids) == (1 if how == "all" else 2)
    assert (diff_ids[0] == stack[0]) is (how == "new")
    assert sorted(flatten([layer_bytes(store, diff_id) for diff_id in diff_ids])) == ["a", "b", "base"]
    told = [] if how == "all" else [False]  # of the base, whose own history says nothing of its layer
    assert [line.empty_layer for line in config.history or ()] == [*told, True, True, False]


def test_a_file_that_cannot_be_written_leaves_nothing(store: Store, layers: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write"):
        deliver(delivery(store, layers, outputs=(parse_output(f"type=oci,dest={tmp_path}/no/x.tar"),)))
    record = store.layers.record(layers[1])
    assert record is not None
    target = tmp_path / "x.tar"
    target.write_text("before")
    os.unlink(store.layout.blob_path(record.digest))
    for kind in ("oci", "docker", "tar"):
        with pytest.raises(BuilderError):
            deliver(delivery(store, layers, outputs=(parse_output(f"type={kind},dest={target}"),)))
    assert target.read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["store", "x.tar"]
    assert store.images.all() == []


def test_a_blob_of_another_size_is_not_exported(store: Store, layers: tuple[str, ...], tmp_path: Path) -> None:
    record = store.layers.record(layers[0])
    assert record is not None
    with open(store.layout.blob_path(record.digest), "ab") as file:
        file.write(b"x")
    with pytest.raises(StoreError, match="wrong size"):
        deliver(delivery(store, layers, outputs=(parse_output(f"type=oci,dest={tmp_path}/x.tar"),)))
    assert not (tmp_path / "x.tar").exists()


def test_what_makes_no_sense_is_refused(store: Store, layers: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="rewrite-timestamp needs a time"):
        deliver(delivery(store, layers, epoch=None, outputs=(parse_output("type=image,rewrite-timestamp=true"),)))
    with pytest.raises(UsageError, match="without a name cannot be pushed"):
        deliver(delivery(store, layers, names=(), outputs=(parse_output("type=registry"),)))
    with pytest.raises(UsageError, match="no zstd layers"):
        deliver(delivery(store, layers, outputs=(parse_output("type=image,compression=zstd,oci-mediatypes=false"),)))
