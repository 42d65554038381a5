"""`builder push`: what is sent, mounted and said."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.support.archives import archive
from tests.support.builds import Cli, context, lines
from tests.support.registry import FakeRegistry, Faults, digest_of

ONE = archive(("one", {"data": b"1"}))
TWO = archive(("two", {"data": b"2"}))


def build(cli: Cli, *names: str, content: str = "x", platform: str = "linux/amd64") -> None:
    directory = context(cli.root.parent / "context", "FROM scratch\nCOPY a /\nCOPY b /\n", a="a", b=content)
    cli.build("--platform", platform, *(part for name in names for part in ("-t", name)), directory)


def uploads(registry: FakeRegistry) -> int:
    return registry.count("PUT .*/blobs/uploads/")


def test_an_image(cli: Cli, registry: FakeRegistry) -> None:
    name = f"{registry.host}/team/app"
    build(cli, name)
    shown = lines(cli("push", name))
    digest = cli.entries()[f"{name}:latest"]["digest"]
    manifest = json.loads(registry.repositories["team/app"]["latest"][1])
    assert shown[:2] == ["Using default tag: latest", f"The push refers to repository [{name}]"]
    parts = [manifest["config"], *manifest["layers"]]
    assert sorted(shown[2:-1]) == sorted(f"{part['digest'][7:19]}: Pushed" for part in parts)
    assert shown[-1] == f"latest: digest: {digest} size: {len(registry.repositories['team/app']['latest'][1])}"
    registry.requests.clear()
    again = lines(cli("image", "push", name))
    assert [line for line in again if line.endswith("Layer already exists")]
    assert not any(request.startswith(("PUT", "POST")) for request in registry.requests)
    assert lines(cli("push", "-q", name)) == [f"{name}:latest"]


@pytest.mark.parametrize("given", ["tag", "name"])
def test_a_build_pushes_by_digest(cli: Cli, registry: FakeRegistry, tmp_path: Path, given: str) -> None:
    """As with one machine for each architecture, whose images `imagetools create` makes an index of."""
    name = f"{registry.host}/team/app"
    output = "type=image,push-by-digest=true,name-canonical=true,push=true"
    how = ["-t", name, "-o", output] if given == "tag" else ["-o", f"{output},name={name}"]
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a="a")
    cli.build(*how, "--metadata-file", tmp_path / "meta.json", directory)
    metadata = json.loads((tmp_path / "meta.json").read_text())
    digest = metadata["containerimage.digest"]
    assert metadata["image.name"] == name
    assert list(registry.repositories["team/app"]) == [digest]
    assert list(cli.entries()) == [f"{name}@{digest}"]
    assert cli("imagetools", "create", "-t", f"{name}:1", f"{name}@{digest}").status == 0


@pytest.mark.parametrize("how", ["-t NAME:1 -o OUT", "-t NAME:latest -o OUT", "-o OUT,name=NAME:1"])
def test_a_tag_is_not_pushed_by_digest(cli: Cli, tmp_path: Path, how: str) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a="a")
    words = how.replace("OUT", "type=registry,push-by-digest=true").replace("NAME", "127.0.0.1:1/app").split()
    done = cli("build", *words, directory)
    assert done.status == 2
    assert "push-by-digest pushes no tag" in done.err
    assert cli("builds", "-q").out == b""


def test_tags_beside_the_name_of_an_output_stay_here(cli: Cli, registry: FakeRegistry, tmp_path: Path) -> None:
    name = f"{registry.host}/app"
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a="a")
    cli.build("-t", "app", "-t", f"{name}:mine", "-o", f"type=registry,name={name}:1", directory)
    assert set(cli.entries()) == {"docker.io/library/app:latest", f"{name}:1", f"{name}:mine"}
    assert "mine" not in registry.repositories["app"]
    cli.build("-t", "app:2", "-o", f"type=registry,name={name},push-by-digest=true", directory)
    assert f"{name}@{cli.entries()['docker.io/library/app:2']['digest']}" in cli.entries()


def test_several_names_are_sent_once(cli: Cli, registry: FakeRegistry) -> None:
    names = [f"{registry.host}/{rest}" for rest in ("app:1", "app:2", "team/other:1")]
    build(cli, *names)
    shown = lines(cli("push", *names))
    assert uploads(registry) == 3
    assert sum(line.endswith(": Mounted from app") for line in shown) == 3
    assert [line.split(":")[0] for line in shown if " digest: " in line] == ["1", "2", "1"]
    assert set(registry.repositories) == {"app", "team/other"}
    # What was pushed once is known the next time too.
    build(cli, f"{registry.host}/third:1")
    assert "Mounted from" in cli("push", f"{registry.host}/third:1").out.decode()
    assert uploads(registry) == 3


def test_layers_are_mounted_from_where_they_were_pulled(cli: Cli, registry: FakeRegistry) -> None:
    registry.add_image("base", "1", layers=(ONE, TWO))
    lines(cli("pull", f"{registry.host}/base:1"))
    lines(cli("tag", f"{registry.host}/base:1", f"{registry.host}/mine:1"))
    shown = lines(cli("push", f"{registry.host}/mine:1"))
    assert f"{digest_of(ONE)[7:19]}: Mounted from base" in shown
    assert registry.repositories["mine"]["1"] == registry.repositories["base"]["1"]


def test_a_mount_that_is_no_longer_possible_is_a_push(cli: Cli, registry: FakeRegistry) -> None:
    build(cli, f"{registry.host}/one:1", f"{registry.host}/two:1")
    lines(cli("push", f"{registry.host}/one:1"))
    del registry.repositories["one"], registry.blobs["one"]
    assert "Pushed" in "".join(lines(cli("push", f"{registry.host}/two:1")))
    assert "1" in registry.repositories["two"]


def test_all_tags(cli: Cli, registry: FakeRegistry) -> None:
    build(cli, f"{registry.host}/app:1", f"{registry.host}/app:2", f"{registry.host}/other:1")
    build(cli, f"{registry.host}/app:3", content="y")
    assert lines(cli("push", "-aq", f"{registry.host}/app")) == [f"{registry.host}/app:{tag}" for tag in "123"]
    assert {key for key in registry.repositories["app"] if len(key) == 1} == {"1", "2", "3"}
    assert set(registry.repositories) == {"app"}
    assert cli("push", "-a", f"{registry.host}/app:1").status == 2


def test_an_index_and_one_of_its_platforms(cli: Cli, registry: FakeRegistry) -> None:
    name = f"{registry.host}/app:1"
    build(cli, name, platform="linux/amd64,linux/arm64")
    lines(cli("push", name))
    index = json.loads(registry.repositories["app"]["1"][1])
    assert [one["platform"]["architecture"] for one in index["manifests"]] == ["amd64", "arm64"]
    shown = lines(cli("push", "--platform", "linux/arm64", name))
    assert f"1: digest: {index['manifests'][1]['digest']} size: {index['manifests'][1]['size']}" in shown
    assert json.loads(registry.repositories["app"]["1"][1])["layers"]
    assert cli("push", "--platform", "linux/s390x", name).status == 1


def test_an_index_of_which_one_platform_is_here(cli: Cli, registry: FakeRegistry) -> None:
    amd = registry.add_image("app", layers=(ONE,))
    arm = registry.add_image("app", layers=(TWO,), architecture="arm64")
    ppc = registry.add_image("app", layers=(TWO,), architecture="ppc64le")
    index = registry.add_index("app", "1", amd, arm, ppc)
    name = f"{registry.host}/app:1"
    lines(cli("pull", "--platform", "linux/arm64", name))
    # Where the repository has the rest, the index is whole.
    del registry.repositories["app"]["1"]
    assert index["digest"] in lines(cli("push", name))[-1]
    # Elsewhere only the image is sent.
    with FakeRegistry() as other:
        lines(cli("tag", name, f"{other.host}/app:1"))
        shown = lines(cli("push", f"{other.host}/app:1"))
        assert f"{index['digest']} -> {arm['digest']}" in shown
        assert json.loads(other.repositories["app"]["1"][1])["layers"][0]["digest"] == digest_of(TWO)
        lines(cli("pull", "--platform", "linux/amd64", name))
        refused = cli("push", f"{other.host}/app:1")
        assert refused.status == 1
        assert "there is no linux/ppc64le" in refused.err
        assert "--platform" in refused.err


def test_a_platform_of_which_a_plan_asked(cli: Cli, registry: FakeRegistry, tmp_path: Path) -> None:
    """What a plan fetches of it, manifest and configuration, makes it no platform that is here."""
    amd = registry.add_image("app", layers=(ONE,))
    arm = registry.add_image("app", layers=(TWO,), architecture="arm64")
    registry.add_index("app", "1", amd, arm)
    name = f"{registry.host}/app:1"
    lines(cli("pull", "--platform", "linux/amd64", name))
    (tmp_path / "Dockerfile").write_text(f"FROM {name}\nUSER 1\n")
    lines(cli("plan", "--pull", "--platform", "linux/arm64", str(tmp_path)))
    registry.requests.clear()
    lines(cli("save", "-o", str(tmp_path / "a.tar"), name))
    with tarfile.open(tmp_path / "a.tar") as archive:
        held = {member.name.rpartition("/")[2] for member in archive}
    assert amd["digest"][7:] in held
    assert arm["digest"][7:] not in held
    with FakeRegistry() as other:
        lines(cli("tag", name, f"{other.host}/app:1"))
        assert f"-> {amd['digest']}" in "".join(lines(cli("push", f"{other.host}/app:1")))
        refused = cli("push", "--platform", "linux/arm64", f"{other.host}/app:1")
        assert "has no image for linux/arm64 here" in refused.err


@pytest.mark.parametrize("name", ["nothing", "x.io/team/app:1"])
def test_what_is_not_here(cli: Cli, name: str) -> None:
    done = cli("push", name)
    assert done.status == 1
    assert "there is no image to push as" in done.err


def test_wrong_usage(cli: Cli) -> None:
    assert cli("push").status == 2
    assert cli("push", f"x@sha256:{'0' * 64}").status == 2
    assert cli("push", "UPPER").status == 1


def test_a_registry_that_makes_no_repositories(cli: Cli, registry: FakeRegistry) -> None:
    build(cli, f"{registry.host}/app:1")
    registry.faults = Faults(statuses=[(404, {})], only="POST")
    done = cli("push", f"{registry.host}/app:1")
    assert done.status == 1
    assert "does not make it" in done.err
    assert "make the repository there first" in done.err


def test_a_refusal_in_the_middle_leaves_no_tag(cli: Cli, registry: FakeRegistry) -> None:
    build(cli, f"{registry.host}/app:1")
    registry.faults = Faults(statuses=[(403, {})], only="PUT .*blobs")
    done = cli("push", f"{registry.host}/app:1")
    assert done.status == 1
    assert "403" in done.err
    assert "app" not in registry.repositories
    registry.faults = Faults()
    lines(cli("push", f"{registry.host}/app:1"))
