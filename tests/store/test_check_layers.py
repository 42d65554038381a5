"""`builder fsck` compares layers with what image configurations and the cache database say that they are."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from builder.config import ArchiveLimits
from builder.oci.spec import Descriptor
from builder.store import check_blobs, check_layers
from builder.store.check import check
from builder.store.check_layers import HashedFile, content_fault
from builder.store.check_session import LEFTOVER, Session
from tests.support.builds import Cli
from tests.support.checks import CHECK, DEEP, DROP, REPAIR, add_blob, blob_path, database, edit_config, run

DOCKERFILE = "FROM scratch AS one\nCOPY a /dir/a\nCOPY b /dir/b\nFROM scratch\nCOPY --from=one /dir/b /b\nCOPY a /a\n"
OTHER = f"sha256:{'1' * 64}"
X = "docker.io/library/x:latest"


@pytest.fixture
def cli(built: Cli) -> Cli:
    return built


def test_a_record_with_another_diff_id_is_forgotten(cli: Cli, source: Path) -> None:
    """The steps that hold the layer, too; the image that has it is as good as ever."""
    real = cli.config("x")["rootfs"]["diff_ids"][0]
    digest = cli.manifest("x")["layers"][0]["digest"]
    database(cli, f"UPDATE layers SET diff_id = '{OTHER}' WHERE diff_id = '{real}'")
    database(cli, f"UPDATE steps SET diff_id = '{OTHER}' WHERE diff_id = '{real}'")
    (problem,) = run(cli).remaining()
    assert (problem.area, problem.place) == ("record", f"layer {OTHER}")
    assert problem.cause == f"its blob {digest} holds {real} instead of {OTHER}"
    result = run(cli, REPAIR)
    assert not result.remaining()
    assert {one.repair for one in result.problems} == {"forgotten"}
    assert run(cli, DEEP).problems == ()
    assert X in cli.entries()
    assert cli.build("-t", "x", source).cached() == 3  # one of the four steps is made again
    assert cli.files("x")["b"].content == b"b" * 2000


def test_a_wrong_record_is_no_reason_to_remove_what_was_unpacked(cli: Cli) -> None:
    (snapshot,) = sorted((cli.root / "snapshots").glob("*/fs"))[:1]
    diff_id = f"sha256:{snapshot.parent.name}"
    wrong = database(cli, f"SELECT digest, size FROM layers WHERE diff_id != '{diff_id}'")[0]
    database(cli, f"UPDATE layers SET digest = '{wrong[0]}', size = {wrong[1]} WHERE diff_id = '{diff_id}'")
    assert {one.area for one in run(cli, REPAIR).problems} == {"record"}
    assert snapshot.is_dir()


def test_a_wrong_uncompressed_size_is_mended(cli: Cli) -> None:
    before = database(cli, "SELECT uncompressed FROM layers ORDER BY 1")
    database(cli, "UPDATE layers SET uncompressed = uncompressed + 1")
    causes = [problem.cause for problem in run(cli).remaining()]
    assert len(causes) == len(before)
    assert f"its uncompressed size is {before[0][0]} bytes, not {before[0][0] + 1}" in causes
    assert not run(cli, REPAIR).remaining()
    assert database(cli, "SELECT uncompressed FROM layers ORDER BY 1") == before
    database(cli, "UPDATE layers SET uncompressed = 0")  # not known yet
    assert run(cli).problems == ()


def test_what_a_cache_claims_does_no_harm(cli: Cli) -> None:
    """It is compared before anything is done with it."""
    digest = cli.manifest("x")["layers"][0]["digest"]
    size = cli.manifest("x")["layers"][0]["size"]
    database(cli, f"INSERT INTO layers VALUES ('{OTHER}', '{digest}', 'x', {size}, 'cache:registry.test/c', 0)")
    (problem,) = run(cli, REPAIR).problems
    assert (problem.severity, problem.repair) == (LEFTOVER, "forgotten")
    assert run(cli).problems == ()


def test_a_blob_that_a_collection_takes_while_its_record_is_looked_at(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("rmi", "x")
    digest = database(cli, "SELECT digest FROM layers")[0][0]
    blob_path(cli, digest).unlink()
    monkeypatch.setattr(Session, "is_here", lambda *_: True)
    problems = [problem for problem in run(cli).problems if problem.area == "record"]
    assert [problem.severity for problem in problems] == [LEFTOVER]
    assert problems[0].cause == "its blob is not here and cannot be fetched"


@pytest.mark.parametrize("named", [True, False])
def test_a_blob_that_goes_while_its_image_is_looked_at(cli: Cli, named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an image that was removed meanwhile nothing is said."""
    digest = cli.manifest("x")["layers"][1]["digest"]

    def remove(session: Session, layer: Descriptor, diff_id: str) -> str:
        if not named:
            cli("rmi", "x")
        blob_path(cli, digest).unlink(missing_ok=True)
        session.contents.clear()
        return content_fault(session, layer, diff_id)

    monkeypatch.setattr(check_layers, "content_fault", remove)
    problems = [problem for problem in run(cli).problems if problem.area == "image"]
    assert [problem.cause.endswith("is missing: No such file or directory") for problem in problems] == [True] * named


def test_an_image_with_other_diff_ids_than_its_layers(cli: Cli) -> None:
    """Nobody can use it; its name is not taken away before one asks for that, and then it is said."""
    digest = cli.manifest("x")["layers"][1]["digest"]
    real = cli.config("x")["rootfs"]["diff_ids"][1]
    edit_config(cli, "x", lambda config: config["rootfs"]["diff_ids"].__setitem__(1, OTHER))
    for depth in (CHECK, REPAIR):
        (problem,) = run(cli, depth).remaining()
        assert (problem.area, problem.place) == ("image", X)
        assert problem.cause == f"the layer {digest} holds {real} instead of {OTHER}"
        assert "builder fsck --repair" in problem.remedy
        assert X in cli.entries()
    result = run(cli, DROP)
    assert not result.remaining()
    assert [(one.place, one.repair) for one in result.problems] == [(X, "its name was dropped")]
    assert cli.entries() == {}
    assert run(cli).problems == ()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_image_with_another_number_of_diff_ids(cli: Cli, count: int) -> None:
    def change(config: dict[str, dict[str, list[str]]]) -> None:
        config["rootfs"]["diff_ids"] = (config["rootfs"]["diff_ids"] * 2)[:count]

    edit_config(cli, "x", change)
    (problem,) = run(cli).remaining()
    assert problem.cause == f"the configuration has {count} diff IDs, the manifest 2 layers"


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (gzip.compress(b"x" * 10_000, mtime=0)[:-9], "the gzip stream is truncated"),
        (gzip.compress(b"", mtime=0)[:10] + b"\xff" * 100, "the gzip stream is damaged"),
    ],
    ids=["truncated", "damaged"],
)
def test_a_layer_that_is_as_it_was_written_and_cannot_be_read(cli: Cli, data: bytes, cause: str) -> None:
    digest = add_blob(cli, data)
    database(cli, f"INSERT INTO layers VALUES ('{OTHER}', '{digest}', 'x', {len(data)}, '', 0)")
    (problem,) = run(cli, REPAIR).problems
    assert cause in problem.cause
    assert problem.repair == "forgotten"
    assert blob_path(cli, digest).exists()  # that is what its name says: nobody else need miss it


def test_layers_over_the_limits_are_not_read_to_their_end(cli: Cli) -> None:
    checked = check(str(cli.root), CHECK, lambda *_: None, limits=ArchiveLimits(size=1500))
    assert "uncompressed it has more than the 1500 bytes that are allowed" in checked.remaining()[0].cause


def test_each_blob_is_read_once(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digest and diff ID come of one pass; the bytes that are read are those of all blobs, no more."""
    opened: list[HashedFile] = []

    class Counted(HashedFile):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            opened.append(self)

    monkeypatch.setattr(check_blobs, "HashedFile", Counted)
    monkeypatch.setattr("builder.store.check_layers.HashedFile", None)  # for blobs that came in the middle of a check
    result = run(cli)
    assert result.problems == ()
    assert result.counts["layers"] == len(database(cli, "SELECT DISTINCT digest FROM layers")) >= 4
    assert len(opened) == result.counts["blobs"]
    assert sum(blob.size for blob in opened) == result.counts["bytes"]
