"""Where a build's result goes: the store, archives, directories, standard output, and files about it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.archives import archive
from tests.support.builds import Cli, context, flatten, tree_of
from tests.support.terminal import Program

DOCKERFILE = """\
FROM scratch
LABEL made=here
COPY --chmod=0755 a /dir/a
COPY b /dir/b
COPY --link c /c
CMD ["/a"]
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = context(tmp_path / "context", DOCKERFILE, a="A", b="B", c="C")
    for name in "abc":
        (made / name).chmod(0o644)
    return made


@pytest.mark.parametrize("options", [["--platform", "linux/amd64,linux/arm64"], ["--provenance=true"], []])
def test_the_id_of_a_build_names_its_image(cli: Cli, directory: Path, tmp_path: Path, options: list[str]) -> None:
    done = cli("build", "-q", *options, "--iidfile", tmp_path / "id", "--metadata-file", tmp_path / "about", directory)
    identifier = (tmp_path / "id").read_text()
    assert done.out.decode() == f"{identifier}\n"
    assert cli("images", "-q", "--no-trunc").out.decode().split() == [identifier]
    assert cli("inspect", identifier).status == 0
    about = json.loads((tmp_path / "about").read_text())
    assert about.get("containerimage.config.digest") == (None if options else identifier)
    assert cli("rmi", identifier).status == 0


def test_flags_with_a_truth_value(cli: Cli, directory: Path) -> None:
    done = cli("build", "--no-cache=true", "--pull=false", "--load=1", "--quiet=0", "-t", "app", directory)
    assert done.status == 0, done.err
    assert "image sha256:" in done.err


def test_an_archive_is_not_written_to_a_terminal(cli: Cli, directory: Path) -> None:
    program = Program([sys.executable, "-m", "builder", *cli.arguments("build", "-o", "-", directory)], cli.environ)
    try:
        assert program.status() == 2
        assert b"error: an archive is not written to a terminal" in program.output
    finally:
        program.close()


FILES = {
    "c": ("file", 0o644, b"C"),
    "dir": ("directory", 0o755, None),
    "dir/a": ("file", 0o755, b"A"),
    "dir/b": ("file", 0o644, b"B"),
}


def members(data: bytes) -> dict[str, bytes]:
    """The regular files of a tar archive."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                found[member.name] = file.read()
    return found


def unpacked(data: bytes) -> dict[str, tuple[str, int, bytes | None]]:
    """A flat tar's entries in the form of `tree_of`."""
    return {
        path: ("directory" if entry.content is None else "file", entry.mode, entry.content)
        for path, entry in flatten([data]).items()
    }


def check_archive(data: bytes, cli: Cli, names: list[str], *, docker: bool) -> None:
    """An OCI archive with this image; every blob is what its name says."""
    found = members(data)
    assert json.loads(found["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads(found["index.json"])
    assert [e["annotations"]["io.containerd.image.name"] for e in index["manifests"]] == names
    manifest = json.loads(found["blobs/" + index["manifests"][0]["digest"].replace(":", "/")])
    for descriptor in (manifest["config"], *manifest["layers"]):
        assert len(found["blobs/" + descriptor["digest"].replace(":", "/")]) == descriptor["size"]
    layers = [found["blobs/" + layer["digest"].replace(":", "/")] for layer in manifest["layers"]]
    assert flatten(layers)["dir/a"].content == b"A"
    if docker:
        (legacy,) = json.loads(found["manifest.json"])
        assert legacy["RepoTags"] == [name.rpartition("/")[2] for name in names]
        assert [found[path] for path in legacy["Layers"]] == layers
        assert json.loads(found[legacy["Config"]])["config"]["Labels"] == {"made": "here"}
    else:
        assert "manifest.json" not in found


def test_the_store(cli: Cli, directory: Path) -> None:
    done = cli.build("-t", "one:1", "-t", "example.com/two", "--label", "a=b", "--label", "made=there", directory)
    assert sorted(cli.entries()) == ["docker.io/library/one:1", "example.com/two:latest"]
    assert len({entry["digest"] for entry in cli.entries().values()}) == 1
    assert cli.config("one:1")["config"] == {
        "ArgsEscaped": True,
        "Cmd": ["/a"],
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Labels": {"a": "b", "made": "there"},
        "WorkingDir": "/",
    }
    assert "one:1" in done.err
    assert done.out == b""


def test_without_a_name_the_image_is_dangling(cli: Cli, directory: Path) -> None:
    cli.build(directory)
    ((name, entry),) = cli.entries().items()
    assert name == entry["digest"]
    cli.build("-t", "x", directory)
    assert list(cli.entries()) == ["docker.io/library/x:latest"]


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_archives(cli: Cli, directory: Path, tmp_path: Path, kind: str) -> None:
    names = ["docker.io/library/x:1", "docker.io/library/y:latest"]
    tags = ["-t", "x:1", "-t", "y"]
    cli.build(*tags, "-o", f"type={kind},dest={tmp_path}/file", directory)
    data = (tmp_path / "file").read_bytes()
    check_archive(data, cli, names, docker=kind == "docker")
    assert cli.entries() == {}  # an output replaces the store
    assert cli.build(*tags, "-o", f"type={kind},dest=-", directory).out == data
    if kind == "oci":
        assert cli.build(*tags, "-o", "type=oci", directory).out == data
    cli.build("-o", f"type={kind},dest={tmp_path}/named,name=z:3", directory)
    check_archive((tmp_path / "named").read_bytes(), cli, ["docker.io/library/z:3"], docker=kind == "docker")


def test_an_image_for_docker_without_a_file_goes_to_the_store(cli: Cli, directory: Path) -> None:
    """As buildx loads it."""
    assert cli.build("-t", "x", "-o", "type=docker", directory).out == b""
    assert list(cli.entries()) == ["docker.io/library/x:latest"]


def test_a_layout_directory(cli: Cli, directory: Path, tmp_path: Path) -> None:
    for tag in ("x:1", "x:2"):
        cli.build("-t", tag, "-o", f"type=oci,tar=false,dest={tmp_path}/layout", directory)
    other = Cli(tmp_path / "layout")
    assert sorted(other.entries()) == ["docker.io/library/x:1", "docker.io/library/x:2"]
    assert other.files("x:1")["dir/b"].content == b"B"
    assert {path.name for path in (tmp_path / "layout").iterdir()} == {"blobs", "index.json", "oci-layout"}


@pytest.mark.parametrize("output", ["type=local,dest={}", "{}"])
def test_a_directory(cli: Cli, directory: Path, tmp_path: Path, output: str) -> None:
    target = tmp_path / "target"
    (target / "dir").mkdir(parents=True)
    (target / "dir/kept").write_text("kept")
    (target / "dir/b").write_text("old")
    cli.build("-o", output.format(target), directory)
    (target / "dir/kept").unlink()
    assert tree_of(target) == FILES


def test_a_tar_of_files(cli: Cli, directory: Path, tmp_path: Path) -> None:
    cli.build("-o", f"type=tar,dest={tmp_path}/files.tar", directory)
    data = (tmp_path / "files.tar").read_bytes()
    assert unpacked(data) == FILES
    for output in ("type=tar", "type=tar,dest=-", "-"):
        assert cli.build("-o", output, directory).out == data


def by_platform(tmp_path: Path, dockerfile: str) -> Path:
    (tmp_path / "t.tar").write_bytes(
        archive(("d/a", {"data": b"x"}), ("d/b", {"type": tarfile.LNKTYPE, "link": "d/a"}))
    )
    made = context(tmp_path / "context", f"FROM scratch\nARG TARGETARCH\n{dockerfile}\n", arm64="", amd64="")
    shutil.move(tmp_path / "t.tar", made)
    return made


def files_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("split", ["", ",platform-split=true"])
@pytest.mark.parametrize("platforms", [["arm64"], ["amd64", "arm64"]], ids=len)
def test_files_by_platform(cli: Cli, tmp_path: Path, platforms: list[str], split: str) -> None:
    """As with BuildKit a directory for each of several; of one in a directory alone, and only if it is asked for."""
    made = by_platform(tmp_path, "ADD t.tar /\nCOPY $TARGETARCH /d/")
    outputs = ("-o", f"type=local,dest={tmp_path}/out{split}", "-o", f"type=tar,dest={tmp_path}/files.tar{split}")
    cli.build(*(f"--platform=linux/{platform}" for platform in platforms), "--sbom=true", *outputs, made)
    expected = {f"linux_{one}/{name}" for one in platforms for name in ("d/a", "d/b", f"d/{one}", "sbom.spdx.json")}
    alone = {name.partition("/")[2] for name in expected}
    several = len(platforms) > 1
    assert files_below(tmp_path / "out") == (expected if several or split else alone)
    with tarfile.open(tmp_path / "files.tar") as files:
        files.extractall(tmp_path / "unpacked", filter="data")
    assert files_below(tmp_path / "unpacked") == (expected if several else alone)
    assert (tmp_path / f"unpacked/{'linux_arm64/' if several else ''}d/b").stat().st_nlink == 2


def test_files_of_several_platforms_in_one_directory(cli: Cli, tmp_path: Path) -> None:
    made = by_platform(tmp_path, "COPY $TARGETARCH /d/")
    output = (
        "--platform=linux/amd64,linux/arm64",
        "--sbom=true",
        "-o",
        f"type=local,dest={tmp_path}/out,platform-split=0",
    )
    cli.build(*output, made)
    assert files_below(tmp_path / "out") == {
        "d/amd64", "d/arm64", "sbom.spdx.linux_amd64.json", "sbom.spdx.linux_arm64.json",
    }  # fmt: skip
    shutil.rmtree(tmp_path / "out")
    (made / "Dockerfile").write_text("FROM scratch\nADD t.tar /\n")
    done = cli("build", *output, made)
    assert done.status == 1
    assert "/d/a: the images for linux_amd64 and linux_arm64 both have it" in done.err
    assert not (tmp_path / "out").exists()


def crowd(directory: Path, elsewhere: Path) -> None:
    """Files, directories and links in a directory, beside those that an image has."""
    for name in ("dir/old/deep/x", "c/was/a/directory", "old", "linux_s390x/x"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("old")
    (elsewhere / "kept").mkdir(parents=True)
    (elsewhere / "kept/file").write_text("kept")
    (directory / "link").symlink_to(elsewhere)
    (directory / "dir/b").symlink_to(elsewhere / "kept/file")


def test_a_directory_that_mirrors_the_image(
    cli: Cli, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    crowd(tmp_path / "out", tmp_path / "elsewhere")
    cli.build("-o", "type=local,dest=out,mode=delete", directory)
    assert tree_of(tmp_path / "out") == FILES
    assert (tmp_path / "elsewhere/kept/file").read_text() == "kept"
    cli.build("-o", "type=local,dest=new,mode=delete", directory)
    assert tree_of(tmp_path / "new") == FILES


def test_a_directory_that_mirrors_the_images_of_several_platforms(
    cli: Cli, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    crowd(tmp_path / "out", tmp_path / "elsewhere")
    crowd(tmp_path / "out/linux_arm64", tmp_path / "elsewhere2")
    options = ("--platform=linux/amd64,linux/arm64", "--sbom=true", "-o", "type=local,dest=out,mode=delete")
    cli.build(*options, directory)
    names = {*(name for name, (kind, _, _) in FILES.items() if kind == "file"), "sbom.spdx.json"}
    assert files_below(tmp_path / "out") == {f"linux_{one}/{name}" for one in ("amd64", "arm64") for name in names}


def test_only_what_is_below_the_current_directory_is_emptied_unasked(
    cli: Cli, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    crowd(tmp_path / "out", tmp_path / "elsewhere")
    (tmp_path / "here/link").symlink_to(tmp_path / "out")
    for target in (".", "..", "../out", str(tmp_path / "out"), "link"):
        done = cli("build", "-o", f"type=local,dest={target},mode=delete", directory)
        assert (done.status, "add --allow=buildx.local.delete" in done.err) == (2, True), target
    assert (tmp_path / "out/old").exists()
    cli.build("--allow=buildx.local.delete", "-o", "type=local,dest=link,mode=delete", directory)
    assert tree_of(tmp_path / "out") == FILES


def test_only_the_cache(cli: Cli, directory: Path, tmp_path: Path) -> None:
    """As with buildx no image is made, none is named, and the files about it tell of none."""
    files = ("--iidfile", tmp_path / "id", "--metadata-file", tmp_path / "about")
    done = cli.build("-t", "x", "-o", "type=cacheonly", *files, directory)
    assert (done.out, cli.entries()) == (b"", {})
    assert "exporting" not in done.err
    assert (tmp_path / "id").read_text() == ""
    assert "containerimage" not in (tmp_path / "about").read_text()
    assert cli.build("-t", "x", directory).cached() == 3
    assert list(cli.entries()) == ["docker.io/library/x:latest"]


def test_several_outputs(cli: Cli, directory: Path, tmp_path: Path) -> None:
    outputs = [f"type=oci,dest={tmp_path}/a", f"type=docker,dest={tmp_path}/b", f"{tmp_path}/c", "type=image"]
    arguments = [word for output in outputs for word in ("-o", output)]
    cli.build("-t", "x", *arguments, directory)
    check_archive((tmp_path / "a").read_bytes(), cli, ["docker.io/library/x:latest"], docker=False)
    check_archive((tmp_path / "b").read_bytes(), cli, ["docker.io/library/x:latest"], docker=True)
    assert tree_of(tmp_path / "c") == FILES
    assert cli.files("x")["c"].content == b"C"


def test_load_keeps_the_store_among_the_outputs(cli: Cli, directory: Path, tmp_path: Path) -> None:
    cli.build("-t", "x", "--load", "-o", f"type=tar,dest={tmp_path}/t", directory)
    assert list(cli.entries()) == ["docker.io/library/x:latest"]


def test_standard_output_of_a_real_process(cli: Cli, directory: Path, tmp_path: Path) -> None:
    """Only the archive: messages go to standard error, and what --quiet would print is left out."""
    done = cli.spawn("build", "-q", "-o", "-", directory)
    assert done.status == 0, done.err
    assert unpacked(done.out) == FILES
    with (tmp_path / "closed").open("wb") as file:
        process = cli.start("build", "-o", "-", directory, stdout=file)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert unpacked((tmp_path / "closed").read_bytes()) == FILES


def test_a_reader_that_goes_away(cli: Cli, directory: Path) -> None:
    (directory / "big").write_bytes(bytes(1 << 20))
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY big /\n")
    process = cli.start("build", "-o", "-", directory)
    assert process.stdout is not None
    process.stdout.read(100)
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60) == 1
    assert "Traceback" not in err
    assert "internal error" not in err


# --- files about the result


def test_quiet_and_result_files(cli: Cli, directory: Path, tmp_path: Path) -> None:
    arguments = ["--iidfile", f"{tmp_path}/iid", "--metadata-file", f"{tmp_path}/meta.json", "-t", "x"]
    done = cli("build", "-q", *arguments, directory)
    assert done.status == 0
    identifier = cli.image_id("x")
    assert done.out.decode() == f"{identifier}\n"
    assert done.err == ""
    assert (tmp_path / "iid").read_text() == identifier
    metadata = json.loads((tmp_path / "meta.json").read_text())
    entry = cli.entries()["docker.io/library/x:latest"]
    assert metadata["containerimage.config.digest"] == identifier
    assert metadata["containerimage.digest"] == entry["digest"]
    assert metadata["containerimage.descriptor"]["digest"] == entry["digest"]
    assert metadata["containerimage.descriptor"]["size"] == entry["size"]
    assert metadata["image.name"] in ("x", "x:latest", "docker.io/library/x:latest")


@pytest.mark.parametrize("output", ["type=image", "type=oci,dest=DIRECTORY/x.tar"])
def test_the_names_that_an_output_states_are_told(cli: Cli, directory: Path, tmp_path: Path, output: str) -> None:
    output = f'{output.replace("DIRECTORY", str(tmp_path))},"name=foo:1,foo:2"'
    done = cli("build", "--metadata-file", f"{tmp_path}/meta.json", "-t", "x", "-o", output, directory)
    assert done.err.splitlines()[-1].endswith(" foo:1, foo:2, x:latest")
    assert json.loads((tmp_path / "meta.json").read_text())["image.name"] == "foo:1,foo:2,x:latest"
    if "type=image" in output:
        assert sorted(cli.entries()) == [f"docker.io/library/{name}" for name in ("foo:1", "foo:2", "x:latest")]
    else:
        with tarfile.open(tmp_path / "x.tar") as archive:
            file = archive.extractfile("index.json")
            assert file is not None
            entries = json.load(file)
        assert len(entries["manifests"]) == 3
    (directory / "a").unlink()
    assert cli("build", "-o", output, directory).status == 1
    assert cli("builds", "--format", "{{.Name}} {{.Status}}").out.decode().splitlines() == [
        "foo:1 foo:2 failed",
        "foo:1 foo:2 x done",
    ]


def test_a_wrong_name_of_an_output_is_refused_before_anything_is_built(cli: Cli, directory: Path) -> None:
    done = cli("build", "-o", "type=image,name=a/B", directory)
    assert done.status != 0
    assert done.err.startswith("error: invalid image reference 'a/B'")
    assert cli("builds", "-q").out == b""


IMPOSSIBLE = {
    "--push": "an image without a name cannot be pushed",
    "-o type=registry": "an image without a name cannot be pushed",
    "-o type=image,rewrite-timestamp=true": "rewrite-timestamp needs a time",
    "-o type=image,compression=zstd,oci-mediatypes=false": "Docker's media types have no zstd layers",
    "-o type=oci -o type=tar": "several outputs go to standard output",
}


@pytest.mark.parametrize("options", IMPOSSIBLE)
@pytest.mark.parametrize("command", ["build", "plan"])
def test_an_output_that_no_build_can_write_is_refused_before_the_first_step(
    cli: Cli, tmp_path: Path, options: str, command: str
) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nCOPY none /\n")  # the step itself would fail
    done = cli(command, *options.split(), directory)
    assert (done.status, done.out) == (2, b"")
    assert IMPOSSIBLE[options] in done.err


@pytest.mark.parametrize(
    "option", ["--annotation=manifest[linux/s390x]:k=v", "--output=type=image,annotation[linux/s390x].k=v"]
)
@pytest.mark.parametrize("command", ["build", "plan"])
def test_an_annotation_for_a_platform_that_is_not_built_is_refused(
    cli: Cli, directory: Path, option: str, command: str
) -> None:
    done = cli(command, "-t", "x", "--platform=linux/amd64,linux/arm64", option, directory)
    assert (done.status, done.out) == (2, b"")
    assert "the annotation 'k' is for linux/s390x, which is not built" in done.err
    assert cli("build", "-t", "x", "--platform=linux/amd64,linux/s390x", option, directory).status == 0


@pytest.mark.parametrize("option", ["--tag={}", "--output=type=image,name={}"])
def test_a_name_with_a_digest_is_refused(cli: Cli, directory: Path, option: str) -> None:
    done = cli("build", option.format(f"x@sha256:{'0' * 64}"), directory)
    assert done.status == 2
    assert "a new name cannot have a digest" in done.err
    assert cli("builds", "-q").out == b""


def test_a_failed_build_leaves_no_old_result_files(cli: Cli, directory: Path, tmp_path: Path) -> None:
    arguments = ["--iidfile", f"{tmp_path}/iid", "--metadata-file", f"{tmp_path}/meta.json"]
    cli.build(*arguments, directory)
    (directory / "a").unlink()
    assert cli("build", *arguments, directory).status == 1
    assert not (tmp_path / "iid").exists()
    assert not (tmp_path / "meta.json").exists()


RESULT_FILES = ["--iidfile", "--metadata-file", "--report", "--trace"]


@pytest.mark.parametrize("wrong", ["--squash=foo", "--output=type=floppy"])
@pytest.mark.parametrize(
    "options", [*([option] for option in RESULT_FILES), ["--call=targets", "--metadata-file"]], ids=str
)
def test_wrong_usage_leaves_old_result_files(
    cli: Cli, directory: Path, tmp_path: Path, options: list[str], wrong: str
) -> None:
    (tmp_path / "file").write_text("old")
    assert cli("build", *options, tmp_path / "file", wrong, directory).status == 2
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("option", ["--report", "--trace"])
def test_standard_output_is_no_file_of_that_name(
    cli: Cli, directory: Path, tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").write_text("old")
    assert cli.build(option, "-", directory).out
    assert (tmp_path / "-").read_text() == "old"


@pytest.mark.parametrize("output", ["type=local,dest=out", "type=tar"])
def test_files_have_no_image_id(
    cli: Cli, directory: Path, tmp_path: Path, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "id").write_text("old")
    done = cli("build", "--iidfile", tmp_path / "id", "-o", output, directory)
    assert (done.status, done.out) == (2, b"")
    assert "--iidfile needs an image" in done.err
    assert (tmp_path / "id").read_text() == "old"


@pytest.mark.parametrize("option", RESULT_FILES)
@pytest.mark.parametrize("there", [True, False], ids=["there", "not there"])
def test_links_are_written_through(cli: Cli, directory: Path, tmp_path: Path, option: str, there: bool) -> None:
    """/dev/stdout is one."""
    link = tmp_path / "link"
    link.symlink_to("file")
    if there:
        (tmp_path / "file").write_text("old")
    cli.build(option, link, directory)
    assert link.is_symlink()
    assert (tmp_path / "file").read_text() not in ("", "old")


def test_pipes_are_written_to_once(cli: Cli, directory: Path, tmp_path: Path) -> None:
    """Whoever reads one is told of its end by the first who closes it."""
    os.mkfifo(tmp_path / "pipe")
    with cli.start("build", "--iidfile", tmp_path / "pipe", "-t", "x", directory) as process:
        assert (tmp_path / "pipe").read_text().startswith("sha256:")
    assert process.returncode == 0


def test_progress_as_json(cli: Cli, directory: Path) -> None:
    done = cli("build", "--progress", "rawjson", "-t", "x", directory)
    assert done.status == 0
    vertexes = [vertex for line in done.err.splitlines() for vertex in json.loads(line).get("vertexes", ())]
    by_name = {vertex["name"].partition("] ")[2]: vertex for vertex in vertexes if "completed" in vertex}
    parent, vertex = by_name["COPY --chmod=0755 a /dir/a"], by_name["COPY b /dir/b"]
    assert vertex["started"].endswith("Z")
    assert vertex["reason"]["text"] == "first build"
    assert vertex["inputs"] == [parent["digest"]]


# --- where the input comes from


def test_a_dockerfile_from_standard_input(cli: Cli, directory: Path) -> None:
    cli.build("-t", "x", "-f", "-", directory, stdin=b"FROM scratch\nCOPY a /only\n")
    assert list(cli.files("x")) == ["only"]


def test_only_a_dockerfile_from_standard_input(cli: Cli) -> None:
    cli.build("-t", "x", "-", stdin=b"FROM scratch\nCOPY <<END /file\ntext\nEND\n")
    assert cli.files("x")["file"].content == b"text\n"
    done = cli("build", "-", stdin=b"FROM scratch\nCOPY a /\n")
    assert done.status == 1
    assert "Dockerfile:2" in done.err


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_archive_from_standard_input(cli: Cli, directory: Path, compression: str) -> None:
    (directory / "other").write_text("FROM scratch\nCOPY a /other\n")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(directory, ".")
    data = COMPRESSIONS[compression](stream.getvalue())
    cli.build("-t", "x", "-", stdin=data)
    assert cli.files("x")["dir/a"].content == b"A"
    cli.build("-t", "y", "-f", "other", "-", stdin=data)
    assert list(cli.files("y")) == ["other"]


def test_a_dockerfile_elsewhere_with_its_own_ignore_file(cli: Cli, directory: Path, tmp_path: Path) -> None:
    (tmp_path / "Other.Dockerfile").write_text("FROM scratch\nCOPY [a-c] /\n")
    (tmp_path / "Other.Dockerfile.dockerignore").write_text("b\n")
    (directory / ".dockerignore").write_text("c\n")
    cli.build("-t", "x", "-f", tmp_path / "Other.Dockerfile", directory)
    assert sorted(cli.files("x")) == ["a", "c"]


def test_named_contexts(cli: Cli, directory: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a").write_text("other")
    cli.build("-t", "base", "-o", f"type=oci,tar=false,dest={tmp_path}/layout", directory)
    (directory / "Dockerfile").write_text(
        "FROM base\nCOPY --from=other a /other\nCOPY --from=stage c /stage\nFROM scratch AS last\nCOPY --from=0 / /\n"
    )
    done = cli.build(
        "-t",
        "x",
        *("--build-context", f"base=oci-layout://{tmp_path}/layout:latest"),
        *("--build-context", f"other={other}"),
        *("--build-context", f"stage=oci-layout://{tmp_path}/layout:latest"),
        directory,
    )
    files = cli.files("x")
    assert files["other"].content == b"other"
    assert files["stage"].content == b"C"
    assert files["dir/a"].content == b"A"
    assert done.err.count("DONE") >= 3
