"""Naming and removing images."""

from __future__ import annotations

import pytest

from builder.store.store import Store
from tests.cli.imaging import DOCKERFILE, blobs, build, document, rebuild
from tests.support.builds import Cli, lines


def test_tag_moves_a_name(cli: Cli) -> None:
    build(cli, "-t", "a")
    build(cli, "-t", "b", content="x")
    first = cli.image_id("a")
    assert cli("tag", "a", "b").status == 0
    assert cli.image_id("b") == first
    assert len(lines(cli("images", "-q", "-f", "dangling=true"))) == 1
    assert cli("tag", first[7:15], "ghcr.io/org/c:3").status == 0
    assert document(cli, "ghcr.io/org/c:3")["Id"] == first
    assert cli("tag", "missing", "d").status == 1
    assert cli("tag", "a", "Not/A/Name").status == 1
    assert cli("tag", "a", f"d@{first}").status == 2


def test_rmi_takes_names_away_and_the_image_with_the_last(cli: Cli) -> None:
    build(cli, "-t", "a:1", "-t", "a:2")
    identity = cli.image_id("a:1")
    assert lines(cli("rmi", "a:1")) == ["Untagged: a:1"]
    assert lines(cli("image", "rm", "a:2")) == ["Untagged: a:2", f"Deleted: {identity}"]
    assert cli.entries() == {}
    assert identity[7:] not in blobs(cli)


def test_rmi_by_id_needs_force_for_several_names(cli: Cli) -> None:
    build(cli, "-t", "a:1", "-t", "a:2")
    identity = cli.image_id("a:1")
    refused = cli("rmi", identity[7:19])
    assert refused.status == 1
    assert "error: " + identity[7:19] + ": the image has several names: a:1, a:2\nhelp: " in refused.err
    cli("tag", "a:1", "b:1")
    assert cli("rmi", identity).status == 1
    assert len(cli.entries()) == 3
    out = lines(cli("rmi", "-f", identity[7:19]))
    assert sorted(out[:3]) == ["Untagged: a:1", "Untagged: a:2", "Untagged: b:1"]
    assert out[3] == f"Deleted: {identity}"


@pytest.mark.parametrize(
    ("text", "gone"),
    [("a@", "a:1 a:2"), ("a:2@", "a:2"), ("b@", "b:1"), ("b:1@", "b:1"), ("a:3@", ""), ("c@", "")],
)
def test_rmi_by_name_and_digest_takes_the_names_of_this_repository(cli: Cli, text: str, gone: str) -> None:
    build(cli, "-t", "a:1", "-t", "a:2", "-t", "b:1")
    digest = cli.entries()["docker.io/library/a:1"]["digest"]
    done = cli("rmi", text + digest)
    assert done.status == (0 if gone else 1)
    assert done.out.decode().splitlines() == [f"Untagged: {name}" for name in gone.split()]
    assert len(cli.entries()) == 3 - len(gone.split())


def test_rmi_by_name_and_digest_of_all_names_removes_the_image(cli: Cli) -> None:
    build(cli, "-t", "a:1", "-t", "a:2")
    identity, digest = cli.image_id("a:1"), cli.entries()["docker.io/library/a:1"]["digest"]
    assert lines(cli("rmi", f"a@{digest}")) == ["Untagged: a:1", "Untagged: a:2", f"Deleted: {identity}"]


def test_rmi_goes_on_after_an_error(cli: Cli) -> None:
    build(cli, "-t", "a")
    done = cli("rmi", "missing", "a")
    assert done.status == 1
    assert "no such image: missing" in done.err
    assert cli.entries() == {}
    assert cli("rmi", "-f", "missing").status == 0


def test_layers_that_others_need_stay(cli: Cli) -> None:
    build(cli, "-t", "a")
    build(cli, "-t", "b", dockerfile=DOCKERFILE + "ENV B=2\n")
    cli("rmi", "a")
    cli("prune", "-f")
    for layer in cli.manifest("b")["layers"]:
        cli.blob(layer["digest"])
    assert blobs(cli) == {cli.entries()["docker.io/library/b:latest"]["digest"][7:], cli.image_id("b")[7:]} | {
        layer["digest"][7:] for layer in cli.manifest("b")["layers"]
    }


def test_the_build_cache_outlives_its_image_until_it_is_pruned(cli: Cli) -> None:
    build(cli, "-t", "a")
    cli("rmi", "a")
    assert rebuild(cli) == 1
    cli("rmi", "a")
    assert cli("prune", "-f").status == 0
    assert blobs(cli) == set()
    assert rebuild(cli) == 0


def test_no_prune_leaves_the_data(cli: Cli) -> None:
    build(cli, "-t", "a")
    before = blobs(cli)
    cli("rmi", "--no-prune", "a")
    assert blobs(cli) == before
    cli("image", "prune", "-f")
    assert len(blobs(cli)) == 1  # the step's layer


def test_an_image_in_use_is_not_removed(cli: Cli) -> None:
    build(cli, "-t", "a", "-t", "b")
    store = Store(str(cli.root))
    with store.lease():
        store.images.manifest(store.images.find("a").descriptor)
        assert lines(cli("rmi", "b")) == ["Untagged: b:latest"]  # only a name
        refused = cli("rmi", "-f", "a")
        assert refused.status == 1
        assert "a running build uses the image" in refused.err
        assert cli("prune", "-af").status == 0
        assert list(cli.entries()) == ["docker.io/library/a:latest"]
    assert cli("rmi", "a").status == 0
    store.close()
