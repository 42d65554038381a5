"""Standing in a failed step that is no command: COPY, ADD and WORKDIR, and a RUN whose command never began."""

from __future__ import annotations

import gzip
import io
import os
import sys
import tarfile
from pathlib import Path

import pytest

from builder.store.failed import FailedStates
from tests.support.archives import archive
from tests.support.builds import Cli, busybox_context, needs_sandbox
from tests.support.registry import FakeRegistry
from tests.support.terminal import Program

pytestmark = needs_sandbox


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "store", TOKEN="a-secret-of-some-length")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return busybox_context(tmp_path / "context")


STAGE = (
    "FROM scratch\nCOPY base/ /\nENV PATH=/bin GREETING=hello\nARG MODE=slow\nRUN mkdir /srv && echo x > /srv/taken\n"
    "WORKDIR /srv\nUSER 12:34\n"
)
SHOW = b"pwd; echo $GREETING $MODE; sed -n 's,^Uid:.\\([0-9]*\\).*,\\1,p' /proc/self/status; cat taken; exit 3\n"


def fail(cli: Cli, directory: Path, instruction: str, *options: str) -> str:
    (directory / "Dockerfile").write_text(STAGE + instruction)
    done = cli("build", "--progress=plain", "--on-error=keep", *options, directory)
    assert done.status == 1, done.err
    assert "the step is kept: 'builder debug " in done.err
    return done.err


@pytest.mark.parametrize(
    ("instruction", "cause"),
    [
        ("COPY missing /app/\n", "/missing was not found"),
        ("COPY base/ /srv/taken\n", "/srv/taken"),
        ("COPY Dockerfile base/bin/sh /srv/taken/\n", "/srv/taken"),
        ("COPY --from=empty /nothing /\n", "/nothing was not found"),
        ("ADD broken.tar.gz /\n", "broken.tar.gz"),
        ("ADD http://127.0.0.1:1/file /\n", "127.0.0.1:1"),
        ("WORKDIR /srv/taken/below\n", "/srv/taken"),
    ],
)
def test_a_shell_before_the_step(cli: Cli, directory: Path, instruction: str, cause: str) -> None:
    (directory / "broken.tar.gz").write_bytes(gzip.compress(archive(("file", {"data": os.urandom(999_999)})))[:500_000])
    arguments = ("--build-context", f"empty={directory / 'base/tmp'}") if "empty" in instruction else ()
    assert cause in fail(cli, directory, instruction, *arguments)
    done = cli.spawn("debug", stdin=SHOW)
    assert done.status == 3, done.err
    assert done.out == b"/srv\nhello slow\n12\nx\n"
    assert done.err == ""
    assert cli("debug", "--diff").out == b""
    again = cli("debug", "--rerun")
    assert again.status == 1
    assert cause in again.err
    assert cli.leftovers() == []


@pytest.mark.parametrize(
    ("instruction", "cause", "left_out"),
    [
        ("RUN --mount=type=secret,id=gone,required true\n", "'gone' is required", "its mounts"),
        ("RUN --mount=type=bind,source=missing,target=/m true\n", "/missing was not found", "its mounts"),
        ("RUN --mount=type=bind,from=base,source=/missing,target=/m true\n", "missing", "its mounts"),
        ("USER nobody-has-it\nRUN true\n", "there is no user 'nobody-has-it'", "its user 'nobody-has-it'"),
    ],
)
def test_a_command_that_never_began(cli: Cli, directory: Path, instruction: str, cause: str, left_out: str) -> None:
    arguments = ("--build-context", f"base={directory / 'base'}") if "from=base" in instruction else ()
    assert cause in fail(cli, directory, instruction, *arguments)
    done = cli.spawn("debug", stdin=b"cat taken; echo $GREETING; exit 3\n")
    assert (done.status, done.out) == (3, b"x\nhello\n")
    assert done.err == f"WARNING: the step failed before its command ran; it is shown without {left_out}\n"
    again = cli.spawn("debug", "--rerun")
    assert again.status != 0


def test_the_step_again(cli: Cli, directory: Path) -> None:
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY base/ /\nCOPY new base/bin/cat /bin/\n")
    (directory / "Dockerfile.dockerignore").write_text("ignored\n")
    assert cli("build", "--on-error=keep", directory).status == 1
    (directory / "new").mkdir()
    (directory / "new/file").write_text("1")
    (directory / "ignored").write_text("")
    before = {path.name for path in (cli.root / "blobs/sha256").iterdir()}
    done = cli("debug", "--rerun")
    assert done.status == 0, done.err
    assert done.out.decode().splitlines() == ["C /bin/cat", "A /bin/file"]
    assert {path.name for path in (cli.root / "blobs/sha256").iterdir()} == before  # nothing of it is kept
    assert cli.leftovers() == []

    (directory / "Dockerfile").write_text("FROM scratch\nCOPY base/ /\nCOPY ignored /bin/\n")
    assert cli("build", "--on-error=keep", directory).status == 1
    again = cli("debug", "--rerun")  # the ignore file counts
    assert (again.status, "/ignored was not found" in again.err) == (1, True)


def test_a_step_again_from_another_directory(
    cli: Cli, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "Dockerfile").write_text("FROM scratch\nWORKDIR /made\nCOPY --from=more x /\n")
    monkeypatch.chdir(directory)
    (directory / "more").mkdir()
    assert cli("build", "--on-error=keep", "--build-context", "more=more", "-f", "Dockerfile", ".").status == 1
    (directory / "more/x").write_text("")
    monkeypatch.chdir(tmp_path)
    assert cli("debug", "--rerun").out == b"A /x\n"


def test_a_working_directory_again(cli: Cli, directory: Path) -> None:
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /x\nWORKDIR /x/y\n")
    assert cli("build", "--on-error=keep", directory).status == 1
    assert cli("debug", "--rerun").status == 1


def test_a_context_from_standard_input(cli: Cli) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("Dockerfile")
        text = b"FROM scratch\nCOPY Dockerfile /\nCOPY missing /\n"
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    assert cli.spawn("build", "--on-error=keep", "-", stdin=archive.getvalue()).status == 1
    done = cli("debug", "--rerun")
    assert done.status == 1
    assert "the context came on standard input, and is not here any more\nhelp: build again, with it" in done.err
    assert cli("debug", "--cat", "/Dockerfile").out == text


def test_a_secret_is_looked_for_again(cli: Cli, directory: Path) -> None:
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY token /\n")
    (directory / "token").write_text(cli.environ["TOKEN"])
    arguments = ("--secret", "id=token,env=TOKEN", "--on-error=keep")
    assert cli("build", *arguments, directory).status == 1
    again = cli("debug", "--rerun")
    assert again.status == 1
    assert "secret" in again.err
    assert cli.environ["TOKEN"] not in again.err
    files = [path for path in (cli.root / "failed").rglob("*") if path.is_file()]
    assert files
    assert not any(cli.environ["TOKEN"].encode() in path.read_bytes() for path in files)


def test_no_shell(cli: Cli, directory: Path) -> None:
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /etc/first\nCOPY missing /\n")
    assert cli("build", "--on-error=keep", directory).status == 1
    done = cli.spawn("debug")
    assert done.status == 1
    assert done.err == (
        "error: the step's file system has no shell\n"
        "help: 'builder debug --ls /' lists its files, '--cat PATH' shows one\n"
    )
    listed = cli("debug", "--ls", "/etc").out.decode().split()
    assert (listed[0], listed[1], listed[-1]) == ("-rw-r--r--", "0:0", "first")
    assert cli("debug", "--ls", "/etc/first").out.decode().endswith(" /etc/first\n")
    assert cli("debug", "--cat", "etc/first").out == (directory / "Dockerfile").read_bytes()
    done = cli("debug", "--cat", "etc")
    assert (done.status, "etc is a directory, not a file" in done.err) == (1, True)
    done = cli("debug", "--ls", "/etc/firs")
    assert (done.status, "did you mean /etc/first?" in done.err) == (1, True)


def test_no_shell_for_a_command_that_never_began(cli: Cli, directory: Path) -> None:
    mounts = "--mount=type=secret,id=gone,required"
    (directory / "Dockerfile").write_text(f'FROM scratch\nCOPY Dockerfile /\nRUN {mounts} ["/program"]\n')
    assert cli("build", "--on-error=keep", directory).status == 1
    assert cli.spawn("debug").err == (
        "error: the step's file system has no shell\n"
        "help: 'builder debug --ls /' lists its files, '--cat PATH' shows one, '--rerun' runs its command\n"
    )


def test_what_a_command_wrote_can_be_looked_at(cli: Cli, directory: Path) -> None:
    (directory / "Dockerfile").write_text(STAGE + "USER 0\nRUN echo y > taken; exit 1\n")
    assert cli("build", "--on-error=keep", directory).status == 1
    assert cli("debug", "--cat", "/srv/taken").out == b"y\n"


def test_one_at_a_time(cli: Cli) -> None:
    assert cli("debug", "--rerun", "--ls", "/").status == 2


def test_a_list_is_of_all(cli: Cli) -> None:
    done = cli("debug", "--list", "3f2a")
    assert (done.status, done.out) == (2, b"")
    assert "--list lists all steps that are kept, and '3f2a' names one" in done.err


@pytest.mark.parametrize("state", [b"garbage", b"", b"\x80", b"\x81\xa5cause\xa2\xff\xff", None])
def test_a_state_that_cannot_be_read(cli: Cli, directory: Path, state: bytes | None) -> None:
    for number in range(3):
        (directory / "Dockerfile").write_text(f"FROM scratch\nCOPY missing{number} /\n")
        assert cli("build", "--on-error=keep", directory).status == 1
    folders = sorted((cli.root / "failed").iterdir())
    path = folders[1] / "state"
    path.unlink()
    if state is not None:
        path.write_bytes(state)
    done = cli("debug", "--list")
    assert (done.status, done.err) == (0, "")
    builds = [folder.name.split("-")[1] for folder in folders]
    lines = done.out.decode().splitlines()
    assert lines[1] == f"{builds[1]}  (cannot be read)"
    assert [line.split()[0] for line in lines] == builds[::-1]
    assert lines[0].endswith("COPY missing2 /: /missing2 was not found")
    assert lines[2].endswith("COPY missing0 /: /missing0 was not found")
    done = cli("debug", "--ls", "/", builds[1])
    assert (done.status, done.err.startswith("error: ")) == (1, True)
    assert "internal" not in done.err


def test_a_state_that_goes_meanwhile(cli: Cli, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY missing /\n")
    assert cli("build", "--on-error=keep", directory).status == 1
    builds = FailedStates.builds
    monkeypatch.setattr(FailedStates, "builds", lambda states: ["ffffffff", *builds(states)])
    done = cli("debug", "--list")
    assert done.status == 0, done.err
    assert done.out.startswith(b"ffffffff  (cannot be read)\n")
    assert len(done.out.splitlines()) == 2


def test_a_base_that_was_never_unpacked(cli: Cli, directory: Path) -> None:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        member = tarfile.TarInfo("etc/of-the-base")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    with FakeRegistry() as registry:
        registry.add_image("base", "1", layers=(layer.getvalue(),))
        (directory / "Dockerfile").write_text(f"FROM {registry.host}/base:1\nCOPY missing /\n")
        assert cli("build", "--on-error=keep", directory).status == 1
    assert cli("debug", "--cat", "/etc/of-the-base").out == b"abc"  # the registry is gone by now


def test_a_build_that_goes_well_forgets(cli: Cli, directory: Path) -> None:
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY new /\n")
    assert cli("build", "--on-error=keep", directory).status == 1
    (directory / "new").write_text("")
    cli.build(directory)
    assert cli("debug", "--list").out == b""


@pytest.mark.parametrize(
    ("step", "position"),
    [(":2", "stage-0 1/3"), ("2", "stage-0 2/3"), ("stage-0 3/3", "stage-0 3/3"), ("stage-0", "stage-0 1/3")],
)
def test_breaks(cli: Cli, directory: Path, step: str, position: str) -> None:
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /1\nADD Dockerfile /2\nWORKDIR /3\n")
    cli.build(directory)  # a break stops before what is cached, too
    done = cli("build", "--on-error=keep", "--break", step, directory)
    assert done.status == 1
    assert f"stopped before {position}\n" in done.err
    count = int(position.partition("/")[0][-1]) - 1
    assert len(cli("debug", "--ls", "/").out.splitlines()) == count
    assert cli("debug", "--rerun").out.decode().startswith(f"A /{count + 1}")


def test_a_shell_on_a_terminal(cli: Cli, directory: Path) -> None:
    (directory / "Dockerfile").write_text(STAGE + "COPY missing /app/\n")
    command = cli.arguments("build", "--progress", "plain", "--on-error=shell", str(directory))
    program = Program([sys.executable, "-m", "builder", *command], cli.environ, (40, 200))
    try:
        text = program.read_until("does it again")
        assert (
            "COPY missing /app/: /missing was not found\r\n  as 12:34 in /srv; what you change is thrown away" in text
        )
        build = text.rpartition("builder debug --rerun ")[2].partition("'")[0]
        (directory / "missing").write_text("")
        done = cli("debug", "--rerun", build)  # from another terminal, meanwhile
        assert (done.status, done.out) == (0, b"A /app/\nA /app/missing\n"), done.err
        program.write("echo $GREETING; test -t 0 && echo on a ''terminal; exit 0\r")
        assert "hello\r\non a terminal\r\n" in program.read_until("on a terminal\r\n")
        assert program.status() == 1
    finally:
        program.close()
    assert cli("debug", "--list").out == b""
    assert cli.leftovers() == []


def test_a_terminal_where_there_is_no_shell(cli: Cli, directory: Path) -> None:
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY missing /\n")
    command = cli.arguments("build", "--progress", "plain", "--on-error=shell", str(directory))
    program = Program([sys.executable, "-m", "builder", *command], cli.environ, (40, 200))
    try:
        assert program.status() == 1
        text = program.output.decode()
    finally:
        program.close()
    assert "/missing was not found" in text
    assert "the step's file system has no shell" in text
    build = text.rpartition("the step is kept as ")[2].split()[0]
    assert cli("debug", "--ls", "/", build).status == 0


def test_a_break_on_a_terminal(cli: Cli, directory: Path) -> None:
    (directory / "Dockerfile").write_text(STAGE + "ADD Dockerfile /app/\n")
    command = cli.arguments("build", "--progress", "tty", "--break", ":8", str(directory))
    program = Program([sys.executable, "-m", "builder", *command], cli.environ, (40, 200))
    try:
        program.read_until("ADD Dockerfile /app/: stopped before stage-0 4/4")
        program.write("cat /srv/taken && ls -d /* && echo saw $((6 * 7)); exit\r")
        shown = program.read_until("saw 42\r\n")
        assert program.status() == 1
        assert "\r\nx\r\n" in shown
        assert "/srv\r\n" in shown
        assert "/app\r\n" not in shown
    finally:
        program.close()
