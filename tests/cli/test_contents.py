"""Looking into images: layers, ls, cat and diff, over images with every kind of file."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.archives import archive
from tests.support.builds import BUSYBOX, Cli, Done, busybox_context, context, flatten, needs_sandbox
from tests.support.images import put_image

LAYERS = [
    archive(
        ("bin", {"type": tarfile.SYMTYPE, "link": "usr/bin"}),
        ("etc/", {}),
        ("etc/hosts", {"data": b"localhost\n", "mode": 0o600, "owner": (1, 20)}),
        ("etc/link", {"type": tarfile.SYMTYPE, "link": "/etc/hosts"}),
        ("etc/up", {"type": tarfile.SYMTYPE, "link": "../../../etc/hosts"}),
        ("etc/round", {"type": tarfile.SYMTYPE, "link": "round"}),
        ("etc/gone", {"type": tarfile.SYMTYPE, "link": "nowhere"}),
        ("null", {"type": tarfile.CHRTYPE, "device": (1, 3), "mode": 0o666}),
        ("usr/bin/", {"mode": 0o1755}),
        ("usr/bin/tool", {"data": b"#!tool\n" * 100, "mode": 0o4755}),
    ),
    archive(("usr/bin/more", {"data": bytes(range(256))}), ("bin/extra", {"data": b"extra"})),
    archive(
        ("etc/hosts", {"data": b"changed\n", "mode": 0o644}),
        ("new/", {}),
        ("new/a\x1b[31m\n", {"data": b"escape"}),
        ("new/\udcff", {"data": b"bytes"}),
        ("usr/bin/.wh.tool", {"data": b""}),
        ("root/.cache/pip/wheel", {"data": b"w" * 2000}),
    ),
]
LINES = ["ADD base.tar /", "RUN /bin/sh -c one &&     two three four five six seven eight nine ten eleven", "RUN clean"]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    made = Cli(tmp_path / "store")
    put_image(made.root, "app:1", LAYERS, lines=LINES, Env=["PATH=/bin", "A=1"], Cmd=["tool"])
    return made


def lines(done: Done) -> list[str]:
    assert done.status == 0, done.err
    assert done.err == ""
    return done.out.decode().splitlines()


def document(done: Done) -> Any:
    assert done.status == 0, done.err
    return json.loads(done.out)


# --- ls


def test_ls_lists_a_directory(cli: Cli) -> None:
    assert lines(cli("ls", "app:1")) == ["bin", "etc", "new", "null", "root", "usr"]
    assert lines(cli("ls", "app:1", "/etc/")) == ["gone", "hosts", "link", "round", "up"]
    assert lines(cli("ls", "app:1", "usr/../usr/bin")) == ["extra", "more"]
    assert lines(cli("ls", "app:1~1", "/usr/bin")) == ["extra", "more", "tool"]
    assert lines(cli("ls", "app:1", "/etc/hosts")) == ["/etc/hosts"]
    assert lines(cli("ls", "app:1", "/bin")) == ["extra", "more"]  # a link is followed


def test_ls_shows_everything_of_a_file(cli: Cli) -> None:
    assert lines(cli("ls", "-l", "app:1@1", "/")) == [
        "lrw-r--r-- 0:0   7 2020-01-01T00:00:00Z bin -> usr/bin",
        "drwxr-xr-x 0:0   0 2020-01-01T00:00:00Z etc",
        "crw-rw-rw- 0:0 1,3 2020-01-01T00:00:00Z null",
        "drwxr-xr-x 0:0   0 1970-01-01T00:00:00Z usr",
    ]
    assert lines(cli("ls", "-l", "app:1@1", "/usr/bin/tool")) == [
        "-rwsr-xr-x 0:0 700 2020-01-01T00:00:00Z /usr/bin/tool"
    ]
    assert lines(cli("ls", "-l", "app:1", "/bin")) == ["lrw-r--r-- 0:0 7 2020-01-01T00:00:00Z /bin -> usr/bin"]
    assert len(lines(cli("ls", "-l", "app:1", "/bin/"))) == 2


def test_ls_recursively(cli: Cli) -> None:
    assert lines(cli("ls", "-R", "app:1", "/new")) == ["/new/a\\x1b[31m\\n", "/new/\\xff"]
    assert lines(cli("ls", "-R", "app:1@1")) == [
        "/bin", "/etc", "/etc/gone", "/etc/hosts", "/etc/link", "/etc/round", "/etc/up", "/null", "/usr", "/usr/bin",
        "/usr/bin/tool",
    ]  # fmt: skip


def test_ls_as_json(cli: Cli) -> None:
    found = {entry["path"]: entry for entry in document(cli("ls", "-R", "--format", "json", "app:1"))}
    assert found["/etc/hosts"] == {
        "path": "/etc/hosts",
        "type": "file",
        "mode": "0644",
        "uid": 0,
        "gid": 0,
        "size": 8,
        "mtime": "2020-01-01T00:00:00Z",
        "layer": 3,
    }
    assert found["/bin"]["link"] == "usr/bin"
    assert found["/null"]["device"] == [1, 3]
    assert "/new/a\x1b[31m\n" in found
    assert "/new/\udcff" in found


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["ls", "none"], "no such image"),
        (["ls", "app:1", "/etc/host"], "there is no file /etc/host\nhelp: did you mean /etc/hosts?"),
        (["ls", "app:1", "/etc/gone"], "there is no file /etc/gone (it leads to /etc/nowhere)"),
        (["ls", "app:1", "/etc/round"], "too many levels of symbolic links"),
        (["ls", "app:1@7"], "the image has 3 layers"),
        (["ls", "--platform", "linux/riscv64", "app:1"], "no variant for linux/riscv64"),
        (["cat", "app:1", "/etc"], "/etc is a directory, not a file"),
        (["cat", "app:1", "/null"], "/null is a character device, not a file"),
        (["cat", "app:1", "/usr/bin/tool"], "there is no file /usr/bin/tool"),
        (["diff", "app:1", "none"], "no such image"),
        (["layers", "app:1@9"], "the image has 3 layers"),
    ],
)
def test_what_is_not_there(cli: Cli, arguments: list[str], text: str) -> None:
    done = cli(*arguments)
    assert (done.status, done.out) == (1, b"")
    assert text in done.err
    assert done.err.startswith("error: ")


# --- cat


def test_cat_writes_bytes(cli: Cli) -> None:
    assert cli("cat", "app:1", "/bin/more").out == bytes(range(256))
    assert cli("cat", "app:1@1", "/usr/bin/tool").out == b"#!tool\n" * 100
    assert cli("cat", "app:1", "/etc/up", "etc/link", "/new/\udcff").out == b"changed\nchanged\nbytes"
    assert cli("cat", "app:1~2", "/etc/hosts").out == b"localhost\n"


def test_cat_of_something_missing_writes_nothing(cli: Cli) -> None:
    done = cli("cat", "app:1", "/etc/hosts", "/missing")
    assert (done.status, done.out) == (1, b"")


# --- layers


def test_layers_shows_what_each_did(cli: Cli) -> None:
    shown = lines(cli("layers", "app:1"))
    assert shown[0].split() == ["LAYER", "SIZE", "STORED", "ADDED", "CHANGED", "REMOVED", "WASTED", "CREATED", "BY"]
    rows = [row.split(maxsplit=7) for row in shown[1:4]]
    assert [(row[0], *row[3:7]) for row in rows] == [
        ("1", "11", "0", "0", "710B"),
        ("2", "2", "0", "0", "0B"),
        ("3", "7", "1", "1", "0B"),
    ]
    assert [row[7] for row in rows] == [
        LINES[0],
        "RUN /bin/sh -c one && two three four five six seven eight n…",
        LINES[2],
    ]
    assert shown[4].startswith("3 layers, ")
    assert "710B wasted" in shown[4]
    text = "\n".join(shown)
    assert "2kB       3         /root/.cache/pip/wheel" in text
    assert "700B      1         3           /usr/bin/tool (removed)" in text
    assert "10B       1         3           /etc/hosts\n" in text
    assert "pip install --no-cache-dir" in text
    assert "Duplicates" not in text
    whole = "\n".join(lines(cli("layers", "--no-trunc", "app:1")))
    assert "eight nine ten eleven\n" in whole


def test_layers_bounds_its_lists(cli: Cli) -> None:
    assert "Largest" not in "\n".join(lines(cli("layers", "-n", "0", "app:1")))
    found = document(cli("layers", "-n", "1", "--format", "json", "app:1"))
    assert [len(found[name]) for name in ("layers", "largest", "waste")] == [3, 1, 1]


def test_layers_as_json(cli: Cli) -> None:
    found = document(cli("layers", "--format", "json", "app:1"))
    manifest = cli.manifest("app:1")
    assert [layer["digest"] for layer in found["layers"]] == [layer["digest"] for layer in manifest["layers"]]
    assert [layer["diffID"] for layer in found["layers"]] == cli.config("app:1")["rootfs"]["diff_ids"]
    assert [layer["size"] for layer in found["layers"]] == [len(layer) for layer in LAYERS]
    assert [layer["stored"] for layer in found["layers"]] == [layer["size"] for layer in manifest["layers"]]
    assert found["size"] == sum(map(len, LAYERS))
    assert found["wasted"] == 710
    assert found["layers"][2]["createdBy"] == "RUN clean"
    assert found["layers"][2]["largest"][0] == {"path": "/root/.cache/pip/wheel", "size": 2000, "layer": 3}
    assert found["waste"][0] == {
        "path": "/usr/bin/tool",
        "size": 700,
        "copies": [{"layer": 1, "size": 700, "hiddenBy": 3, "removed": True}],
    }
    assert [(cache["manager"], cache["path"], cache["size"]) for cache in found["caches"]] == [
        ("pip", "/root/.cache/pip", 2000)
    ]


def test_layers_of_a_step_and_of_nothing(cli: Cli) -> None:
    assert document(cli("layers", "--format", "json", "app:1~1"))["wasted"] == 0
    assert lines(cli("layers", "app:1@0"))[1] == "0 layers, 0B, 0B stored; 0B wasted (0%)"


# --- diff


def test_diff_of_two_steps(cli: Cli) -> None:
    assert lines(cli("diff", "app:1~1", "app:1")) == [
        "Files: 7 added, 1 changed, 1 removed, +1.31kB",
        "C         /etc/hosts      mode 0600 → 0644, owner 1:20 → 0:0, content 10B → 8B",
        "A         /new/           2 files in it, 11B",
        "A         /root/          3 files in it, 2kB",
        "D         /usr/bin/tool   700B",
        "Configuration: not compared; no recorded build tells that of app:1~1, and an image keeps only its last",
    ]
    assert "A         /root/.cache/pip/wheel   2kB" in lines(cli("diff", "--no-trunc", "app:1~1", "app:1"))


def test_diff_of_images(cli: Cli) -> None:
    put_image(cli.root, "app:2", LAYERS[:1], Env=["PATH=/usr/bin"], Cmd=["tool", "-v"], Labels={"a": "b"})
    shown = lines(cli("diff", "app:1", "app:2"))
    assert shown[0] == "Files: 1 added, 1 changed, 9 removed, -1.57kB"
    assert shown[-5:] == [
        "Configuration:",
        "  Env.PATH: /bin → /usr/bin",
        "  Env.A: 1 → (none)",
        '  Cmd: ["tool"] → ["tool", "-v"]',
        "  Labels.a: (none) → b",
    ]


def test_the_status_tells_whether_there_is_a_difference(cli: Cli) -> None:
    assert lines(cli("diff", "--exit-code", "app:1", "app:1")) == ["no difference"]
    assert cli("diff", "--exit-code", "app:1~1", "app:1").status == 1
    assert cli("diff", "app:1~1", "app:1").status == 0
    put_image(cli.root, "app:2", LAYERS, Env=["PATH=/bin", "A=2"], Cmd=["tool"])
    done = cli("diff", "--exit-code", "app:1", "app:2")
    assert (done.status, done.out.decode()) == (1, "Configuration:\n  Env.A: 1 → 2\n")


def test_diff_as_json(cli: Cli) -> None:
    found = document(cli("diff", "--format", "json", "app:1@2", "app:1@3"))
    assert (found["before"], found["after"], found["configuration"], found["packages"]) == (
        "app:1@2",
        "app:1@3",
        None,
        [],
    )
    files = {change["path"]: change for change in found["files"]}
    assert files["/etc/hosts"]["change"] == "changed"
    assert files["/etc/hosts"]["differs"] == ["mode", "owner", "content"]
    assert files["/etc/hosts"]["before"]["digest"].startswith("sha256:")
    assert (files["/usr/bin/tool"]["change"], files["/usr/bin/tool"]["after"]) == ("removed", None)
    assert files["/new/\udcff"]["after"]["size"] == 5


# --- what was really built


@needs_sandbox
def test_a_built_image(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "store")
    directory = busybox_context(
        tmp_path / "context",
        "RUN mkdir -p /data/deep && echo one > /data/deep/file && cat /bin/busybox > /data/copy\n"
        "RUN rm -r /data && mkdir /data && echo two > /data/file\n"
        "ENV A=1\n"
        "RUN chmod 700 /bin/busybox && rm /bin/wc\n",
    )
    cli.build("-t", "built", directory)
    busybox = Path(BUSYBOX).stat().st_size
    layers = document(cli("layers", "--format", "json", "built"))["layers"]
    assert [layer["createdBy"].split()[0] for layer in layers] == ["COPY", "RUN", "RUN", "RUN"]
    assert [(layer["added"], layer["changed"], layer["removed"]) for layer in layers[1:]] == [
        (4, 0, 0),
        (1, 0, 3),
        (0, 1, 1),
    ]
    assert [layer["wasted"] for layer in layers] == [busybox, busybox + 4, 0, 0]
    shown = {entry["path"][1:] for entry in document(cli("ls", "-R", "--format", "json", "built"))}
    assert shown == set(cli.files("built"))
    assert cli("cat", "built", "/data/file").out == b"two\n"
    assert cli("cat", "built@2", "/data/deep/file").out == b"one\n"
    blobs = [cli.blob(layer["digest"]) for layer in cli.manifest("built")["layers"]]
    for step in range(len(blobs) + 1):
        at_step = document(cli("ls", "-R", "--format", "json", f"built@{step}"))
        assert {entry["path"][1:] for entry in at_step} == set(flatten(blobs[:step]))
    assert lines(cli("diff", "built~1", "built"))[1:3] == [
        "C         /bin/busybox   mode 0755 → 0700",
        "D         /bin/wc        symlink",
    ]


def test_a_variant_is_chosen_by_its_platform(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "store")
    directory = context(
        tmp_path / "context", "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\n", amd64="a", arm64="b"
    )
    cli.build("-t", "app", "--platform", "linux/amd64,linux/arm64", directory)
    assert lines(cli("ls", "--platform", "linux/arm64", "app")) == ["arm64"]
    assert cli("cat", "--platform", "linux/amd64", "app", "amd64").out == b"a"
    assert "/arm64" in "\n".join(lines(cli("layers", "--platform", "linux/arm64", "app")))
