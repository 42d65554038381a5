"""Bad input: one clear message, the right exit status, no traceback, nothing half done."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.sandbox import capabilities, syscalls
from tests.support.builds import BASE, Cli, Done, busybox_context, context, needs_sandbox


def check_refused(cli: Cli, done: Done, *texts: str, status: int = 1) -> None:
    """One message with all of `texts`, and nothing half done."""
    assert done.status == status, done.err
    for text in texts:
        assert text in done.err
    assert "Traceback" not in done.err
    assert "internal error" not in done.err
    assert len(re.findall("^error: ", done.err, re.MULTILINE | re.IGNORECASE)) == 1, done.err
    assert done.out == b""
    if cli.root.exists():
        assert cli.leftovers() == []
        assert cli.entries() == {}


@pytest.mark.parametrize(
    ("dockerfile", "texts"),
    [
        pytest.param(b"", ["empty"], id="empty"),
        pytest.param(b"# nothing\n\n", ["no instructions", "FROM"], id="comments"),
        pytest.param(bytes(range(256)) * 20, ["Dockerfile"], id="binary"),
        pytest.param(b"\x7fELF\x02\x01\x01\0\0\0\0\0", ["Dockerfile"], id="program"),
        pytest.param(b"FROM scratch\nCOPPY a /\n", ["Dockerfile:2", "COPPY", "COPY"], id="unknown instruction"),
        pytest.param(b"FROM scratch\nCOPY --frm=x a /\n", ["Dockerfile:2", "frm", "--from"], id="unknown flag"),
        pytest.param(b"FROM scratch\nCOPY a\n", ["Dockerfile:2"], id="too few arguments"),
        pytest.param(b"FROM scratch\nCOPY a /\n", ["Dockerfile:2", "a", "not"], id="missing file"),
        pytest.param(b"FROM scratch AS a\nCOPY --from=c / /\nFROM a AS c\nFROM a", ["Dockerfile:3"], id="base cycle"),
        pytest.param(b"FROM scratch\nCOPY ../outside /\n", ["Dockerfile:2", "outside"], id="out of the context"),
        pytest.param(
            b"FROM scratch\nCOPY up/outside /\n", ["Dockerfile:2", "up/outside"], id="link out of the context"
        ),
        pytest.param(b"FROM scratch\nCOPY loop /\n", ["Dockerfile:2", "loop"], id="link to itself"),
        pytest.param(
            b"FROM scratch AS a\nCOPY --from=b / /\nFROM scratch AS b\nCOPY --from=a / /\n",
            ["Dockerfile:4", "a → b → a"],
            id="cycle",
        ),
        pytest.param(b"FROM scratch AS a\nCOPY --from=a / /\n", ["Dockerfile:2", "a"], id="stage from itself"),
        pytest.param(b"FROM scratch\nCOPY --from=7 / /\n", ["Dockerfile:2", "7"], id="no such stage index"),
        pytest.param(b"FROM UPPER/Case\n", ["Dockerfile:1", "UPPER/Case"], id="invalid reference"),
        pytest.param(b"FROM $NOTHING\n", ["Dockerfile:1"], id="empty base"),
        pytest.param(
            b"FROM scratch\nENV A=${x:?must be set}\n", ["Dockerfile:2", "must be set"], id="required variable"
        ),
        pytest.param(b"FROM scratch\nCOPY <<END /x\nnever ended\n", ["Dockerfile:2", "END"], id="open here-document"),
        pytest.param(
            b"FROM scratch\nRUN --mount=type=magic true\n", ["Dockerfile:2", "magic"], id="unknown mount type"
        ),
    ],
)
def test_dockerfiles(cli: Cli, tmp_path: Path, dockerfile: bytes, texts: list[str]) -> None:
    directory = context(tmp_path / "context", dockerfile)
    (tmp_path / "outside").write_text("secret")
    (directory / "up").symlink_to("..")
    (directory / "loop").symlink_to("loop")
    check_refused(cli, cli("build", "-t", "x", "--progress", "plain", directory), *texts)


@needs_sandbox
@pytest.mark.parametrize(
    ("instruction", "texts"),
    [
        pytest.param("RUN echo before; exit 7", ["Dockerfile:4", "status 7", "before", "exit 7"], id="status"),
        pytest.param("RUN sh -c 'kill -9 $$'; exit $?", ["Dockerfile:4", "status 137"], id="signal"),
        pytest.param('RUN ["missing"]', ["Dockerfile:4", "missing"], id="no such program"),
        pytest.param("USER nobody\nRUN true", ["Dockerfile:5", "nobody"], id="no such user"),
        pytest.param("RUN --mount=type=secret,id=s,required true", ["Dockerfile:4", "--secret id=s"], id="secret"),
        pytest.param('SHELL ["/bin/none"]\nRUN true', ["Dockerfile:5", "/bin/none"], id="shell"),
    ],
)
def test_commands(cli: Cli, tmp_path: Path, instruction: str, texts: list[str]) -> None:
    directory = busybox_context(tmp_path / "context", instruction)
    check_refused(cli, cli("build", "-t", "x", "--progress", "plain", directory), *texts)


@needs_sandbox
def test_a_line_without_an_end(cli: Cli, tmp_path: Path) -> None:
    """Of a line the end is shown, where a progress bar is that goes back to the line's beginning."""
    script = "RUN head -c 3000000 /dev/zero | tr '\\0' a; echo -n END; exit 7\n"
    done = cli("build", "-q", busybox_context(tmp_path / "context", script))
    last = next(line for line in done.err.splitlines() if line.endswith("aEND"))
    assert done.status == 1
    assert last.strip() == "a" * (4096 - 3) + "END"


def test_contexts(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("FROM scratch")
    (tmp_path / "empty").mkdir()
    check_refused(cli, cli("build", tmp_path / "none"), "none", "does not exist")
    check_refused(cli, cli("build", tmp_path / "file"), "file", "director")
    check_refused(cli, cli("build", tmp_path / "empty"), "Dockerfile")
    check_refused(cli, cli("build", "-f", tmp_path / "none", tmp_path / "empty"), "none", "-f")
    check_refused(cli, cli("build", "-f", tmp_path / "empty", tmp_path / "empty"), "directory")
    check_refused(cli, cli("build", "-"), "nothing")
    check_refused(cli, cli("build", "-f", "-", "-", stdin=b"FROM scratch"), "standard input", status=2)
    copying = context(tmp_path / "copying", "FROM scratch\nCOPY --from=x / /\n")
    check_refused(cli, cli("build", "--build-context", "x=/nowhere/at/all", copying), "/nowhere/at/all")


def test_an_unreadable_file(cli: Cli, tmp_path: Path) -> None:
    """Root is not let to read everything either: the program that is executed lacks the capabilities for it."""
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a="x")
    (directory / "a").chmod(0)
    check_refused(cli, cli.spawn("build", directory, preexec_fn=_give_up_reading_everything), "permission denied", "a")


def _give_up_reading_everything() -> None:
    if os.geteuid() == 0:
        for name in ("DAC_OVERRIDE", "DAC_READ_SEARCH"):
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, capabilities.NAMES.index(name))


def test_special_files_in_the_context(cli: Cli, tmp_path: Path) -> None:
    """They are neither read (a FIFO would never end) nor a reason to fail when nothing copies them."""
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a="x")
    os.mkfifo(directory / "pipe")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as unix:
        unix.bind(os.path.relpath(directory / "socket"))
        assert cli("build", "-t", "x", directory).status == 0


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["build"], ["PATH|URL|-"]),
        (["build", "--no-such-option", "."], ["--no-such-option"]),
        (["build", "--tagg", "x", "."], ["--tagg", "--tag"]),
        (["bulid", "."], ["bulid", "build"]),
        (["build", "a", "b"], ["b"]),
        (["build", "--build-arg", "=x", "."], ["--build-arg"]),
        (["build", "--build-context", "x", "."], ["--build-context"]),
        (["build", "--label", "=x", "."], ["--label"]),
        (["build", "-o", "type=magic", "."], ["magic"]),
        (["build", "-o", "type=local", "."], ["dest"]),
        (["build", "-o", "type=oci,dest=x,magic=1", "."], ["magic"]),
        (["build", "-o", "type=oci,dest=x,compression=lzw", "."], ["lzw"]),
        (["build", "--secret", "src=x", "."], ["id"]),
        (["build", "--squash=some", "."], ["some"]),
        (["build", "--memory", "lots", "."], ["lots"]),
        (["build", "--ulimit", "nofile=x", "."], ["nofile"]),
        (["build", "--add-host", "x", "."], ["--add-host"]),
        (["build", "--network", "magic", "."], ["magic"]),
        (["build", "--progress", "magic", "."], ["magic"]),
        (["build", "--jobs", "-1", "."], ["-1"]),
        (["build", "--platform", "a/b/c/d", "."], ["a/b/c/d"]),
    ],
)
def test_wrong_usage(cli: Cli, arguments: list[str], texts: list[str]) -> None:
    check_refused(cli, cli(*arguments), *texts, status=2)


@pytest.mark.parametrize("tag", ["UPPER", "a:b:c", "a b", "-x", "", "x:" + "y" * 200])
def test_wrong_tags(cli: Cli, tmp_path: Path, tag: str) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nCOPY Dockerfile /\n")
    check_refused(cli, cli("build", f"--tag={tag}", directory), "reference")


def test_unknown_target_and_stage_filters(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "FROM scratch AS builder\nCOPY Dockerfile /\n")
    check_refused(cli, cli("build", "--target", "bilder", directory), "bilder", "builder")


@pytest.mark.parametrize("options", [[], ["--dry-run"], ["--platform", "linux/amd64,windows/amd64"]])
def test_what_cannot_be_done_for_windows(cli: Cli, tmp_path: Path, options: list[str]) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nWORKDIR /app\n")
    done = cli("build", "--platform", "windows/amd64", *options, directory)
    check_refused(cli, done, "Dockerfile:2: WORKDIR is not supported for windows/amd64", "$BUILDPLATFORM")
    assert cli("build", "--check", "--platform", "windows/amd64", directory).status == 0


def test_an_unreachable_registry(cli: Cli, tmp_path: Path) -> None:
    with contextlib.closing(socket.socket()) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    directory = context(tmp_path / "context", f"FROM 127.0.0.1:{port}/base:1\n")
    done = cli("build", "-t", "x", directory, environ={"BUILDER_RETRIES": "0"})
    check_refused(cli, done, f"127.0.0.1:{port}", "Dockerfile:1")


def test_a_wrong_configuration(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "FROM 127.0.0.1:1/base:1\n")
    (tmp_path / "builder.toml").write_text("[registry\n")
    check_refused(cli, cli("build", directory), "builder.toml", "TOML")


@pytest.mark.parametrize("epoch", ["now", "-1", "1.5", "9" * 30])
def test_a_wrong_epoch(cli: Cli, tmp_path: Path, epoch: str) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nCOPY Dockerfile /\n")
    done = cli("build", directory, environ={"SOURCE_DATE_EPOCH": epoch})
    check_refused(cli, done, "SOURCE_DATE_EPOCH", epoch, status=2)


# --- places that cannot be written


@contextlib.contextmanager
def small_disk(directory: Path, size: int) -> Iterator[None]:
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"tmpfs cannot be mounted: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("size", [8 << 10, 100 << 10, 2 << 20])
def test_a_full_disk(tmp_path: Path, size: int) -> None:
    """Whatever the write that fails: the store stays readable, and with more room the same build works."""
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a=os.urandom(4 << 20))
    with small_disk(tmp_path / "disk", size):
        cli = Cli(tmp_path / "disk/store", BUILDER_CONFIG="/dev/null")
        done = cli("build", "-t", "x", "--progress", "plain", directory)
        assert done.status == 1
        assert "No space left" in done.err or "full" in done.err
        assert "Traceback" not in done.err
        assert "internal error" not in done.err
        if (cli.root / "index.json").exists():
            assert cli.entries() == {}
            assert cli.leftovers() == []
        subprocess.run(["mount", "-o", "remount,size=64m", tmp_path / "disk"], check=True)
        done = cli("build", "-t", "x", directory)
        assert done.status == 0, done.err
        assert cli.files("x")["a"].content == (directory / "a").read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@needs_sandbox
def test_a_disk_that_a_command_fills(tmp_path: Path) -> None:
    directory = busybox_context(tmp_path / "context", "RUN cat /dev/zero > /big\n")
    with small_disk(tmp_path / "disk", 16 << 20):
        cli = Cli(tmp_path / "disk/store", BUILDER_CONFIG="/dev/null")
        done = cli("build", "-t", "x", "--progress", "plain", directory)
        check_refused(cli, done, "Dockerfile:4", "No space left")


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("type=oci,dest={}/file/x.tar", "Not a directory"),
        ("type=oci,dest={}/none/x.tar", "No such file"),
        ("type=docker,dest={}/directory", "directory"),
        ("type=tar,dest={}/none/x.tar", "No such file"),
        ("type=local,dest={}/file", "file"),
        ("type=oci,tar=false,dest={}/file", "file"),
    ],
)
def test_outputs_that_cannot_be_written(cli: Cli, tmp_path: Path, output: str, text: str) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a="a")
    places = tmp_path / "places"
    (places / "directory").mkdir(parents=True)
    (places / "file").write_text("kept")
    done = cli("build", "-t", "x", "--progress", "plain", "-o", output.format(places), directory)
    check_refused(cli, done, str(places), text)
    assert sorted(path.name for path in places.rglob("*")) == ["directory", "file"]
    assert (places / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_read_only_output(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a="a")
    with small_disk(tmp_path / "disk", 1 << 20):
        subprocess.run(["mount", "-o", "remount,ro", tmp_path / "disk"], check=True)
        for output in (
            "type=oci,dest={}/x",
            "type=local,dest={}/x",
            "type=tar,dest={}/x",
            "type=oci,tar=false,dest={}/x",
        ):
            done = cli("build", "-o", output.format(tmp_path / "disk"), directory)
            check_refused(cli, done, "Read-only file system", str(tmp_path / "disk"))
        store = Cli(tmp_path / "disk/store", BUILDER_CONFIG="/dev/null")
        check_refused(store, store("build", directory), "Read-only file system", "--root")


@pytest.mark.parametrize("option", ["--iidfile", "--metadata-file"])
def test_result_files_that_cannot_be_written(cli: Cli, tmp_path: Path, option: str) -> None:
    """That is known before the build begins, so nothing is built or tagged."""
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a="a")
    done = cli("build", "-t", "x", option, tmp_path / "none/file", directory)
    check_refused(cli, done, str(tmp_path / "none/file"), "No such file")


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    directory = context(tmp_path / "context", "FROM scratch\nCOPY Dockerfile /\n")
    done = Cli(tmp_path / "store")("build", directory)
    assert done.status == 1
    assert "--root" in done.err
    assert "Traceback" not in done.err


def test_a_damaged_store(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nCOPY Dockerfile /\n")
    cli.build("-t", "x", directory)
    (cli.root / "cache.db").write_bytes(b"not a database" * 1000)
    done = cli("build", "-t", "x", directory)
    assert done.status == 1
    assert "cache.db" in done.err
    assert "Traceback" not in done.err
    assert "internal error" not in done.err
    (cli.root / "cache.db").unlink()
    cli.build("-t", "x", directory)
    (cli.root / "index.json").write_text("{")
    done = cli("build", "-t", "x", directory)
    assert done.status == 1
    assert "index.json" in done.err
    assert "internal error" not in done.err


def test_an_old_image_keeps_its_tag_when_a_build_fails(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a="a")
    cli.build("-t", "x", "-o", f"type=oci,dest={tmp_path / 'x.tar'}", "-o", "type=image", directory)
    before, archive = cli.entries(), (tmp_path / "x.tar").read_bytes()
    (directory / "a").unlink()
    assert (
        cli("build", "-t", "x", "-o", f"type=oci,dest={tmp_path / 'x.tar'}", "-o", "type=image", directory).status == 1
    )
    assert cli.entries() == before
    assert (tmp_path / "x.tar").read_bytes() == archive


def test_a_failed_output_leaves_no_tag(cli: Cli, tmp_path: Path) -> None:
    """Names change last, after all that may fail."""
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a="a")
    done = cli("build", "-t", "x", "-o", "type=image", "-o", f"type=oci,dest={tmp_path}/none/x.tar", directory)
    check_refused(cli, done, "none/x.tar")


def test_a_traceback_only_with_debug(tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\n")
    cli = Cli(tmp_path / "store")
    assert "Traceback" not in cli.spawn("build", directory).err
    process = cli.start("--debug", "build", directory)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"Traceback" in err


def test_base_is_what_the_tests_think(tmp_path: Path) -> None:
    assert BASE.count("\n") == 3  # the line numbers above count on it
