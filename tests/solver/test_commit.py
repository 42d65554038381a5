"""Images from solved layers: configuration, times, manifest and index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from builder.errors import BuilderError
from builder.filesystem.compression import UNCOMPRESSED, ZSTD, Compression
from builder.oci.spec import (
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    ContainerConfig,
    Descriptor,
    History,
    ImageConfig,
    Platform,
    RootFS,
    encode,
)
from builder.plan.steps import HistoryLine, PlannedImage
from builder.solver.commit import COMMENT, Form, commit, image_config
from builder.solver.solve import Root
from builder.store.store import Store
from tests.solver.support import HOST, base_layer, write

LAYER = "sha256:" + "a" * 64


def planned(*history: HistoryLine, base: tuple[History, ...] = (), diff_ids: list[str] | None = None) -> PlannedImage:
    config = ImageConfig(
        architecture="amd64", os="linux", rootfs=RootFS(diff_ids=diff_ids), history=list(base),
        config=ContainerConfig(env=["A=1"]),
    )  # fmt: skip
    return PlannedImage(platform=HOST, node=2, config=config, history=history)


BASE = [f"sha256:{digit * 64}" for digit in "12"]

ROOTS = {1: Root((LAYER,), 1_600_000_000.25), 2: Root((LAYER, LAYER), 1_600_000_100.0)}
LINES = (HistoryLine("ENV A=1"), HistoryLine("RUN a", 1), HistoryLine("CMD x"), HistoryLine("RUN b", 2))


def test_lines_of_history_bear_the_times_of_their_layers() -> None:
    base = (History(created="2020-01-01T00:00:00Z", created_by="base"), History(created_by="no time", empty_layer=True))
    config = image_config(planned(*LINES, base=base, diff_ids=BASE[:1]), ROOTS, None)
    assert [(line.created, line.created_by, line.empty_layer) for line in config.history or ()] == [
        ("2020-01-01T00:00:00Z", "base", False),
        (None, "no time", True),
        ("2020-09-13T12:26:40.25Z", "ENV A=1", True),
        ("2020-09-13T12:26:40.25Z", "RUN a", False),
        ("2020-09-13T12:26:40.25Z", "CMD x", True),
        ("2020-09-13T12:28:20Z", "RUN b", False),
    ]
    assert config.created == "2020-09-13T12:28:20Z"
    assert {line.comment for line in (config.history or ())[2:]} == {COMMENT}
    assert config.rootfs.diff_ids == [LAYER, LAYER]


def test_without_a_layer_of_its_own_an_image_is_as_old_as_its_base() -> None:
    base = (History(created="2020-01-01T00:00:00Z", created_by="base"),)
    config = image_config(planned(HistoryLine("ENV A=1"), base=base, diff_ids=BASE[:1]), ROOTS, None)
    assert [line.created for line in config.history or ()] == ["2020-01-01T00:00:00Z"] * 2


def test_a_time_that_is_given_replaces_all_but_the_base() -> None:
    base = (History(created="2020-01-01T00:00:00Z", created_by="base"),)
    config = image_config(planned(*LINES, base=base, diff_ids=BASE[:1]), ROOTS, 0)
    assert [line.created for line in config.history or ()] == ["2020-01-01T00:00:00Z"] + ["1970-01-01T00:00:00Z"] * 4
    assert config.created == "1970-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("base", "layers", "expected"),
    [
        ("", 2, ["layer of the base image", "layer of the base image"]),
        ("ae", 2, ["a", "(e)", "layer of the base image"]),
        ("ab", 1, ["a", "(b)"]),
        ("aeb", 0, ["(a)", "(e)", "(b)"]),
        ("aeb", 2, ["a", "(e)", "b"]),
    ],
)
def test_a_base_whose_history_does_not_tell_of_its_layers(base: str, layers: int, expected: list[str]) -> None:
    lines = tuple(History(created_by=name, empty_layer=name == "e") for name in base)
    config = image_config(planned(HistoryLine("RUN x", 2), base=lines, diff_ids=BASE[:layers]), ROOTS, None)
    shown = [f"({line.created_by})" if line.empty_layer else line.created_by for line in config.history or ()]
    assert shown == [*expected, "RUN x"]


def test_nothing_at_all_has_no_time() -> None:
    config = image_config(planned(), {2: Root(())}, None)
    assert config.created is None
    assert config.history is None
    assert config.rootfs.diff_ids == []


def test_what_is_empty_is_left_out() -> None:
    """By Go's `omitempty`: `CMD []` takes the base's away, and says no more."""
    image = planned()
    empty = ContainerConfig(env=[], cmd=[], entrypoint=[], exposed_ports={}, volumes={}, labels={}, shell=[], user="me")
    given = msgspec.structs.replace(image, config=msgspec.structs.replace(image.config, config=empty))
    config = image_config(given, {2: Root(())}, None)
    assert json.loads(encode(config.config)) == {"User": "me"}


@pytest.fixture
def image(tmp_path: Path, store: Store) -> tuple[PlannedImage, dict[int, Root]]:
    """An image of a base's layer and one of its own."""
    base = base_layer(store, write(tmp_path / "base", {"a": "a"}))
    own = base_layer(store, write(tmp_path / "own", {"b": "b" * 1000}))
    return planned(HistoryLine("RUN x", 2), diff_ids=[base]), {2: Root((base, own), 5.0)}


def read(store: Store, descriptor: Descriptor) -> Any:
    return json.loads(store.layout.read(descriptor.digest))


def test_a_manifest(store: Store, image: tuple[PlannedImage, dict[int, Root]]) -> None:
    made = commit(store, (image[0],), image[1], epoch=None, form=Form())
    assert made.descriptor.media_type == OCI_MANIFEST
    assert made.descriptor.platform is not None
    assert made.descriptor.platform.normalised() == HOST
    manifest = read(store, made.descriptor)
    assert manifest["mediaType"] == OCI_MANIFEST
    assert manifest["config"]["digest"] == made.config_digests[0]
    assert "annotations" not in manifest
    assert [layer["mediaType"] for layer in manifest["layers"]] == [f"{OCI_LAYER}+gzip"] * 2
    for layer in manifest["layers"]:
        assert len(store.layout.read(layer["digest"])) == layer["size"]
    again = commit(store, (image[0],), image[1], epoch=None, form=Form())
    assert again == made


def test_an_index_over_platforms(store: Store, image: tuple[PlannedImage, dict[int, Root]]) -> None:
    arm = Platform("linux", "arm64")
    other = msgspec.structs.replace(
        image[0], platform=arm, config=msgspec.structs.replace(image[0].config, architecture="arm64")
    )
    made = commit(store, (image[0], other), image[1], epoch=None, form=Form())
    assert made.descriptor.media_type == OCI_INDEX
    assert len(set(made.config_digests)) == 2
    index = read(store, made.descriptor)
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]


@pytest.mark.parametrize(("kind", "suffix"), [(ZSTD, "+zstd"), (UNCOMPRESSED, "")])
def test_only_own_layers_are_compressed_anew(
    store: Store, image: tuple[PlannedImage, dict[int, Root]], kind: str, suffix: str
) -> None:
    form = Form(compression=Compression(kind))
    manifest = read(store, commit(store, (image[0],), image[1], epoch=None, form=form).descriptor)
    assert [layer["mediaType"] for layer in manifest["layers"]] == [f"{OCI_LAYER}+gzip", f"{OCI_LAYER}{suffix}"]
    forced = read(
        store,
        commit(store, (image[0],), image[1], epoch=None, form=msgspec.structs.replace(form, force=True)).descriptor,
    )
    assert {layer["mediaType"] for layer in forced["layers"]} == {f"{OCI_LAYER}{suffix}"}
    assert forced["config"] == manifest["config"]  # the layers are the same, uncompressed


def test_dockers_media_types(store: Store, image: tuple[PlannedImage, dict[int, Root]]) -> None:
    made = commit(store, (image[0],), image[1], epoch=None, form=Form(docker_types=True))
    manifest = read(store, made.descriptor)
    assert manifest["mediaType"] == DOCKER_MANIFEST
    assert {layer["mediaType"] for layer in manifest["layers"]} == {f"{DOCKER_LAYER}.gzip"}
    form = Form(docker_types=True, compression=Compression(ZSTD))
    with pytest.raises(BuilderError):
        commit(store, (image[0],), image[1], epoch=None, form=form)


def test_a_layer_that_is_missing(store: Store) -> None:
    with pytest.raises(BuilderError, match="is missing from the store"):
        commit(store, (planned(),), {2: Root((LAYER,))}, epoch=None, form=Form())
