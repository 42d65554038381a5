"""`builder run`: images in the sandbox, by Docker's rules, with and without a terminal."""

from __future__ import annotations

import os
import re
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.sandbox.terminal import set_size
from tests.support.archives import archive
from tests.support.builds import Cli, busybox_context, needs_sandbox, reading
from tests.support.images import put_image
from tests.support.terminal import Program

pytestmark = needs_sandbox

PASSWD = "root:x:0:0::/root:/bin/sh\nnobody:x:99:98::/home/nobody:/bin/sh\n"


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A store with `plain` (nothing but a command) and `app` (an entrypoint, a user, an environment, a directory)."""
    directory = tmp_path_factory.mktemp("run")
    made = Cli(directory / "store")
    context = busybox_context(directory / "context", 'CMD ["echo", "hello"]\n')
    (context / "base/etc").mkdir()
    (context / "base/etc/passwd").write_text(PASSWD)
    for name in ("id", "pwd", "stty"):
        (context / "base/bin" / name).symlink_to("busybox")
    made.build("-t", "plain", context)
    extra = 'WORKDIR /srv\nENV A=1 B=2\nUSER nobody\nENTRYPOINT ["/bin/echo", "entry"]\nCMD ["default"]\n'
    (context / "Dockerfile.app").write_text("FROM plain\n" + extra)
    made.build("-t", "app", "-f", context / "Dockerfile.app", context, "--build-context", "plain=docker-image://plain")
    return made


OnTerminal = Callable[..., Program]


@pytest.fixture
def on_terminal(cli: Cli) -> Iterator[OnTerminal]:
    made: list[Program] = []

    def start(*arguments: str, size: tuple[int, int] = (24, 80)) -> Program:
        made.append(Program([sys.executable, "-m", "builder", *cli.arguments(*arguments)], cli.environ, size))
        return made[-1]

    yield start
    for program in made:
        program.close()


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (["plain"], "hello\n"),
        (["plain", "echo", "-n", "mine"], "mine"),
        (["app"], "entry default\n"),
        (["app", "mine", "-it"], "entry mine -it\n"),
        (["--entrypoint", "/bin/echo", "app"], "\n"),
        (["--entrypoint", "/bin/echo", "app", "x"], "x\n"),
        (["--entrypoint", "", "app", "echo", "y"], "y\n"),
        (["--entrypoint", "pwd", "app"], "/srv\n"),
        (["--entrypoint", "pwd", "-w", "/tmp", "app"], "/tmp\n"),
        (["--entrypoint", "pwd", "-w", "/made/now", "app"], "/made/now\n"),
        (["--entrypoint", "id", "app", "-u"], "99\n"),
        (["--entrypoint", "id", "-u", "5:6", "app"], "uid=5 gid=6 groups=6\n"),
        (["--entrypoint", "sh", "app", "-c", "echo $A $B $HOME"], "1 2 /home/nobody\n"),
        (["--entrypoint", "sh", "-e", "A=x", "-e", "GIVEN", "-e", "MISSING", "app", "-c",
          "echo $A $GIVEN ${MISSING-no}"], "x from here no\n"),
        (["--entrypoint", "sh", "-e", "A", "app", "-c", "echo ${A-no} $B"], "no 2\n"),
        (["--entrypoint", "sh", "-e", "A", "-e", "A=3", "app", "-c", "echo $A"], "3\n"),
        (["-h", "box", "plain", "cat", "/proc/sys/kernel/hostname"], "box\n"),
        (["-hbox", "plain", "cat", "/proc/sys/kernel/hostname"], "box\n"),
        (["--hostname", "box", "plain", "sh", "-c", "cat /proc/sys/kernel/hostname /etc/hosts"],
         "box\n127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
        (["--network", "none", "plain", "ls", "/sys/class/net"], "lo\n"),
        (["plain", "sh", "-c", "cat; echo $TERM"], "\n"),
        (["-i", "plain", "cat"], "given\n"),
        (["--rm", "plain", "sh", "-c", "test -c /dev/console || echo none"], "none\n"),
    ],
)  # fmt: skip
def test_what_runs(cli: Cli, arguments: list[str], out: str) -> None:
    done = cli.spawn("run", *arguments, stdin=b"given\n", environ={"GIVEN": "from here"})
    assert (done.status, done.err, done.out.decode()) == (0, "", out)


@pytest.mark.parametrize(
    ("arguments", "status", "err"),
    [
        (["plain", "sh", "-c", "echo wrong >&2; exit 42"], 42, "wrong\n"),
        (["plain", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137, ""),
        (["plain", "nothing"], 127, 'error: exec: "nothing": executable file not found in $PATH\n'),
        (["plain", "/nothing"], 127, 'error: exec: "/nothing": stat /nothing: no such file or directory\n'),
        (["plain", "/etc/passwd"], 126, 'error: exec: "/etc/passwd": permission denied\n'),
        (["plain", "/etc"], 126, 'error: exec: "/etc": is a directory\n'),
        (["--pull=never", "nowhere"], 125, "error: no such image: nowhere\nhelp: 'builder images' lists"),
        (["-u", "who", "plain"], 125, "error: there is no user 'who'"),
        (["-d", "plain"], 125, "--detach of Docker's is not supported"),
        (["-p", "80:80", "plain"], 125, "--publish of Docker's is not supported"),
        (["--privileged", "plain"], 125, "--privileged of Docker's is not supported"),
        (["--nonsense", "plain"], 125, "no such option"),
        ([], 125, "missing"),
        (["--entrypoint", "", "app"], 125, "the image says no command to run"),
        (["-it", "plain"], 125, "standard input is no terminal"),
        (["-w", "relative", "plain"], 125, "is not an absolute path"),
        (["-v", "name:/x", "plain"], 125, "named volumes are not kept"),
        (["-v", "/etc", "plain"], 125, "write HOST:PATH"),
        (["-v", "/etc:/x:y", "plain"], 125, "unknown mode 'y'"),
        (["-v", "/etc:/x:ro,rw", "plain"], 125, "write HOST:PATH"),
        (["-v", "/etc:/x:rshared", "plain"], 125, "mounts are not shared"),
        (["-v", "/etc/passwd/x:/x", "plain"], 125, "cannot be made"),
        (["--env-file", "/no/such/file", "plain"], 125, "the environment file cannot be read"),
    ],
)  # fmt: skip
def test_exit_status(cli: Cli, arguments: list[str], status: int, err: str) -> None:
    done = cli.spawn("run", *arguments)
    assert done.status == status, done.err
    assert err.lower() in done.err.lower()
    assert "Traceback" not in done.err


def test_a_store_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no directory")
    done = Cli(tmp_path / "store").spawn("run", "plain")
    assert (done.status, done.err.count("\n")) == (125, 2), done.err


def test_a_directory_of_the_host_is_made(cli: Cli, tmp_path: Path) -> None:
    done = cli.spawn(
        "run", "-v", f"{tmp_path}/new/below:/out:rw,z,delegated", "plain", "sh", "-c", "echo x > /out/file"
    )
    assert done.status == 0, done.err
    assert (tmp_path / "new/below/file").read_text() == "x\n"


@pytest.mark.parametrize("mode", ["ro,Z", "cached,ro,rslave", "ro,consistent,private"])
def test_modes_of_a_volume_that_change_nothing(cli: Cli, tmp_path: Path, mode: str) -> None:
    done = cli.spawn("run", "-v", f"{tmp_path}:/out:{mode}", "plain", "sh", "-c", "echo x > /out/file")
    assert "Read-only file system" in done.err


def test_files_of_the_host(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text\n")
    script = "cat /in/file; echo new > /out/made; echo no > /in/file; cat /one"
    done = cli.spawn(
        "run", "-v", f"{tmp_path}:/in:ro", "-v", f"{tmp_path}:/out", "-v", f"{tmp_path}/file:/one:ro", "plain",
        "sh", "-c", script,
    )  # fmt: skip
    assert done.out == b"text\ntext\n"
    assert "Read-only file system" in done.err
    assert (tmp_path / "made").read_text() == "new\n"


def test_a_mount_below_one_that_is_given_after_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "above/below").mkdir(parents=True)
    (tmp_path / "file").write_text("text\n")
    volumes = ("-v", f"{tmp_path}/file:/in/./below/file", "-v", f"{tmp_path}/above:/in//")
    assert cli.spawn("run", *volumes, "plain", "cat", "/in/below/file").out == b"text\n"


def test_an_environment_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\n\nONE=1 # kept\n  TWO='2'\nGIVEN\nMISSING\nLAST=file\n")
    done = cli.spawn(
        "run",
        "--env-file",
        str(tmp_path / "env"),
        "-e",
        "LAST=option",
        "plain",
        "env",
        environ={"GIVEN": "here"},
    )
    variables = dict(line.split("=", 1) for line in done.out.decode().splitlines())
    assert variables.pop("HOSTNAME").isalnum()
    assert variables == {
        "PATH": "/bin", "HOME": "/root", "ONE": "1 # kept", "TWO": "'2'", "GIVEN": "here", "LAST": "option",
    }  # fmt: skip


def test_proxies_of_docker_configuration(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"proxies": {"default": {"httpProxy": "p", "noProxy": "x"}}}')
    given = ("-e", "NO_PROXY=mine", "-e", "http_proxy")
    done = cli.spawn("run", *given, "plain", "env", environ={"DOCKER_CONFIG": str(tmp_path)})
    variables = dict(line.split("=", 1) for line in done.out.decode().splitlines())
    assert {name: value for name, value in variables.items() if "PROXY" in name.upper()} == {
        "HTTP_PROXY": "p", "NO_PROXY": "mine", "no_proxy": "x",
    }  # fmt: skip


def test_what_is_written_is_thrown_away(cli: Cli) -> None:
    assert cli.spawn("run", "plain", "sh", "-c", "echo x > /new; rm /etc/passwd").status == 0
    assert cli.spawn("run", "plain", "ls", "/new").status == 1
    assert cli.spawn("run", "plain", "cat", "/etc/passwd").out.decode() == PASSWD
    assert cli.leftovers() == []


def test_a_user_can_open_its_output_again(cli: Cli) -> None:
    done = cli.spawn("run", "-u", "99", "plain", "sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr")
    assert (done.status, done.out, done.err) == (0, b"out\n", "err\n")


def test_a_reader_that_goes_away_ends_it(cli: Cli) -> None:
    with cli.start("run", "plain", "sh", "-c", "while :; do echo text; done") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 1


def test_signals_without_a_terminal(cli: Cli) -> None:
    script = "trap 'echo stopped >&2; exit 3' TERM; echo ready >&2; while :; do sleep 0.05; done"
    with reading(cli.start("run", "plain", "sh", "-c", script)) as log:
        log.wait_for("ready")
        log.process.send_signal(signal.SIGTERM)
        log.wait_for("stopped")
        assert log.process.wait(20) == 3


def test_a_terminal(on_terminal: OnTerminal) -> None:
    program = on_terminal("run", "-it", "--entrypoint", "sh", "app", size=(33, 77))
    program.write("stty size; id -u; test -t 0 && test -t 2 && ls -l /proc/self/fd/0; echo $TERM; echo e''nd\r")
    text = program.read_until("end\r\n")
    assert "33 77\r\n99\r\n" in text
    assert "-> /dev/pts/0\r\nxterm\r\n" in text
    set_size(program.end, (20, 40))
    os.kill(program.pid, signal.SIGWINCH)
    program.write("stty size; echo d''one\r")
    assert "20 40\r\n" in program.read_until("done\r\n")
    program.write("sh -c 'echo sl\"\"eeping; exec sleep 100'\r")  # it is in the foreground when it says so
    program.read_until("sleeping\r\n")
    program.write("\x03")
    program.write("exit 9\r")
    assert program.status() == 9


def test_the_terminal_is_as_before(on_terminal: OnTerminal) -> None:
    program = on_terminal("run", "-it", "plain", "sh", "-c", "echo ready; read line; exit 1")
    program.read_until("ready")
    raw = termios.tcgetattr(program.end)
    assert not raw[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    os.kill(program.pid, signal.SIGTERM)  # the shell has no handler and is process 1, so it goes on
    program.write("\r")
    fresh, other = os.openpty()
    while termios.tcgetattr(program.end) == raw:
        pass
    assert termios.tcgetattr(program.end)[:4] == termios.tcgetattr(fresh)[:4]
    os.close(fresh)
    os.close(other)
    assert program.status() == 1


@pytest.mark.parametrize("fields", [{"Env": ["A=\0"]}, {"WorkingDir": "/\0"}, {"Cmd": ["\0"]}])
def test_a_configuration_with_a_nul(cli: Cli, fields: dict[str, Any]) -> None:
    put_image(cli.root, "nul", [archive(("a", {"data": b""}))], **fields)
    done = cli("run", "nul")
    assert done.status == 125
    assert f"nul is malformed: {next(iter(fields))} of its configuration has a NUL character" in done.err


def test_help_is_short_and_complete(cli: Cli) -> None:
    text = cli("run", "--help").out.decode()
    for option in "-i -t -e --env-file -w -u -v --entrypoint --network --hostname --platform --rm --pull -q".split():
        assert re.search(rf"(^|[ ,]){option}\b", text, re.MULTILINE), option
