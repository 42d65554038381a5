"""Images that state the diff ID of another one's layer over a blob of their own: that counts for nobody else."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from builder.store.records import LayerRecord
from builder.store.store import Store
from tests.support.archives import archive, diff_id
from tests.support.builds import Cli, context
from tests.support.registry import OCI_LAYER, FakeRegistry, Faults, digest_of

TREE = archive(("etc/", {}), ("etc/honest", {"data": b"honest"}))
HONEST = gzip.compress(TREE, 9, mtime=0)
EVIL = archive(("etc/", {}), ("etc/evil", {"data": b"evil"}))
STEPS = {"metadata": "LABEL a=1\n", "step": "LABEL a=1\nWORKDIR /made\n", "look": "COPY --from={} /etc/honest /copy\n"}


def lie(smaller: bool) -> bytes:
    """A blob whose digest is smaller than the honest one's, or larger: any number of them can be made."""
    found = (gzip.compress(EVIL, 1, mtime=number) for number in range(100))
    return next(blob for blob in found if (digest_of(blob) < digest_of(HONEST)) == smaller)


def add_image(
    registry: FakeRegistry, name: str, blob: bytes, media_type: str = f"{OCI_LAYER}+gzip", tree: bytes = TREE
) -> str:
    """An image whose only layer is `blob`, and is said to be `tree`; returns its reference."""
    image = registry.add_image(name, layers=(tree,))
    document = json.loads(registry.repositories[name][image["digest"]][1])
    document["layers"] = [{"mediaType": media_type, "digest": registry.add_blob(name, blob), "size": len(blob)}]
    registry.add_manifest(name, document, "1")
    return f"{registry.host}/{name}:1"


def build(cli: Cli, dockerfile: str, *arguments: str | Path, status: int = 0) -> str:
    """Build a Dockerfile; what was said."""
    directory = context(cli.root.parent / "context", dockerfile, file="x")
    done = cli("build", *arguments, directory)
    assert done.status == status, done.err
    return done.err


def records(cli: Cli) -> dict[str, LayerRecord]:
    """What is known of the forms of TREE, by their digests."""
    store = Store(str(cli.root))
    found = {record.digest: record for record in store.database.layers(diff_id(TREE))}
    store.close()
    return found


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as running:
        yield running


@pytest.fixture(params=[True, False], ids=["smaller", "larger"])
def evil(request: pytest.FixtureRequest) -> bytes:
    return lie(request.param)


def names(registry: FakeRegistry, evil: bytes) -> tuple[str, str]:
    return add_image(registry, "honest", HONEST), add_image(registry, "evil", evil)


def tell_of_evil(cli: Cli, how: str, evil: str) -> None:
    if how == "pull":
        assert cli("pull", evil).status == 0
    else:
        build(cli, f"FROM {evil}\nLABEL e=1\n", "-t", "e")


@pytest.mark.parametrize("first", [(), ("pull",), ("build",)], ids=["lazy", "pulled", "built"])
@pytest.mark.parametrize("how", ["build", "pull"])
@pytest.mark.parametrize("steps", STEPS)
def test_the_lie_of_another_image_replaces_no_layer(
    cli: Cli, registry: FakeRegistry, evil: bytes, how: str, steps: str, first: Sequence[str]
) -> None:
    honest, forged = names(registry, evil)
    for one in first:  # before the lie is heard; otherwise the honest blob is not here yet
        assert cli("pull", honest).status == 0 if one == "pull" else build(cli, f"FROM {honest}\nLABEL b=1\n")
    tell_of_evil(cli, how, forged)
    build(cli, f"FROM {honest}\n{STEPS[steps].format(honest)}", "-t", "app")
    assert cli.manifest("app")["layers"][0]["digest"] == digest_of(HONEST)
    assert "etc/honest" in cli.files("app")
    if how == "build":  # nor is what the image itself says changed to something else that nobody has read
        assert cli.manifest("e")["layers"][0]["digest"] == digest_of(evil)


@pytest.mark.parametrize("order", ["eh", "he"])
def test_a_lie_in_the_same_build_replaces_no_layer(
    cli: Cli, registry: FakeRegistry, evil: bytes, order: str, tmp_path: Path
) -> None:
    """A step on either sees what the diff ID says, in whatever order they are named."""
    honest, forged = names(registry, evil)
    stages = {"e": f"FROM {forged} AS evil\n", "h": f"FROM {honest} AS honest\nLABEL a=1\n"}
    text = "".join(stages[one] for one in order)
    build(cli, f"{text}FROM honest\nCOPY --from=evil /etc /copy\n", "-t", "app")
    assert cli.manifest("app")["layers"][0]["digest"] == digest_of(HONEST)
    assert {"etc/honest", "copy/honest"} <= set(cli.files("app"))
    assert "copy/evil" not in cli.files("app")


def test_what_is_pushed_is_the_honest_layer(cli: Cli, registry: FakeRegistry, evil: bytes) -> None:
    honest, forged = names(registry, evil)
    tell_of_evil(cli, "pull", forged)
    build(cli, f"FROM {honest}\nLABEL a=1\n", "--push", "-t", f"{registry.host}/app:1")
    layers = json.loads(registry.repositories["app"]["1"][1])["layers"]
    assert [layer["digest"] for layer in layers] == [digest_of(HONEST)]
    assert digest_of(HONEST) in registry.blobs["app"]
    assert digest_of(evil) not in registry.blobs["app"]


@pytest.mark.parametrize("output", ["type=oci", "type=docker", "type=oci,compression=zstd,force-compression=true"])
@pytest.mark.parametrize("squash", [(), ("--squash=new",), ("--squash",)])
def test_other_outputs_hold_the_honest_layer(
    cli: Cli, registry: FakeRegistry, evil: bytes, output: str, squash: Sequence[str], tmp_path: Path
) -> None:
    honest, forged = names(registry, evil)
    tell_of_evil(cli, "pull", forged)
    build(cli, f"FROM {honest}\nCOPY file /\n", *squash, "-o", f"{output},name=app,dest={tmp_path}/app.tar")
    (tmp_path / "other").mkdir()
    other = Cli(tmp_path / "other/store")
    loaded = other("load", "-i", tmp_path / "app.tar")  # which reads each layer
    assert loaded.status == 0, loaded.err
    assert other("export", "app", "-o", tmp_path / "files.tar").status == 0
    with tarfile.open(tmp_path / "files.tar") as files:
        assert "etc/honest" in files.getnames()


def test_a_blob_that_cannot_be_fetched_gives_way_to_another_that_proves_right(
    cli: Cli, registry: FakeRegistry, evil: bytes
) -> None:
    honest, forged = names(registry, evil)
    forms = (gzip.compress(TREE, 1, mtime=number) for number in range(1000))
    copy = next(blob for blob in forms if digest_of(blob) > digest_of(evil))  # the lie is looked at first
    for one in (forged, add_image(registry, "copy", copy)):
        assert cli("pull", one).status == 0
    registry.faults = Faults(only=f"honest/blobs/{digest_of(HONEST)}", statuses=[(404, {})] * 9)
    build(cli, f"FROM {honest}\nLABEL a=1\n", "-t", "app")
    assert cli.manifest("app")["layers"][0]["digest"] == digest_of(copy)
    assert digest_of(evil) not in records(cli)


def test_an_image_that_nobody_can_make_good_is_an_error(cli: Cli, registry: FakeRegistry, evil: bytes) -> None:
    forged = names(registry, evil)[1]
    said = build(cli, f"FROM {forged}\nWORKDIR /made\n", status=1)
    assert "the layer's content is" in said
    assert "Traceback" not in said
    assert records(cli)[digest_of(evil)].uncompressed == 0


def test_a_budget_reads_what_the_diff_id_says(cli: Cli, registry: FakeRegistry, evil: bytes) -> None:
    """The size of a layer that nobody has read so far is the proof that somebody has."""
    honest, forged = names(registry, evil)
    build(cli, f"FROM {forged}\nLABEL a=1\n", "--max-layer", "1GB", status=1)
    assert records(cli)[digest_of(evil)].uncompressed == 0
    build(cli, f"FROM {honest}\nLABEL a=1\n", "--max-layer", "1GB", "-t", "app")
    assert cli.manifest("app")["layers"][0]["digest"] == digest_of(HONEST)


def test_what_another_image_says_of_the_same_blob(cli: Cli, registry: FakeRegistry) -> None:
    """Its media type is what this image says, too."""
    forged = add_image(registry, "evil", HONEST, f"{OCI_LAYER}+zstd")
    honest = add_image(registry, "honest", HONEST)
    tell_of_evil(cli, "pull", forged)
    build(cli, f"FROM {honest}\nCOPY file /\n", "-t", "app")
    assert cli.manifest("app")["layers"][0]["mediaType"] == f"{OCI_LAYER}+gzip"


@pytest.mark.parametrize("how", ["pull", "base"])
def test_what_an_image_says_of_a_steps_layer(cli: Cli, registry: FakeRegistry, how: str, tmp_path: Path) -> None:
    """Whoever knows what a step gives can put something else in the place of what a cache has of it."""
    text = "FROM scratch\nCOPY --chmod=644 file /\n"
    cache, written = tmp_path / "cache", tmp_path / "written"
    build(cli, text, "-t", "app", "--cache-to", f"type=local,dest={cache}")
    made = cli.manifest("app")["layers"][0]
    evil = gzip.compress(EVIL, 1, mtime=0)
    forged = add_image(registry, "evil", evil, tree=gzip.decompress(cli.blob(made["digest"])))
    (tmp_path / "other").mkdir()
    other = Cli(tmp_path / "other/store")
    assert other("pull", forged).status == 0
    if how == "base":  # the image takes part in the build
        text += f"COPY --from={forged} --chmod=644 /file /copy\n"
    options = ("--cache-from", f"type=local,src={cache}", "--cache-to", f"type=local,dest={written}")
    build(other, text, "-t", "app", *options)
    assert other.manifest("app")["layers"][0] == made
    assert digest_of(evil).removeprefix("sha256:") not in {path.name for path in written.rglob("*")}


@pytest.mark.parametrize("steps", ["LABEL e=1\n", "WORKDIR /made\n"], ids=["unread", "read"])
def test_what_an_image_says_of_the_blob_of_a_step(cli: Cli, registry: FakeRegistry, steps: str, tmp_path: Path) -> None:
    """It is no more than the blob and its media type that were made here, and may have been foreseen."""
    text = "FROM scratch\nCOPY --chmod=644 file /\n"
    arguments = ("--build-arg", "SOURCE_DATE_EPOCH=1600000000", "-t", "app")
    build(cli, text, *arguments)
    made = cli.manifest("app")["layers"][0]
    blob = cli.blob(made["digest"])
    (tmp_path / "other").mkdir()
    other = Cli(tmp_path / "other/store")
    build(other, f"FROM {add_image(registry, 'evil', blob, f'{OCI_LAYER}+zstd', gzip.decompress(blob))}\n{steps}")
    build(other, text, *arguments)
    assert other.manifest("app")["layers"][0] == made
