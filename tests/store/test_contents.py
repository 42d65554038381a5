"""Images and their steps by name, read from their blobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.errors import BuilderError, LayerError, StoreError
from builder.oci.spec import ImageConfig
from builder.store.analysis import analyse_image
from builder.store.compare import Setting, compare_configurations, compare_images
from builder.store.contents import read_contents, read_stored, select
from builder.store.store import Store
from tests.support.archives import archive
from tests.support.images import put_image

LAYERS = [
    archive(("a", {"data": b"one"}), ("keep", {"data": b"k" * 100})),
    archive(("b", {"data": b"two"})),
    archive((".wh.a", {"data": b""}), ("c", {"data": b"three"})),
]
LINES = ["COPY a", "COPY b", "RUN rm a"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    put_image(tmp_path, "app:1", LAYERS, lines=LINES)
    made = Store(str(tmp_path))
    yield made
    made.close()


def names(store: Store, text: str) -> list[str]:
    return [path for path, _ in read_contents(store, select(store, text)).walk()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("app:1", ["b", "c", "keep"]),
        ("app:1@3", ["b", "c", "keep"]),
        ("app:1@2", ["a", "b", "keep"]),
        ("app:1~1", ["a", "b", "keep"]),
        ("app:1~2", ["a", "keep"]),
        ("app:1@0", []),
        ("app:1~3", []),
        ("app:1~0", ["b", "c", "keep"]),
    ],
)
def test_steps_are_counted_from_both_ends(store: Store, text: str, expected: list[str]) -> None:
    assert names(store, text) == expected
    assert select(store, text).is_whole == (expected == ["b", "c", "keep"])


def test_a_step_of_an_image_by_digest_or_id(store: Store) -> None:
    image = select(store, "app:1")
    for name in (f"app@{image.image.descriptor.digest}", image.image.image_id, image.image.image_id[7:15]):
        assert names(store, name) == ["b", "c", "keep"]
        assert names(store, f"{name}@1") == names(store, f"{name}~2") == ["a", "keep"]


@pytest.mark.parametrize("text", ["app:1@4", "app:1~4", "none", "none@1", "app:1@", "app:1~x", "app:1@-1"])
def test_what_is_no_step(store: Store, text: str) -> None:
    with pytest.raises(StoreError) as caught:
        select(store, text)
    if text in ("app:1@4", "app:1~4"):
        assert "has 3 layers" in str(caught.value)
        assert "builder layers app:1" in (caught.value.remedy or "")


def test_instructions_belong_to_layers(store: Store, tmp_path: Path) -> None:
    assert select(store, "app:1@2").instructions == LINES[:2]
    put_image(tmp_path, "short", LAYERS, lines=LINES[:1])
    assert select(store, "short").instructions == ["COPY a", "", ""]


def test_files_are_read_from_the_layers_that_have_them(store: Store) -> None:
    image = select(store, "app:1")
    contents = read_contents(store, image)
    wanted = [entry.stored for _, entry in contents.walk() if entry.stored is not None]
    assert {stored.path: content.read() for stored, content in read_stored(store, image, wanted)} == {
        "b": b"two",
        "c": b"three",
        "keep": b"k" * 100,
    }


def test_nothing_is_unpacked(store: Store, tmp_path: Path) -> None:
    analyse_image(store, select(store, "app:1"), 5)
    compare_images(store, select(store, "app:1~1"), select(store, "app:1"))
    assert not (tmp_path / "snapshots").exists()
    assert not any(path.is_file() for path in (tmp_path / "tmp").iterdir() if "lock" not in path.name)


def test_layers_that_are_not_what_the_image_says_are_refused(store: Store, tmp_path: Path) -> None:
    put_image(tmp_path, "lies", LAYERS, diff_ids=[f"sha256:{number:064}" for number in range(3)])
    for read in (read_contents, lambda store, image: analyse_image(store, image, 3)):
        with pytest.raises(LayerError, match="the image says sha256:0"):
            read(store, select(store, "lies"))


def test_a_damaged_layer_is_named(store: Store, tmp_path: Path) -> None:
    put_image(tmp_path, "bad", [LAYERS[0], archive(("a/b", {"data": b""}))])
    digest = select(store, "bad").layers[1].digest
    for read in (read_contents, lambda store, image: analyse_image(store, image, 3)):
        with pytest.raises(LayerError) as caught:
            read(store, select(store, "bad"))
        assert (caught.value.place, caught.value.cause) == (
            f"layer {digest}",
            "a: an entry lies below it, but it is no directory",
        )
    (tmp_path / "blobs" / digest.replace(":", "/")).unlink()
    with pytest.raises(BuilderError, match="is missing"):
        read_contents(store, select(store, "bad"))


def test_the_analysis_has_the_instructions(store: Store) -> None:
    analysis = analyse_image(store, select(store, "app:1"), 5)
    assert [layer.created_by for layer in analysis.layers] == LINES
    assert [layer.changes.removed for layer in analysis.layers] == [0, 0, 1]
    assert analysis.stored == sum(layer.stored for layer in analysis.layers) > 0
    assert analysis.found.wasted == 3


def test_steps_of_an_image_that_was_not_built_here_have_no_configuration(store: Store) -> None:
    found = compare_images(store, select(store, "app:1@1"), select(store, "app:1"))
    assert {(change.path, change.before is None, change.after is None) for change in found.files} == {
        ("a", False, True),
        ("b", True, False),
        ("c", True, False),
    }
    assert (found.configuration, found.unknown) == (None, ("app:1@1",))
    assert found
    assert not compare_images(store, select(store, "app:1"), select(store, "app:1"))
    assert compare_images(store, select(store, "app:1"), select(store, "app:1@3")).configuration == ()


def test_what_both_begin_with_is_read_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = store.layout.open

    def count(digest: str) -> Any:
        opened.append(digest)
        return original(digest)

    monkeypatch.setattr(store.layout, "open", count)
    layers = [layer.digest for layer in select(store, "app:1").layers]
    opened.clear()
    compare_images(store, select(store, "app:1~1"), select(store, "app:1"))
    assert [opened.count(layer) for layer in layers] == [1, 1, 1]


def test_packages_are_compared(store: Store, tmp_path: Path) -> None:
    def status(version: str) -> bytes:
        text = f"Package: bash\nStatus: install ok installed\nVersion: {version}\nArchitecture: amd64\n"
        return archive(("var/lib/dpkg/status", {"data": text.encode()}))

    put_image(tmp_path, "debian:1", [status("1")])
    put_image(tmp_path, "debian:2", [status("1"), status("2")])
    found = compare_images(store, select(store, "debian:1"), select(store, "debian:2"))
    assert [(one.manager, one.name, one.before, one.after) for one in found.packages] == [("dpkg", "bash", "1", "2")]


def config(**fields: Any) -> ImageConfig:
    import msgspec

    return msgspec.convert({"architecture": "amd64", "os": "linux", **fields}, ImageConfig)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {}, []),
        ({"created": "2020-01-01T00:00:00Z"}, {"author": "me"}, [Setting("Author", None, "me")]),
        ({}, {"architecture": "arm64"}, [Setting("Architecture", "amd64", "arm64")]),
        (
            {"config": {"Env": ["A=1", "B=x=y"]}},
            {"config": {"Env": ["B=x=z", "C="]}},
            [Setting("Env.A", "1", None), Setting("Env.B", "x=y", "x=z"), Setting("Env.C", None, "")],
        ),
        ({"config": {"Labels": {"a": "1"}}}, {}, [Setting("Labels.a", "1", None)]),
        ({"config": {"Cmd": ["a"]}}, {"config": {"Cmd": []}}, [Setting("Cmd", ["a"], [])]),
        (
            {"config": {"ExposedPorts": {"80/tcp": {}}}},
            {"config": {"ExposedPorts": {"80/tcp": {}, "443/tcp": {}}, "User": "me"}},
            [Setting("User", None, "me"), Setting("ExposedPorts", ["80/tcp"], ["443/tcp", "80/tcp"])],
        ),
        (
            {"config": {"Healthcheck": {"Test": ["NONE"]}}},
            {"config": {"StopSignal": "9"}},
            [Setting("Healthcheck", {"Test": ["NONE"]}, None), Setting("StopSignal", None, "9")],
        ),
    ],
)
def test_configurations(before: dict[str, Any], after: dict[str, Any], expected: list[Setting]) -> None:
    assert list(compare_configurations(config(**before), config(**after))) == expected
