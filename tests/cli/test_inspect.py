"""What is told of an image: inspect and history."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.imaging import build, document
from tests.support.builds import Cli, lines


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


@pytest.mark.parametrize("place", ["manifest-descriptor", "index-descriptor"])
def test_annotations_of_a_descriptor_stay_with_the_image(cli: Cli, tmp_path: Path, place: str) -> None:
    build(cli, "-t", "a", "-t", "b", "--annotation", f"{place}:k=v")
    assert cli("tag", "b", "c").status == 0
    assert cli("save", "-o", tmp_path / "saved.tar", "b").status == 0
    assert cli("rmi", "b").status == 0
    assert cli("load", "-i", tmp_path / "saved.tar").status == 0
    build(cli, "-t", "a", content="x")
    for name in ("b", "c"):
        assert document(cli, name)["Descriptor"]["annotations"] == {"k": "v"}
    assert "annotations" not in document(cli, "a")["Descriptor"]


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
