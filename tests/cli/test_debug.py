"""Standing in a step that failed: `build --on-error`, `--break`, and `builder debug`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.store.failed import KEPT
from tests.support.builds import Cli, Done, busybox_context, needs_sandbox
from tests.support.terminal import Program

pytestmark = needs_sandbox

FAILING = (
    "WORKDIR /srv\n"
    "ARG MODE=slow\n"
    "RUN echo old > changed; echo old > gone; mkdir folder; echo x > folder/inside\n"
    "RUN --mount=type=secret,id=key --mount=type=secret,id=key,env=KEY --mount=type=bind,source=base/etc,target=/bound"
    " --mount=type=tmpfs,target=/memory --mount=type=cache,target=/cache"
    " cat /run/secrets/key; echo $KEY $MODE; echo new >> changed; rm -r gone folder; mkdir made; echo n > made/file;"
    " echo kept >> /cache/file; exit 7\n"
)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "store", KEY_OF_TEST="hidden")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = busybox_context(tmp_path / "context", FAILING)
    (made / "base/etc").mkdir()
    (made / "base/etc/file").write_text("bound\n")
    return made


SECRET = ("--secret", "id=key,env=KEY_OF_TEST")


@pytest.fixture
def failed(cli: Cli, directory: Path) -> Done:
    done = cli.spawn("build", "--progress", "plain", "--on-error=keep", *SECRET, directory)
    assert done.status == 1, done.err
    return done


def test_what_was_changed(cli: Cli, failed: Done) -> None:
    done = cli("debug", "--diff")
    assert done.status == 0, done.err
    assert done.out.decode().splitlines() == [
        "C /srv/changed",
        "D /srv/folder/",
        "D /srv/gone",
        "A /srv/made/",
        "A /srv/made/file",
    ]


def test_a_shell_with_all_that_the_step_had(cli: Cli, failed: Done) -> None:
    script = (
        "pwd; cat changed made/file; ls; cat /run/secrets/key; echo; echo $KEY $MODE; cat /bound/file; ls /memory;"
        " cat /cache/file; echo more > made/file; exit 3\n"
    )
    done = cli.spawn("debug", stdin=script.encode())
    assert done.status == 3, done.err
    assert done.out.decode().split("\n") == [
        "/srv", "old", "new", "n", "changed", "made", "hidden", "hidden slow", "bound", "kept", "",
    ]  # fmt: skip
    assert done.err == ""
    assert cli.spawn("debug", "--", "cat", "made/file").out == b"n\n"  # what was done there is thrown away
    assert cli.leftovers() == []


def test_the_command_again(cli: Cli, failed: Done) -> None:
    for script in (b'eval "$BUILDER_COMMAND"; echo = $?\n', b"cd /; /dev/builder/rerun; echo = $?\n"):
        done = cli.spawn("debug", stdin=script)
        assert (done.status, done.out) == (0, b"hiddenhidden slow\n= 7\n")
        assert "rm: can't remove 'gone'" in done.err
    again = cli.spawn("debug", "--rerun")
    assert again.status == 7
    assert again.out == b"hiddenhidden slow\n"


def test_a_secret_that_is_not_there_any_more(cli: Cli, failed: Done) -> None:
    del cli.environ["KEY_OF_TEST"]
    done = cli.spawn("debug", stdin=b"ls /run/secrets; echo ${KEY:-none}\n")
    assert done.out == b"none\n"
    assert "WARNING: secret 'key': the variable KEY_OF_TEST is not set; the step is shown without it" in done.err


def test_no_secret_is_written_down(cli: Cli, failed: Done) -> None:
    files = [path for path in (cli.root / "failed").rglob("*") if path.is_file()]
    assert any(path.name == "state" for path in files)
    assert not any(b"hidden" in path.read_bytes() for path in files)
    assert (cli.root / "failed").stat().st_mode & 0o777 == 0o700


def test_by_name(cli: Cli, directory: Path, failed: Done) -> None:
    name = failed.err.rpartition("builder debug ")[2].partition("'")[0]
    assert len(name) == 8
    assert cli.spawn("debug", name[:4], "--", "cat", "made/file").out == b"n\n"
    listed = cli("debug", "--list").out.decode()
    assert listed.startswith(f"{name}  [base 4/4] RUN --mount=type=secret,id=key")
    assert listed.endswith(": the command ended with status 7\n")
    (directory / "Dockerfile.other").write_text("FROM scratch\nCOPY base/ /\nENV PATH=/bin\nRUN exit 4\n")
    arguments = ("build", "--on-error=keep", "-t", "other:1", "-f", directory / "Dockerfile.other", directory)
    assert cli.spawn(*arguments).status == 1
    assert cli.spawn("debug", "--rerun").status == 4  # the newest
    for build in ("other:1", "-1", "latest"):
        assert cli.spawn("debug", "--rerun", build).status == 4
    for build in ("-2", name):
        assert cli.spawn("debug", "--rerun", build).status == 7
    assert cli.spawn("debug", "-2", "--", "cat", "made/file").out == b"n\n"
    assert cli("debug", "-x").status == 2
    arguments = ("build", "--on-error=keep", "-t", name[:3], "-f", directory / "Dockerfile.other", directory)
    assert cli.spawn(*arguments).status == 1
    assert cli.spawn("debug", "--rerun", name[:3]).status == 4, "an image's name, not the first digits of the other"
    done = cli("debug", "ffff:1")
    assert (done.status, "there is no build" in done.err) == (1, True)


def test_nothing_is_kept_unless_asked(cli: Cli, directory: Path) -> None:
    assert cli.spawn("build", *SECRET, directory).status == 1
    done = cli("debug")
    assert done.status == 1
    assert done.err.endswith("no failed step is kept\nhelp: build with --on-error=keep\n")
    assert not (cli.root / "failed").exists()


def test_a_build_that_goes_well_forgets(cli: Cli, directory: Path, failed: Done) -> None:
    (directory / "Dockerfile.other").write_text("FROM scratch\nCOPY base/ /\n")
    cli.build("-f", directory / "Dockerfile.other", directory)
    assert len(list((cli.root / "failed").iterdir())) == 1  # that was another one
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY base/ /\n")
    cli.build(directory)
    assert list((cli.root / "failed").iterdir()) == []


def test_prune_forgets(cli: Cli, failed: Done) -> None:
    assert cli.spawn("prune", "-f").status == 0
    assert list((cli.root / "failed").iterdir()) == []


def test_only_the_last_are_kept(cli: Cli, directory: Path) -> None:
    for number in range(KEPT + 1):
        dockerfile = directory / f"Dockerfile.{number}"
        dockerfile.write_text(f"FROM scratch\nCOPY base/ /\nENV PATH=/bin\nRUN exit {number + 1}\n")
        assert cli.spawn("build", "--on-error=keep", "-f", dockerfile, directory).status == 1
    assert len(list((cli.root / "failed").iterdir())) == KEPT
    assert cli.spawn("debug", "--rerun").status == KEPT + 1


@pytest.mark.parametrize("arguments", [["--on-error=shell"], ["--break", "2"]])
def test_a_shell_needs_a_terminal(cli: Cli, directory: Path, arguments: list[str]) -> None:
    done = cli.spawn("build", *arguments, directory)
    assert done.status == 2
    assert "a shell needs a terminal" in done.err


@pytest.mark.parametrize("step", ["base 4/4", "BASE 4/4", "4/4", "4", ":7"])
def test_a_break(cli: Cli, directory: Path, step: str) -> None:
    done = cli.spawn("build", "--progress", "plain", "--on-error=keep", "--break", step, *SECRET, directory)
    assert done.status == 1
    assert "Dockerfile:7: stopped before base 4/4\n" in done.err
    shown = cli.spawn("debug", stdin=b"cat changed gone /run/secrets/key; /dev/builder/rerun\n")
    assert shown.status == 7
    assert shown.out.startswith(b"old\nold\nhidden")
    assert cli("debug", "--diff").out == b""


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("base", "Dockerfile:6: stopped before base 3/4\n"),
        (":9", "--break=:9: the build has no such step"),
        (":2", "Dockerfile:2: stopped before base 1/4\n"),
        (":5", "--break=:5: the build has no such step\nhelp: give a position, a line or a stage of these: base 1/4"),
    ],
)
def test_breaks_elsewhere(cli: Cli, directory: Path, step: str, message: str) -> None:
    done = cli.spawn("build", "--progress", "plain", "--on-error=keep", "--break", step, *SECRET, directory)
    assert message in done.err


def test_a_break_stops_before_what_is_cached(cli: Cli, directory: Path, failed: Done) -> None:
    done = cli.spawn("build", "--on-error=keep", "--break", ":6", *SECRET, directory)
    assert "stopped before base 3/4" in done.err
    assert cli.spawn("debug", "--", "ls").out == b""


OnTerminal = Callable[..., Program]


@pytest.fixture
def on_terminal(cli: Cli) -> Iterator[OnTerminal]:
    made: list[Program] = []

    def start(*arguments: str) -> Program:
        made.append(Program([sys.executable, "-m", "builder", *cli.arguments(*arguments)], cli.environ, (40, 200)))
        return made[-1]

    yield start
    for program in made:
        program.close()


def test_a_shell_when_a_step_fails(cli: Cli, directory: Path, on_terminal: OnTerminal) -> None:
    program = on_terminal("build", "--progress", "plain", "--on-error=shell", *SECRET, str(directory))
    text = program.read_until("/dev/builder/rerun runs the command again")
    assert "the command ended with status 7" in text
    program.write("echo $KEY; cat made/file; test -t 0 && echo on a ''terminal; exit 0\r")
    assert "hidden\r\nn\r\non a terminal\r\n" in program.read_until("on a terminal\r\n")
    assert program.status() == 1  # the build failed, whatever was done there
    assert list((cli.root / "failed").iterdir()) == []
    assert cli.leftovers() == []


def test_a_shell_at_a_break(cli: Cli, directory: Path, on_terminal: OnTerminal) -> None:
    program = on_terminal("build", "--progress", "tty", "--break", "base", *SECRET, str(directory))
    program.read_until("/dev/builder/rerun runs the command of the step")
    program.write("/dev/builder/rerun; cat changed; exit\r")
    program.read_until("old\r\n")
    assert program.status() == 1
    assert list((cli.root / "failed").iterdir()) == []
