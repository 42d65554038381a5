"""Listing images."""

from __future__ import annotations

import json

from tests.cli.imaging import NEW, build
from tests.support.builds import Cli, lines


def test_the_table_has_dockers_columns_newest_first(cli: Cli) -> None:
    build(cli, "-t", "old:1", "-t", "registry.example.com/team/app:2")
    build(cli, "-t", "new", epoch=NEW, content="other")
    header, *rows = lines(cli("images"))
    assert header.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert [row.split()[:2] for row in rows] == [
        ["new", "latest"],
        ["registry.example.com/team/app", "2"],
        ["old", "1"],
    ]
    assert rows[0].split()[2] == cli.image_id("new")[7:19]
    assert "years ago" in rows[0]
    assert lines(cli("image", "ls")) == lines(cli("image", "list")) == [header, *rows]


def test_an_image_that_lost_its_name_is_dangling(cli: Cli) -> None:
    build(cli, "-t", "app")
    build(cli, "-t", "app", content="other")
    rows = lines(cli("images", "--format", "{{.Repository}}:{{.Tag}}"))
    assert sorted(rows) == ["<none>:<none>", "app:latest"]
    assert len(lines(cli("images", "-q", "-f", "dangling=true"))) == 1
    assert lines(cli("images", "-q", "-f", "dangling=false")) == [cli.image_id("app")[7:19]]


def test_quiet_lists_each_id_once(cli: Cli) -> None:
    build(cli, "-t", "a", "-t", "b")
    assert lines(cli("images", "-q")) == [cli.image_id("a")[7:19]]
    assert lines(cli("images", "-q", "--no-trunc")) == [cli.image_id("a")]


def test_digests_and_formats(cli: Cli) -> None:
    build(cli, "-t", "app:1")
    digest = cli.entries()["docker.io/library/app:1"]["digest"]
    assert digest in lines(cli("images", "--digests"))[1]
    (row,) = lines(cli("images", "--format", "json"))
    assert json.loads(row)["Digest"] == digest
    assert json.loads(row)["Repository"] == "app"
    assert lines(cli("images", "--format", r"table {{.ID}}\t{{.Tag}}")) == [
        "IMAGE ID       TAG",
        f"{cli.image_id('app:1')[7:19]}   1",
    ]
    assert json.loads(lines(cli("images", "--format", "{{json .}}"))[0])["Tag"] == "1"
    refused = cli("images", "--format", "{{.Nope}}")
    assert refused.status == 2
    assert "there is no field 'Nope'" in refused.err


def test_filters(cli: Cli) -> None:
    build(cli, "-t", "one/app:1")
    build(cli, "-t", "two:2", epoch=NEW, content="x", dockerfile="FROM scratch\nCOPY file /\n")

    def shown(*options: str) -> list[str]:
        return sorted(lines(cli("images", "--format", "{{.Repository}}", *options)))

    assert shown("-f", "label=stage") == ["one/app"]
    assert shown("-f", "label=stage=one", "-f", "label=who=a b") == ["one/app"]
    assert shown("-f", "label=stage=two") == []
    assert shown("-f", "before=two:2") == ["one/app"]
    assert shown("-f", "since=one/app:1") == ["two"]
    assert shown("-f", "until=2020-06-01") == ["one/app"]
    assert shown("-f", "reference=t*") == ["two"]
    assert shown("-f", "reference=*/*:1", "-f", "reference=two") == ["one/app", "two"]
    assert shown("-f", "reference=docker.io/library/t*") == shown("-f", "reference=docker.io/*/two:2") == ["two"]
    assert shown("docker.io/one/app") == ["one/app"]
    assert shown("-f", "reference=docker.io/t*") == []
    assert shown("-f", "label!=stage") == ["two"]
    assert shown("-f", "label!=stage=two", "-f", "label!=nothing") == ["one/app", "two"]
    assert shown("two") == shown("two:2") == shown("t?o") == ["two"]
    assert shown("two:3") == shown("Two") == []
    assert cli("images", "-f", "since=nothing").status == 1
    assert cli("images", "-f", "size=3").status == 2


def test_a_tree_shows_the_platforms(cli: Cli) -> None:
    build(cli, "-t", "app", "-t", "second", "--platform", "linux/amd64,linux/arm64")
    rows = [row.split() for row in lines(cli("images", "--tree"))]
    assert rows[0] == ["IMAGE", "ID", "DISK", "USAGE", "CONTENT", "SIZE"]
    assert {rows[1][0], rows[2][0]} == {"app:latest", "second:latest"}
    assert [row[:2] for row in rows[3:]] == [["├─", "linux/amd64"], ["└─", "linux/arm64"]]


def test_a_damaged_image_does_not_hide_the_others(cli: Cli) -> None:
    build(cli, "-t", "good")
    build(cli, "-t", "bad", content="x")
    digest = cli.manifest("bad")["config"]["digest"]
    (cli.root / "blobs" / digest.replace(":", "/")).write_text("{}")
    assert len(lines(cli("images"))) == 3
    assert lines(cli("images", "-q", "good"))
    assert cli("inspect", "bad").status == 1
    assert lines(cli("rmi", "bad"))[0] == "Untagged: bad:latest"


def test_a_lost_cache_database_hides_no_image(cli: Cli) -> None:
    build(cli, "-t", "app")
    for path in cli.root.glob("cache.db*"):
        path.write_bytes(b"this is no database" * 100)
    assert len(lines(cli("images"))) == 2
