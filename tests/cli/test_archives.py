"""save, load, import and export, and other people's programs as their clients."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import zstandard

from builder.oci import reference as references
from builder.store.store import Store
from tests.cli.test_remote_contexts import Server, server
from tests.support.archives import archive
from tests.support.builds import Cli, context, flatten

__all__ = ["server"]  # a fixture

DOCKERFILE = 'FROM scratch\nCOPY a /dir/a\nCOPY b /b\nLABEL x=y\nCMD ["/b"]\n'


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    made = Cli(tmp_path / "store")
    made.build(
        "-t", "app:1", "-t", "quay.io/team/app:2", context(tmp_path / "context", DOCKERFILE, a="A", b="B" * 9000)
    )
    return made


@pytest.fixture
def other(tmp_path: Path) -> Cli:
    (tmp_path / "elsewhere").mkdir()
    return Cli(tmp_path / "elsewhere/store")


def files(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar if one.isreg()}  # type: ignore[union-attr]


def blobs(cli: Cli) -> set[str]:
    return {path.name for path in (cli.root / "blobs/sha256").iterdir()}


def digests(cli: Cli) -> dict[str, str]:
    return {name: entry["digest"] for name, entry in cli.entries().items()}


def program(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"needs {name} (Debian package of that name)")


def run(*arguments: str, cwd: Path | None = None) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- our own round trips


@pytest.mark.parametrize("form", ["docker-archive", "oci"])
@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress]
)
def test_a_round_trip_keeps_everything(cli: Cli, other: Cli, form: str, compress: Callable[[bytes], bytes]) -> None:
    saved = cli("save", "--format", form, "app:1", "quay.io/team/app:2")
    assert saved.status == 0, saved.err
    loaded = other("load", stdin=compress(saved.out))
    assert loaded.out.decode().splitlines() == ["Loaded image: app:1", "Loaded image: quay.io/team/app:2"]
    assert other.entries() == cli.entries() or {name: entry["digest"] for name, entry in other.entries().items()} == {
        name: entry["digest"] for name, entry in cli.entries().items()
    }
    assert blobs(other) == blobs(cli)
    assert other("save", "--format", form, "app:1", "quay.io/team/app:2").out == saved.out


def test_several_platforms_keep_their_index(cli: Cli, other: Cli, tmp_path: Path) -> None:
    cli.build("-t", "multi", "--platform", "linux/amd64,linux/arm64", tmp_path / "context")
    assert cli("save", "-o", tmp_path / "multi.tar", "multi", "app:1").status == 0
    assert other("image", "load", "-q", "-i", tmp_path / "multi.tar").status == 0
    index = cli.entries()["docker.io/library/multi:latest"]["digest"]
    assert other.entries()["docker.io/library/multi:latest"]["digest"] == index


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
def test_dockers_readers_get_one_image_of_several_platforms(cli: Cli, tmp_path: Path) -> None:
    cli.build("-t", "multi", "--platform", "linux/s390x,linux/amd64,linux/arm64", tmp_path / "context")
    (tmp_path / "multi.tar").write_bytes(cli("save", "multi").out)
    shown = subprocess.run(["skopeo", "inspect", f"docker-archive:{tmp_path}/multi.tar"], capture_output=True)
    assert shown.returncode == 0, shown.stderr
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    assert json.loads(shown.stdout)["Architecture"] == machine


@pytest.mark.parametrize("options", ["--platform linux/amd64,linux/arm64", "--platform linux/amd64 --platform arm64"])
@pytest.mark.parametrize("command", ["save", "load"])
def test_a_part_of_the_platforms_is_refused(cli: Cli, command: str, options: str) -> None:
    done = cli(command, *options.split(), *(["app"] if command == "save" else []))
    assert (done.status, done.out) == (2, b"")
    assert "--platform takes one platform here" in done.err


def test_one_platform_of_several(cli: Cli, other: Cli, tmp_path: Path) -> None:
    cli.build("-t", "multi", "--platform", "linux/amd64,linux/arm64", tmp_path / "context")
    saved = cli("save", "multi")
    loaded = other("load", "--platform", "linux/arm64", stdin=saved.out)
    assert loaded.out == b"Loaded image: multi:latest\n"
    assert other.config("multi")["architecture"] == "arm64"
    refused = other("load", "--platform", "linux/s390x", stdin=saved.out)
    assert refused.status == 1
    assert "no image for linux/s390x" in refused.err
    single = cli("save", "--platform", "linux/arm64", "multi").out
    assert len(json.loads(files(single)["manifest.json"])) == 1


def test_a_repository_stands_for_all_of_its_tags(cli: Cli) -> None:
    cli("tag", "app:1", "app:second")
    saved = files(cli("save", "app").out)
    assert json.loads(saved["manifest.json"])[0]["RepoTags"] == ["app:1", "app:second"]


def test_names_with_digests_are_no_tags(cli: Cli, other: Cli, tmp_path: Path) -> None:
    """As an image has them that was pulled by its digest."""
    cli.build("-t", "multi", "--platform", "linux/amd64,linux/arm64", tmp_path / "context")
    index = cli.entries()["docker.io/library/multi:latest"]["digest"]
    with closing(Store(str(cli.root))) as store:
        descriptor = store.images.find("multi").descriptor
        store.images.untag(references.parse("multi"))
        store.images.tag(descriptor, [references.parse(f"multi@{index}")])
    saved = cli("save", "multi").out
    assert json.loads(files(saved)["manifest.json"])[0]["RepoTags"] is None
    assert other("load", stdin=saved).out.decode() == f"Loaded image: multi@{index}\n"
    other("rmi", f"multi@{index}")
    part = other("load", "--platform", "linux/arm64", stdin=saved)
    assert part.out.startswith(b"Loaded image ID: ")
    assert part.err.startswith(f"WARNING: multi@{index}: passed over, since the image that was loaded is sha256:")
    assert b"io.containerd.image.name" not in cli("save", "--platform", "linux/arm64", "multi").out


def test_an_id_is_saved_without_names(cli: Cli, other: Cli) -> None:
    identity = cli.image_id("app:1")
    loaded = other("load", stdin=cli("save", identity[7:19]).out)
    assert loaded.out.decode() == f"Loaded image ID: {identity}\n"
    assert other("images", "-q", "-f", "dangling=true").out.decode().strip() == identity[7:19]


def test_a_loaded_image_is_a_base(cli: Cli, other: Cli, tmp_path: Path) -> None:
    other("load", stdin=cli("save", "app:1").out)
    other.build("-t", "child", context(tmp_path / "child", "FROM app:1\nCOPY c /c\n", c="C"))
    assert set(other.files("child")) == {"dir", "dir/a", "b", "c"}
    assert other.manifest("child")["layers"][:2] == cli.manifest("app:1")["layers"]


def test_save_refuses(cli: Cli, tmp_path: Path) -> None:
    assert cli("save", "missing").status == 1
    assert cli("save", "-o", tmp_path / "no/such/file.tar", "app:1").status == 1
    failed = cli("save", "-o", tmp_path / "x.tar", "app:1", "missing")
    assert failed.status == 1
    assert not list(tmp_path.glob("x.tar*"))


def test_loading_again_changes_nothing(cli: Cli) -> None:
    before = blobs(cli), digests(cli)
    assert cli("load", stdin=cli("save", "app:1", "quay.io/team/app:2").out).status == 0
    assert blobs(cli) == before[0]
    assert digests(cli) == before[1]


# --- import and export


def rootfs() -> bytes:
    return archive(
        ("etc", {}),
        ("etc/name", {"data": b"value", "owner": (7, 8), "mode": 0o640}),
        ("link", {"type": b"2", "link": "etc", "mode": 0o777}),
    )


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress])
def test_import_and_export_of_a_file_system(other: Cli, tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    (tmp_path / "rootfs.tar").write_bytes(compress(rootfs()))
    done = other(
        "import", "-c", 'CMD ["/bin/sh"]', "-c", "ENV A=1 B='x y'", "-c", "LABEL l=m", "-c", "EXPOSE 80", "-m", "mine",
        "--platform", "linux/arm64", tmp_path / "rootfs.tar", "base:1",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert done.out.decode().strip() == other.image_id("base:1")
    config = other.config("base:1")
    assert config["config"]["Cmd"] == ["/bin/sh"]
    assert config["config"]["Env"] == ["A=1", "B=x y"]
    assert config["config"]["Labels"] == {"l": "m"}
    assert config["architecture"] == "arm64"
    assert config["history"][0]["comment"] == "mine"
    exported = other("export", "base:1")
    assert exported.status == 0, exported.err
    found = flatten([exported.out])
    assert found == other.files("base:1")
    assert (found["etc/name"].content, found["etc/name"].uid, found["etc/name"].mode) == (b"value", 7, 0o640)


def test_import_from_standard_input_without_a_name(other: Cli) -> None:
    done = other("import", "-", stdin=rootfs())
    assert done.status == 0
    assert list(other.entries()) != []
    assert other("history", "--format", "{{.Comment}}", done.out.decode().strip()).out == b"Imported from -\n"


def test_import_from_a_url(other: Cli, server: Server) -> None:
    (server.root / "rootfs.tar").write_bytes(rootfs())
    done = other("import", f"{server.url}/rootfs.tar".replace("://", "://user:p@ss@"), "fetched")
    assert done.status == 0, done.err
    assert "etc/name" in other.files("fetched")
    (history,) = other.config("fetched")["history"]
    assert history["comment"] == f"Imported from {server.url}/rootfs.tar".replace("://", "://xxxxx@")


def test_import_tells_no_path_of_this_machine(other: Cli, tmp_path: Path) -> None:
    """As docker's client, which sends the daemon the file and not its name."""
    (tmp_path / "rootfs.tar").write_bytes(rootfs())
    assert other("import", tmp_path / "rootfs.tar", "base").status == 0
    assert other.config("base")["history"][0]["comment"] == "Imported from -"
    (tmp_path / "cut.tar").write_bytes(rootfs()[:600])
    assert f"error: {tmp_path}/cut.tar: " in other("import", tmp_path / "cut.tar").err


def test_import_shows_no_credentials(other: Cli, server: Server) -> None:
    (server.root / "cut.tar.gz").write_bytes(gzip.compress(rootfs())[:-20])
    done = other("import", f"{server.url}/cut.tar.gz".replace("://", "://user:hunter2@"))
    assert done.status == 1
    shown = f"{server.url}/cut.tar.gz".replace("://", "://xxxxx@")
    assert done.err == f"error: {shown}: the gzip stream is truncated\n"


@pytest.mark.parametrize(
    "changes",
    [
        ("CMD ls\nENV A=1 B=$A\n# a comment",),
        ("", "CMD ls", "ENV A=1 \\", "B=$A", ""),
        ("# escape=`\nCMD ls", "ENV A=1 `\n  B=$A"),
    ],
)
def test_import_takes_changes_as_a_dockerfile(other: Cli, changes: tuple[str, ...]) -> None:
    """As docker, which joins them with line ends."""
    done = other("import", *(f"--change={change}" for change in changes), "-", "base", stdin=rootfs())
    assert done.status == 0, done.err
    config = other.config("base")["config"]
    assert config["Env"] == ["A=1", "B="]
    assert config["Cmd"] == ["/bin/sh", "-c", "ls"]


@pytest.mark.parametrize("changes", [("",), (" ", "# nothing")])
def test_import_takes_no_changes(other: Cli, changes: tuple[str, ...]) -> None:
    done = other("import", *(f"--change={change}" for change in changes), "-", "base", stdin=rootfs())
    assert done.status == 0, done.err
    assert set(other.config("base").get("config") or {}) <= {"Env"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("CMD ls", "NONSENSE a"), "error: --change 'NONSENSE a': unknown instruction: NONSENSE\n"),
        (("CMD ls\nFROM scratch",), "error: --change 'FROM scratch': FROM cannot be a change\n"),
        (("CMD ls\nRUN a", "CMD a"), "error: --change 'RUN a': RUN cannot be a change\n"),
        (("CMD ls", "ENV A=1 \\", "B"), "error: --change 'ENV A=1 \\\\': "),
        (("EXPOSE x \\\n 80",), "error: --change 'EXPOSE x  80': "),
        (("CMD ls", "EXPOSE x"), "error: --change 'EXPOSE x': "),
    ],
)
def test_import_says_which_change_is_wrong(other: Cli, changes: tuple[str, ...], message: str) -> None:
    done = other("import", *(f"--change={change}" for change in changes), "-", "base", stdin=rootfs())
    assert done.status == 1
    assert done.err.startswith(message)
    assert "ONBUILD trigger" not in done.err


def test_import_at_a_given_time(other: Cli) -> None:
    assert other("import", "-", "base", stdin=rootfs(), environ={"SOURCE_DATE_EPOCH": "1000000000"}).status == 0
    assert other.config("base")["created"].startswith("2001-09-09T01:46:40")
    for wrong in ("99999999999999", "²", "abc"):
        done = other("import", "-", "wrong", stdin=rootfs(), environ={"SOURCE_DATE_EPOCH": wrong})
        assert done.status == 2
        assert done.err.startswith("error: SOURCE_DATE_EPOCH=")


@pytest.mark.parametrize(
    ("arguments", "data", "cause"),
    [
        (["-c", "RUN true", "-"], None, "RUN cannot be a change"),
        (["-c", "COPY a b", "-"], None, "COPY cannot be a change"),
        (["-c", "NONSENSE", "-"], None, "NONSENSE"),
        (["-"], b"this is no archive", "truncated"),
        (["-"], b"x" * 2048, "no tar archive"),
        (["missing.tar"], None, "cannot be read"),
        (["-", "Not:A:Name"], None, "reference"),
    ],
)
def test_import_refuses_and_leaves_nothing(other: Cli, arguments: list[str], data: bytes | None, cause: str) -> None:
    done = other("import", *arguments, stdin=rootfs() if data is None else data)
    assert done.status == 1, done.err
    assert cause in done.err
    assert "internal error" not in done.err
    assert other("images", "-q").out == b""
    assert not (other.root / "blobs/sha256").exists() or not blobs(other)


# --- other people's programs


@program("skopeo")
def test_skopeo_reads_the_store_and_the_archives(cli: Cli, tmp_path: Path) -> None:
    digest = cli.entries()["docker.io/library/app:1"]["digest"]
    cli("save", "-o", tmp_path / "d.tar", "app:1")
    cli("save", "--format", "oci", "-o", tmp_path / "o.tar", "app:1")
    for source in (
        f"oci:{cli.root}:docker.io/library/app:1",
        f"oci-archive:{tmp_path}/o.tar",
        f"oci-archive:{tmp_path}/d.tar",
    ):
        assert json.loads(run("skopeo", "inspect", source))["Digest"] == digest
    found = json.loads(run("skopeo", "inspect", "--config", f"docker-archive:{tmp_path}/d.tar:app:1"))
    assert found["config"]["Labels"] == {"x": "y"}


@program("skopeo")
@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_a_round_trip_through_skopeo_keeps_every_digest(cli: Cli, other: Cli, tmp_path: Path, kind: str) -> None:
    cli("save", "-o", tmp_path / "ours.tar", "app:1")
    run("skopeo", "copy", "-q", f"oci-archive:{tmp_path}/ours.tar", f"{kind}:{tmp_path}/theirs.tar:app:1")
    loaded = other("load", "-i", tmp_path / "theirs.tar")
    assert loaded.out == b"Loaded image: app:1\n", loaded.err
    assert other.image_id("app:1") == cli.image_id("app:1")
    # Docker's older form has no manifest and no compressed layers: ours are made again, byte for byte
    name = "docker.io/library/app:1"
    assert other.entries()[name]["digest"] == cli.entries()[name]["digest"]


@program("umoci")
def test_umoci_unpacks_from_the_store(cli: Cli, tmp_path: Path) -> None:
    cli("tag", "app:1", "plain")
    run("skopeo", "copy", "-q", f"oci:{cli.root}:docker.io/library/app:1", f"oci:{tmp_path}/layout:app")
    run("umoci", "unpack", "--rootless", "--image", f"{tmp_path}/layout:app", f"{tmp_path}/bundle")
    assert (tmp_path / "bundle/rootfs/dir/a").read_text() == "A"


@program("podman")
@pytest.mark.slow
def test_a_round_trip_through_podman_keeps_the_image_id(
    cli: Cli, other: Cli, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    runroot = tempfile.mkdtemp(prefix="run-")  # podman wants a path of at most 50 characters
    request.addfinalizer(lambda: shutil.rmtree(runroot, ignore_errors=True))
    podman = ["podman", "--root", f"{tmp_path}/podman", "--runroot", runroot, "--storage-driver", "vfs"]
    probe = subprocess.run([*podman, "info"], capture_output=True, text=True, timeout=60)
    if probe.returncode:
        pytest.skip(f"podman does not work here: {probe.stderr.strip()}")
    for form, theirs in (("docker-archive", "docker-archive"), ("oci", "oci-archive")):
        cli("save", "--format", form, "-o", tmp_path / "ours.tar", "app:1")
        run(*podman, "load", "-q", "-i", f"{tmp_path}/ours.tar")
        found = json.loads(run(*podman, "image", "inspect", "docker.io/library/app:1"))
        assert found[0]["Id"] == cli.image_id("app:1")[7:]
        (tmp_path / "theirs.tar").unlink(missing_ok=True)
        run(*podman, "save", "-q", "--format", theirs, "-o", f"{tmp_path}/theirs.tar", "docker.io/library/app:1")
        loaded = other("load", "-i", tmp_path / "theirs.tar")
        assert loaded.status == 0, loaded.err
        assert cli.image_id("app:1") in {
            json.loads(other.blob(entry["digest"]))["config"]["digest"] for entry in other.entries().values()
        }
        other("rmi", "-f", "app:1")
        run(*podman, "rmi", "-f", "docker.io/library/app:1")
