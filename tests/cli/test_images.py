"""Listing, inspecting, naming and removing images."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from builder.store.store import Store
from tests.support.builds import Cli, Done, context
from tests.support.checks import database

DOCKERFILE = """\
FROM scratch
LABEL stage=one who="a b"
ENV A=1
COPY file /dir/file
CMD ["/dir/file"]
"""
OLD, NEW = "1577836800", "1609459200"  # 2020 and 2021


def build(cli: Cli, *arguments: str, epoch: str = OLD, content: str = "content", dockerfile: str = DOCKERFILE) -> None:
    directory = context(cli.root.parent / "context", dockerfile, file=content)
    cli.build(*arguments, directory, environ={"SOURCE_DATE_EPOCH": epoch})


def rebuild(cli: Cli) -> int:
    """Build the last image once more; how many steps were cached."""
    return cli.build("-t", "a", cli.root.parent / "context", environ={"SOURCE_DATE_EPOCH": OLD}).cached()


def lines(done: Done) -> list[str]:
    assert done.status == 0, done.err
    return done.out.decode().splitlines()


def document(cli: Cli, name: str, *options: str) -> dict[str, Any]:
    (found,) = json.loads("\n".join(lines(cli("inspect", *options, name))))
    return dict(found)


def blobs(cli: Cli) -> set[str]:
    return {path.name for path in (cli.root / "blobs/sha256").iterdir()}


# --- images


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


# --- inspect and history


def test_inspect_has_dockers_shape(cli: Cli) -> None:
    build(cli, "-t", "app:1", "-t", "other/name:2")
    found = document(cli, "app:1")
    digest = cli.entries()["docker.io/library/app:1"]["digest"]
    assert found["Id"] == cli.image_id("app:1")
    assert found["RepoTags"] == ["app:1", "other/name:2"]
    assert found["RepoDigests"] == [f"app@{digest}", f"other/name@{digest}"]
    assert found["Created"] == "2020-01-01T00:00:00Z"
    assert found["Os"] == "linux"
    assert found["RootFS"] == {"Type": "layers", "Layers": cli.config("app:1")["rootfs"]["diff_ids"]}
    assert found["Config"]["Labels"] == {"stage": "one", "who": "a b"}
    assert found["Config"]["Cmd"] == ["/dir/file"]
    assert "Entrypoint" not in found["Config"]
    assert found["Descriptor"]["digest"] == digest
    assert found["Size"] > 0


def test_inspect_templates_and_several_images(cli: Cli) -> None:
    build(cli, "-t", "a")
    build(cli, "-t", "b", content="x")
    assert lines(cli("inspect", "-f", "{{.Id}} {{index .Config.Labels `stage`}}", "a", "b")) == [
        f"{cli.image_id('a')} one",
        f"{cli.image_id('b')} one",
    ]
    assert lines(cli("inspect", "-f", "{{.Config.Healthcheck}}{{json .Config.Entrypoint}}", "a")) == ["<nil>null"]
    mixed = cli("inspect", "a", "missing")
    assert mixed.status == 1
    assert len(json.loads(mixed.out)) == 1
    assert "no such image: missing" in mixed.err


def test_inspect_as_json_is_one_array_on_one_line(cli: Cli) -> None:
    build(cli, "-t", "a")
    (line,) = lines(cli("inspect", "-f", "json", "a", "a"))
    assert json.loads(line) == [document(cli, "a")] * 2
    missing = cli("inspect", "-f", "json", "missing")
    assert (missing.status, missing.out) == (1, b"[]\n")


def test_templates_of_inspect_are_taken_as_they_are(cli: Cli) -> None:
    """Escapes stand in strings only; the lists' formats have them in text too."""
    build(cli, "-t", "a")
    assert cli("inspect", "-f", r'{{range .Config.Env}}{{.}}{{"\n"}}{{end}}\t', "a").out.endswith(b"A=1\n\\t\n")


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ('{{index .Config.Labels "version"}}', ""),
        ("{{.Config.Labels.foo}}", "<no value>"),
        ("{{len .Config.Cmd}}", "0"),
        ("{{.Config.Labels}} {{.Config.Cmd}}", "map[] []"),
        ("{{.Config.ExposedPorts}} {{.Config.Volumes}}", "map[80/tcp:{}] map[/data:{}]"),
        ("{{json .Config.Labels}} {{json .Config.Cmd}} {{json .Config.Volumes}}", 'null null {"/data":{}}'),
    ],
)
def test_inspect_of_what_an_image_does_not_say(cli: Cli, template: str, shown: str) -> None:
    build(cli, "-t", "a", dockerfile="FROM scratch\nEXPOSE 80\nVOLUME /data\nCOPY file /\n")
    assert lines(cli("inspect", "-f", template, "a")) == [shown]
    assert document(cli, "a")["Config"].keys() == {"Env", "ExposedPorts", "Volumes", "WorkingDir"}


@pytest.mark.parametrize("length", [3, 12, 64])
def test_images_are_found_by_the_beginning_of_their_ids(cli: Cli, length: int) -> None:
    build(cli, "-t", "app")
    identity = cli.image_id("app")
    manifest = cli.entries()["docker.io/library/app:latest"]["digest"]
    for text in (identity[7 : 7 + length], identity[: 7 + length], manifest[7 : 7 + length], f"app@{manifest}"):
        assert document(cli, text)["Id"] == identity


def test_inspect_of_an_index(cli: Cli) -> None:
    build(cli, "-t", "app", "--platform", "linux/amd64,linux/arm64")
    index = cli.entries()["docker.io/library/app:latest"]["digest"]
    assert document(cli, "app")["Id"] == index
    arm = document(cli, "app", "--platform", "linux/arm64")
    assert arm["Architecture"] == "arm64"
    assert arm["Id"] != index
    refused = cli("inspect", "--platform", "linux/s390x", "app")
    assert refused.status == 1
    assert "no variant for linux/s390x" in refused.err


def test_the_type_of_what_is_inspected(cli: Cli) -> None:
    build(cli, "-t", "a")
    assert cli("inspect", "--type", "image", "-s", "a").out == cli("inspect", "--size=false", "a").out != b""
    for kind, message in (("container", "there is no container to inspect"), ("floppy", "unknown type 'floppy'")):
        refused = cli("inspect", "--type", kind, "a")
        assert (refused.status, refused.out) == (2, b"")
        assert message in refused.err


def test_history(cli: Cli) -> None:
    build(cli, "-t", "app")
    header, *rows = lines(cli("history", "app"))
    assert header.split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert rows[0].startswith(cli.image_id("app")[7:19])
    assert [row.split()[0] for row in rows[1:]] == ["<missing>"] * 3
    assert lines(cli("history", "--format", "{{.CreatedBy}}|{{.Size}}", "app")) == [
        'CMD ["/dir/file"]|0B',
        "COPY file /dir/file # buildkit|2.56kB",
        "ENV A=1|0B",
        "LABEL stage=one who=a b|0B",
    ]
    assert lines(cli("history", "-q", "--no-trunc", "app"))[0] == cli.image_id("app")


def test_exact_history_has_local_times_in_seconds(cli: Cli) -> None:
    build(cli, "-t", "app")
    there = {"TZ": "XYZ-2"}
    row = json.loads(lines(cli.spawn("history", "-H=false", "--format", "json", "app", environ=there))[1])
    assert (row["CreatedAt"], row["Size"]) == ("2020-01-01T02:00:00+02:00", "2560")
    assert row["CreatedSince"] == row["CreatedAt"]
    row = json.loads(lines(cli.spawn("history", "--format", "json", "app", environ=there))[1])
    assert row["CreatedAt"] == "2020-01-01T02:00:00+02:00"
    assert row["CreatedSince"].endswith(" ago")


def test_long_lines_of_history_are_cut(cli: Cli) -> None:
    build(cli, "-t", "app", dockerfile=f"FROM scratch\nCOPY file /\nENV A={'x' * 100}\n")
    assert lines(cli("history", "--format", "{{.CreatedBy}}", "app"))[0] == f"ENV A={'x' * 38}…"
    assert lines(cli("history", "--no-trunc", "--format", "{{.CreatedBy}}", "app"))[0] == f"ENV A={'x' * 100}"


def test_lines_of_history_with_line_breaks(cli: Cli) -> None:
    """Tables are for terminals, which others' images must not write to; the other forms are exact."""
    build(cli, "-t", "app", "--build-arg", "A=a\x1b[2J\nb", dockerfile="FROM scratch\nARG A\nENV B=$A\n")
    for form, shown in (("{{.CreatedBy}}", "ENV B=a\x1b[2J\nb"), ("table {{.CreatedBy}}", "ENV B=a\\x1b[2J\\nb")):
        assert shown in cli("history", "--no-trunc", "--format", form, "app").out.decode()
    row = json.loads(lines(cli("history", "--no-trunc", "--format", "json", "app"))[0])
    assert row["CreatedBy"] == "ENV B=a\x1b[2J\nb"


# --- tag and rmi


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


# --- prune and du


def test_prune_asks(cli: Cli) -> None:
    build(cli, "-t", "a")
    for answer in (b"", b"n\n", b"what\n"):
        refused = cli("prune", "-a", stdin=answer)
        assert refused.status == 1
        assert b"WARNING! This will remove:\n  - all images" in refused.out
    assert len(cli.entries()) == 1
    done = cli("image", "prune", "-a", stdin=b"y\n")
    assert done.status == 0
    assert b"This will remove all images." in done.out
    assert cli.entries() == {}


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (("image", "prune"), b"This will remove all dangling images."),
        (("image", "prune", "--filter", "dangling=1"), b"This will remove all dangling images."),
        (("image", "prune", "--filter", "dangling=false"), b"This will remove all images."),
        (("prune", "--filter", "dangling=false"), b"  - all images\n  - all build cache\n"),
        (("prune",), b"  - all dangling images\n  - unused build cache\n"),
    ],
)
def test_prune_asks_about_what_filters_choose(cli: Cli, arguments: tuple[str, ...], asked: bytes) -> None:
    refused = cli(*arguments, stdin=b"n\n")
    assert refused.status == 1
    assert asked in refused.out


@pytest.mark.parametrize("command", [("prune",), ("image", "prune")])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-a", "--filter", "dangling=true"), "--filter dangling=true contradicts -a"),
        (
            ("--filter", "dangling=true", "--filter", "dangling=0"),
            "--filter dangling=true contradicts dangling=false",
        ),
        (("--filter", "dangling=what"), "invalid filter dangling=what"),
        (("--filter", "until=what"), "what"),
        (("--filter", "what=1"), "there is no filter 'what'"),
    ],
)
def test_prune_refuses_filters_before_it_asks(
    cli: Cli, command: tuple[str, ...], arguments: tuple[str, ...], message: str
) -> None:
    build(cli, "-t", "a")
    for force in ((), ("-f",)):
        refused = cli(*command, *force, *arguments, stdin=b"y\n")
        assert (refused.status, refused.out) == (2, b"")
        assert message in refused.err
    assert list(cli.entries()) == ["docker.io/library/a:latest"]


def test_prune_removes_dangling_images_and_says_what_was_reclaimed(cli: Cli) -> None:
    build(cli, "-t", "a", content="x" * 5000)
    identity = cli.image_id("a")
    build(cli, "-t", "a")
    out = lines(cli("image", "prune", "-f"))
    assert out[:2] == ["Deleted Images:", f"deleted: {identity}"]
    assert out[-1].startswith("Total reclaimed space: ")
    assert list(cli.entries()) == ["docker.io/library/a:latest"]
    assert lines(cli("image", "prune", "-f")) == ["Total reclaimed space: 0B"]


def test_prune_filters(cli: Cli) -> None:
    build(cli, "-t", "labelled")
    build(cli, "-t", "plain", dockerfile="FROM scratch\nCOPY file /\n", epoch=NEW)
    cli("image", "prune", "-af", "--filter", "until=2019-01-01")
    assert len(cli.entries()) == 2
    cli("image", "prune", "-af", "--filter", "label=stage=two")
    cli("image", "prune", "-af", "--filter", "label!=stage", "--filter", "until=2020-06-01")
    assert len(cli.entries()) == 2
    cli("image", "prune", "-af", "--filter", "label!=stage")
    assert list(cli.entries()) == ["docker.io/library/labelled:latest"]
    cli("prune", "-af", "--filter", "until=2020-06-01")
    assert cli.entries() == {}


def test_prune_of_the_cache_alone_keeps_the_images(cli: Cli) -> None:
    build(cli, "-t", "a")
    build(cli, "-t", "a", content="x")
    asked = cli("prune", "-a", "--cache", stdin=b"n\n").out
    assert b"remove:\n  - all build cache\n  - all kept" in asked
    assert b"remove:\n  - unused build cache\n  - all kept" in cli("prune", "--cache", stdin=b"n\n").out
    assert "there is no filter 'label'" in cli("prune", "--cache", "-f", "--filter", "label=x").err
    assert b"Total reclaimed space: 0B" in cli("prune", "--cache", "-f").out, "images have it all, named or not"
    assert b"records" not in cli("prune", "-a", "--cache", "-f", "--filter", "until=1h").out
    out = cli("prune", "-a", "--cache", "-f").out
    assert b"Deleted build cache records: " in out
    assert b"Deleted Images" not in out
    assert len(cli.entries()) == 2
    assert cli("export", "a", "-o", os.devnull).status == 0
    assert rebuild(cli) == 0


def test_prune_keeps_cache_that_images_have_and_recent_cache(cli: Cli) -> None:
    build(cli, "-t", "a")
    build(cli, "-t", "b", content="x")
    cli("rmi", "b")
    assert "Deleted build cache records" not in cli("prune", "-f", "--filter", "until=1h").out.decode()
    assert b"Deleted build cache records: " in cli("prune", "-f").out
    context(cli.root.parent / "context", DOCKERFILE, file="content")
    assert rebuild(cli) == 1


@pytest.mark.parametrize(
    ("arguments", "days", "goes"),
    [
        (("prune",), 29, False),
        (("prune",), 31, True),
        (("prune", "--filter", "until=48h"), 1, False),
        (("prune", "--filter", "until=48h"), 3, True),
        (("prune", "--filter", "label=a"), 31, False),
        (("image", "prune"), 31, False),
    ],
)
def test_prune_forgets_what_was_derived_and_is_not_used(
    cli: Cli, arguments: tuple[str, ...], days: int, goes: bool
) -> None:
    """Parsed Dockerfiles, fingerprints of files: nothing goes with them, and each file that changes leaves another."""
    build(cli, "-t", "a")
    database(cli, f"UPDATE memos SET used = used - {days * 86400} WHERE holds = ''")
    before = database(cli, "SELECT count(*) FROM memos WHERE holds = ''")
    assert cli(*arguments, "-f").status == 0
    assert before != [(0,)]
    assert database(cli, "SELECT count(*) FROM memos WHERE holds = ''") == ([(0,)] if goes else before)


def test_du(cli: Cli) -> None:
    build(cli, "-t", "a")
    build(cli, "-t", "a", content="x" * 3000)
    rows = {row["Type"]: row for row in map(json.loads, lines(cli("du", "--format", "json")))}
    assert rows["Images"]["TotalCount"] == "2"
    assert rows["Images"]["Active"] == "1"
    assert rows["Images"]["Reclaimable"] != "0B"
    assert int(rows["Build Cache"]["TotalCount"]) >= 2
    assert rows["Build Cache"]["Active"] == rows["Build Cache"]["TotalCount"]
    assert lines(cli("du"))[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    verbose = cli("du", "-v").out.decode()
    assert "SHARED SIZE" in verbose
    assert "step" in verbose
    cli("prune", "-af")
    assert all(row.split()[-2] == "0B" for row in lines(cli("du"))[1:])
