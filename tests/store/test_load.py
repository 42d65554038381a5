"""Archives that lie, climb or stop: refused with the reason, and nothing stays behind."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.errors import BuilderError, LayerError
from builder.filesystem.decompress import decompressor
from builder.oci import reference
from builder.oci.spec import Descriptor
from builder.store.archive import Contents
from builder.store.load import load
from builder.store.room import RESERVE
from builder.store.store import Store
from tests.support.archives import archive

LAYER = archive(("file", {"data": b"content"}))
OTHER = archive(("other", {"data": b"x" * 3000}))
OCI = "application/vnd.oci.image."
NAMES = {"io.containerd.image.name": "docker.io/library/app:1"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(str(tmp_path / "store"))
    yield made
    made.close()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def document(value: Any) -> bytes:
    return json.dumps(value).encode()


class Image:
    """The parts of an image, each of which a test may replace before it is put together."""

    def __init__(self, layer: bytes = LAYER, diff_id: str | None = None, **config: Any) -> None:
        self.layer = layer
        rootfs = {"type": "layers", "diff_ids": [diff_id or digest(layer)]}
        self.config = document({"architecture": "amd64", "os": "linux", "rootfs": rootfs, "config": {}, **config})

    def descriptor(self, data: bytes, kind: str, **extra: Any) -> dict[str, Any]:
        return {"mediaType": OCI + kind, "digest": digest(data), "size": len(data), **extra}

    @property
    def manifest(self) -> bytes:
        return document(
            {
                "schemaVersion": 2,
                "mediaType": OCI + "manifest.v1+json",
                "config": self.descriptor(self.config, "config.v1+json"),
                "layers": [self.descriptor(self.layer, "layer.v1.tar")],
            }
        )

    def blobs(self) -> dict[str, bytes]:
        return {f"blobs/sha256/{digest(data)[7:]}": data for data in (self.layer, self.config, self.manifest)}

    def files(self) -> dict[str, bytes]:
        entry = self.descriptor(self.manifest, "manifest.v1+json", annotations=NAMES)
        return {**self.blobs(), "index.json": document({"schemaVersion": 2, "manifests": [entry]})}

    def docker(self) -> dict[str, bytes]:
        """The older form, with nothing beside."""
        saved = [{"Config": "abc.json", "RepoTags": ["app:1"], "Layers": ["abc/layer.tar"]}]
        return {"abc.json": self.config, "abc/layer.tar": self.layer, "manifest.json": document(saved)}


def tar(files: dict[str, bytes]) -> bytes:
    return archive(*((name, {"data": data}) for name, data in files.items()))


def loaded(store: Store, data: bytes) -> list[str]:
    images = load(store, io.BytesIO(data), place="archive")
    return [name.familiar for image in images for name in image.names]


def refuse(store: Store, data: bytes) -> str:
    """What an archive is refused with; afterwards the store is as before."""
    before = everything(store)
    with pytest.raises(BuilderError) as caught:
        load(store, io.BytesIO(data), place="archive")
    assert everything(store) == before
    return str(caught.value)


def everything(store: Store) -> dict[str, bytes]:
    """All files of the store but the reserve, and those that locks and SQLite come with."""
    root = Path(store.root)
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
        and not path.name.startswith(("cache.db", "gate", RESERVE))
        and not path.name.endswith(".lock")
    }


# --- good ones


def test_an_oci_archive(store: Store) -> None:
    image = Image()
    assert loaded(store, tar(image.files())) == ["app:1"]
    assert {f"blobs/sha256/{one[7:]}" for one in store.layout.digests()} == set(image.blobs())
    (record,) = store.database.layers(digest(LAYER))
    assert record.uncompressed == len(LAYER)


def test_the_older_form_of_docker_with_links_between_layers(store: Store) -> None:
    image = Image(config={"Cmd": ["x"]})
    files = image.docker()
    del files["abc/layer.tar"]
    data = archive(
        ("abc/layer.tar", {"type": b"2", "link": "../def/layer.tar"}),
        ("def/layer.tar", {"data": LAYER}),
        *((name, {"data": content}) for name, content in files.items()),
    )
    assert loaded(store, data) == ["app:1"]
    entry = store.images.get(reference.parse("app:1"))
    assert entry is not None
    assert store.images.image_id(entry.descriptor) == digest(image.config)
    (record,) = store.database.layers(digest(LAYER))
    assert record.media_type.endswith("+gzip")


def two_images(form: str) -> dict[str, bytes]:
    """An archive of two images that have the same layer."""
    images = [Image(config={"Cmd": [command]}) for command in "ab"]
    if form == "OCI":
        entries = [
            one.descriptor(
                one.manifest, "manifest.v1+json", annotations={"io.containerd.image.name": f"x/app:{number}"}
            )
            for number, one in enumerate(images)
        ]
        index = document({"schemaVersion": 2, "manifests": entries})
        return {**images[0].blobs(), **images[1].blobs(), "index.json": index}
    saved = [
        {"Config": f"{number}.json", "RepoTags": [f"x/app:{number}"], "Layers": ["layer.tar"]} for number in range(2)
    ]
    configs = {f"{number}.json": one.config for number, one in enumerate(images)}
    return {**configs, "layer.tar": LAYER, "manifest.json": document(saved)}


@pytest.mark.parametrize("form", ["OCI", "docker"])
def test_a_layer_of_several_images_is_read_once(store: Store, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    read: list[str] = []

    def spy(file: Any, **options: Any) -> Any:
        read.append(options["place"])
        return decompressor(file, **options)

    monkeypatch.setattr("builder.store.load_blobs.decompressor", spy)
    assert loaded(store, tar(two_images(form))) == ["x/app:0", "x/app:1"]
    assert read == [digest(LAYER)]
    (record,) = store.database.layers(digest(LAYER))
    assert record.uncompressed == len(LAYER)


def test_an_index_may_lack_platforms_but_not_all(store: Store) -> None:
    here, gone = Image(), Image(OTHER, architecture="arm64")

    def files(*images: Image) -> dict[str, bytes]:
        index = document(
            {
                "schemaVersion": 2,
                "mediaType": OCI + "index.v1+json",
                "manifests": [one.descriptor(one.manifest, "manifest.v1+json") for one in (here, gone)],
            }
        )
        entry = here.descriptor(index, "index.v1+json", annotations=NAMES)
        blobs = {name: data for one in images for name, data in one.blobs().items()}
        return {
            **blobs,
            f"blobs/sha256/{digest(index)[7:]}": index,
            "index.json": document({"schemaVersion": 2, "manifests": [entry]}),
        }

    assert "has not all of" in refuse(store, tar(files()))
    assert loaded(store, tar(files(here))) == ["app:1"]
    (entry,) = store.images.all()
    assert [one.digest for one in store.images.manifests(entry.descriptor)] == [digest(here.manifest)]


@pytest.mark.parametrize("form", ["files", "docker"])
def test_a_digest_in_a_name_is_the_images_own_or_passed_over(store: Store, form: str) -> None:
    """Who asked for it by that digest would get something else."""
    image = Image()
    files = getattr(image, form)()
    forged, tagged = f"app@{digest(b'another')}", f"app:1@{digest(b'another')}"
    own = f"app@{digest(image.manifest)}"
    if form == "docker":
        saved = {"Config": "abc.json", "RepoTags": [forged, tagged, "app:2"], "Layers": ["abc/layer.tar"]}
        files["manifest.json"] = document([saved])
    else:
        names = [{"io.containerd.image.name": f"docker.io/library/{name}"} for name in (forged, tagged, own, "app:2")]
        entries = [image.descriptor(image.manifest, "manifest.v1+json", annotations=name) for name in names]
        files["index.json"] = document({"schemaVersion": 2, "manifests": entries})
    (found,) = load(store, io.BytesIO(tar(files)), place="archive")
    assert [name.familiar for name in found.names] == ([own] if form == "files" else []) + ["app:2"]
    assert [name.familiar for name in found.passed_over] == [forged, tagged]
    assert {entry.reference for entry in store.images.all()} == set(found.names)


def test_a_tag_alone_is_no_name(store: Store) -> None:
    image = Image()
    files = image.files()
    entry = image.descriptor(
        image.manifest, "manifest.v1+json", annotations={"org.opencontainers.image.ref.name": "latest"}
    )
    files["index.json"] = document({"schemaVersion": 2, "manifests": [entry]})
    assert loaded(store, tar(files)) == []
    files["manifest.json"] = document(
        [{"Config": f"blobs/sha256/{digest(image.config)[7:]}", "RepoTags": ["named:2"], "Layers": []}]
    )
    assert loaded(store, tar(files)) == ["named:2"]


@pytest.mark.parametrize("form", ["OCI", "docker"])
def test_what_is_listed_many_times_is_read_once(store: Store, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """An archive of 2 KB could ask for all time and memory."""
    image = Image()
    if form == "OCI":
        child, files = image.descriptor(image.manifest, "manifest.v1+json"), image.blobs()
        for _ in range(3):
            index = document({"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": [child] * 10})
            files[f"blobs/sha256/{digest(index)[7:]}"] = index
            child = image.descriptor(index, "index.v1+json", annotations=NAMES)
        files["index.json"] = document({"schemaVersion": 2, "manifests": [child] * 10})
    else:
        files = image.docker()
        files["manifest.json"] = document(json.loads(files["manifest.json"]) * 10)
    read: list[str] = []
    open_document = Contents.document

    def spy(self: Contents, name: str, piece: Any) -> bytes:
        read.append(name)
        return open_document(self, name, piece)

    monkeypatch.setattr(Contents, "document", spy)
    assert set(loaded(store, tar(files))) == {"app:1"}
    assert len(read) == len(set(read))


# --- bad ones


def changed(form: str, name: str, data: bytes | None) -> bytes:
    files = getattr(Image(), form)()
    if data is None:
        del files[name]
    else:
        files[name] = data
    return tar(files)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "no image archive"),
        (b"no archive at all" * 100, "no tar archive"),
        (tar({"etc/passwd": b"x"}), "'builder import'"),
        (tar(Image().files())[:5000], "truncated"),
        (changed("files", f"blobs/sha256/{digest(LAYER)[7:]}", OTHER), "content is"),
        (changed("files", f"blobs/sha256/{digest(LAYER)[7:]}", None), "has not all of"),
        (changed("files", f"blobs/sha256/{digest(Image().config)[7:]}", None), "has not all of"),
        (changed("files", "index.json", b"{"), "index.json"),
        (changed("files", "index.json", b"[" * 100_000), "index.json"),
        (changed("files", "index.json", b'{"schemaVersion": 2, "manifests": []}'), "no image"),
        (tar(Image(diff_id=digest(OTHER)).files()), "as its configuration says"),
        (tar(Image(rootfs={"type": "layers", "diff_ids": []}).files()), "1 layers, its configuration 0"),
        (tar(Image(diff_id=digest(OTHER)).docker()), "as its configuration says"),
        (changed("docker", "abc/layer.tar", None), "has no abc/layer.tar"),
        (changed("docker", "abc.json", None), "has no abc.json"),
        (changed("docker", "abc.json", b"[]"), "abc.json"),
        (changed("docker", "manifest.json", b"{}"), "manifest.json is malformed"),
        (changed("docker", "manifest.json", document([{"Config": "abc.json"}] * 10_001)), "more than the 10000"),
        (changed("docker", "manifest.json", b'[{"Config": "/etc/passwd"}]'), "has no /etc/passwd"),
        (changed("docker", "manifest.json", b'[{"Config": "../../abc.json"}]'), "has no ../../abc.json"),
    ],
)
def test_is_refused(store: Store, data: bytes, cause: str) -> None:
    with pytest.raises(BuilderError) as caught:
        load(store, io.BytesIO(data), place="archive")
    assert cause in f"{caught.value} {caught.value.remedy}"
    assert store.images.all() == []
    assert store.layout.digests() == []
    assert [name for name in os.listdir(store.temporary) if not name.endswith(".lock")] == []


def test_a_size_that_is_not_the_blobs_is_refused(store: Store) -> None:
    image = Image()
    files = image.files()
    entry = {**image.descriptor(image.manifest, "manifest.v1+json"), "size": 1}
    files["index.json"] = document({"schemaVersion": 2, "manifests": [entry]})
    assert "is not what the archive says" in refuse(store, tar(files))


def test_unknown_kinds_and_wrong_names_are_refused(store: Store) -> None:
    image = Image()
    climbing = {"io.containerd.image.name": "../../etc"}
    for entry, cause in (
        ({**image.descriptor(image.manifest, "manifest.v1+json"), "mediaType": "text/plain"}, "unknown kind"),
        (image.descriptor(image.manifest, "x"), "unknown kind"),
        (image.descriptor(image.manifest, "manifest.v1+json", annotations=climbing), "the archive has a wrong name"),
        (image.descriptor(b"x", "manifest.v1+json", digest="sha512:" + "0" * 128), "unsupported digest"),
        (image.descriptor(b"x", "manifest.v1+json", digest="sha256:../../../etc/passwd"), "unsupported digest"),
    ):
        files = {**image.files(), "index.json": document({"schemaVersion": 2, "manifests": [entry]})}
        assert cause in refuse(store, tar(files))


def test_links_lead_nowhere_but_into_the_archive(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_bytes(Image().config)
    for link in (str(secret), "../" * 20 + str(secret)[1:], "abc.json"):
        files = Image().docker()
        del files["abc.json"]
        entries = [(name, {"data": data}) for name, data in files.items()]
        assert "has no abc.json" in refuse(store, archive(("abc.json", {"type": b"2", "link": link}), *entries))


def test_names_never_become_paths_of_the_host(store: Store, tmp_path: Path) -> None:
    data = archive(
        ("../../../escaped", {"data": b"x"}),
        (f"/{tmp_path}/escaped", {"data": b"x"}),
        ("device", {"type": b"3", "device": (1, 3)}),
        *((name, {"data": content}) for name, content in Image().files().items()),
    )
    assert loaded(store, data) == ["app:1"]
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_lying_layer_does_not_poison_the_store(store: Store) -> None:
    """A blob may not pass for the layer that other images have."""
    loaded(store, tar(Image().files()))
    refuse(store, tar(Image(OTHER, diff_id=digest(LAYER)).files()))
    assert [record.digest for record in store.database.layers(digest(LAYER))] == [digest(LAYER)]


def test_what_another_image_says_of_a_blob_is_not_believed(store: Store) -> None:
    """An image that was pulled may name any blob as the layer that an archive has."""
    store.layout.put(OTHER)
    store.layers.know(digest(LAYER), Descriptor(f"{OCI}layer.v1.tar", digest(OTHER), len(OTHER)))
    store.layers.open()
    loaded(store, tar(Image().docker()))
    (entry,) = store.images.all()
    (layer,) = store.images.manifest(entry.descriptor).layers
    with store.layout.open(layer.digest) as file:
        assert decompressor(file).read(1 << 20) == LAYER


def test_an_interrupted_load_leaves_nothing(store: Store) -> None:
    class Interrupting(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 4000:
                raise KeyboardInterrupt
            return super().read(min(size or 1000, 1000))

    before = everything(store)
    with pytest.raises(KeyboardInterrupt):
        load(store, Interrupting(tar(Image().files())), place="archive")
    assert everything(store) == before


def test_a_failure_at_the_end_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise LayerError("the disk is full")

    monkeypatch.setattr(store.images, "tag", fail)
    assert "disk is full" in refuse(store, tar(Image().files()))


GOOD = tar(Image().files())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(GOOD) - 1), value=st.binary(min_size=1, max_size=4))
def test_a_damaged_archive_is_loaded_rightly_or_refused(store: Store, position: int, value: bytes) -> None:
    """Whatever byte is wrong, no blob has another content than its digest."""
    data = GOOD[:position] + value + GOOD[position + len(value) :]
    with contextlib.suppress(BuilderError):
        load(store, io.BytesIO(data), place="archive")
    for one in store.layout.digests():
        with store.layout.open(one) as file:
            assert digest(file.read()) == one
