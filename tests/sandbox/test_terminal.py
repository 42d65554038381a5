"""Commands that somebody sits in front of: standard input, a terminal of their own, signals."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.sandbox.client import Sandbox
from builder.sandbox.command import Command, Result
from builder.sandbox.session import Session
from builder.sandbox.terminal import get_size, set_size
from tests.sandbox.outcome import PATH, Run
from tests.support.builds import PROJECT
from tests.support.terminal import Program


class Attached:
    """A command in a thread, with this end of its standard streams."""

    def __init__(self, sandbox: Sandbox, command: Command, *, terminal: bool, with_input: bool = True) -> None:
        self.output = b""
        self.result: Result | None = None
        if terminal:
            self.end, theirs = os.openpty()
            set_size(theirs, (31, 97))
            streams = (theirs, theirs, theirs)
        else:
            read, self.end = os.pipe()
            self.out, write = os.pipe()
            streams = (read, write, write)
        self.theirs = set(streams)
        self.before = termios.tcgetattr(theirs) if terminal else None
        stdin = streams[0] if with_input else None
        session = Session(stdin=stdin, stdout=streams[1], stderr=streams[2], terminal=terminal)
        self.thread = threading.Thread(target=self._run, args=(sandbox, command, session))
        self.thread.start()

    def _run(self, sandbox: Sandbox, command: Command, session: Session) -> None:
        self.result = sandbox.attach(command, session)

    def write(self, text: str) -> None:
        os.write(self.end, text.encode())

    def read_until(self, text: str, seconds: float = 10) -> str:
        source = getattr(self, "out", self.end)
        end = time.monotonic() + seconds
        while text.encode() not in self.output:
            ready, _, _ = select.select([source], [], [], max(0, end - time.monotonic()))
            assert ready, f"{text!r} is not in {self.output!r}"
            self.output += os.read(source, 65536)
        return self.output.decode()

    def end_of(self) -> Result:
        self.thread.join(10)
        assert not self.thread.is_alive()
        assert self.result is not None
        return self.result


Attach = Callable[..., Attached]
Overlay = Callable[[], tuple[str, str]]


@pytest.fixture
def attach(
    run: Run,  # for its skips
    sandbox: Sandbox,
    busybox: Path,
    overlay: Callable[[], tuple[str, str]],
) -> Iterator[Attach]:
    made = []

    def attach(
        script: str, *, terminal: bool = True, with_input: bool = True, by: Sandbox = sandbox, uid: int = 0
    ) -> Attached:
        upper, work = overlay()
        command = Command(
            ("/bin/sh", "-c", script),
            lowers=(str(busybox),),
            upper=upper,
            work=work,
            environment=(PATH,),
            uid=uid,
        )
        made.append(Attached(by, command, terminal=terminal, with_input=with_input))
        return made[-1]

    yield attach
    for attached in made:
        for descriptor in (attached.end, getattr(attached, "out", -1)):
            if descriptor >= 0:
                os.close(descriptor)
        attached.thread.join(10)
        for descriptor in attached.theirs:
            os.close(descriptor)


def test_input_through_a_pipe(attach: Attach) -> None:
    attached = attach("cat; echo end", terminal=False)
    attached.write("one\n")
    assert attached.read_until("one\n") == "one\n"
    attached.write("two\n")
    os.close(attached.end)
    attached.end = -1
    assert attached.read_until("end\n") == "one\ntwo\nend\n"
    assert attached.end_of().exit_status == 0


def test_much_input_and_output(attach: Attach) -> None:
    attached = attach("wc -c; seq 100000", terminal=False)
    with open(attached.end, "wb") as file:
        attached.end = -1
        file.write(bytes(3_000_000))
    text = attached.read_until("\n100000\n")
    assert text == "3000000\n" + "".join(f"{number}\n" for number in range(1, 100001))
    assert attached.end_of().exit_status == 0


def test_a_command_that_does_not_read_its_input(attach: Attach) -> None:
    def used() -> float:
        attached = attach("exec <&-; sleep 1; echo done", terminal=False)
        attached.write("ignored\n")
        before = time.process_time()
        attached.read_until("done\n")
        assert attached.end_of().exit_status == 0
        return time.process_time() - before

    assert any(used() < 0.2 for _ in range(3))  # it was not asked again and again


def test_without_input_there_is_an_empty_one(attach: Attach) -> None:
    attached = attach("cat; readlink /proc/self/fd/0", terminal=False, with_input=False)
    assert attached.read_until("\n") == "/dev/null\n"


def test_input_and_output_are_no_files_of_the_host(
    sandbox: Sandbox, run: Run, busybox: Path, overlay: Callable[[], tuple[str, str]], tmp_path: Path
) -> None:
    """A descriptor of a file could be opened again for writing, through /proc/self/fd."""
    given = tmp_path / "input"
    given.write_text("text\n")
    upper, work = overlay()
    script = "readlink /proc/self/fd/0; readlink /proc/self/fd/1; echo changed > /proc/self/fd/0; cat > /dev/null"
    command = Command(("/bin/sh", "-c", script), lowers=(str(busybox),), upper=upper, work=work, environment=(PATH,))
    with open(given) as stdin, open(tmp_path / "out", "wb") as out:
        result = sandbox.attach(command, Session(stdin=stdin.fileno(), stdout=out.fileno(), stderr=out.fileno()))
    assert (result.exit_status, result.error) == (0, "")
    assert given.read_text() == "text\n"
    lines = (tmp_path / "out").read_text().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["pipe", "pipe"]


def test_the_terminal_is_the_commands_own(attach: Attach) -> None:
    attached = attach(
        "for i in 0 1 2; do readlink /proc/self/fd/$i; done; : < /dev/tty && : > /dev/console && echo opened;"
        " ls -1 /dev/pts; stat -c %t:%T /dev/console /dev/pts/0; ls -1 /proc/self/fd; echo end"
    )
    lines = attached.read_until("end\r\n").split("\r\n")
    assert lines[:4] == ["/dev/pts/0"] * 3 + ["opened"]
    assert lines[4:8] == ["0", "ptmx", "88:0", "88:0"]
    assert lines[8:12] == ["0", "1", "2", "3"]  # the last is the directory that `ls` reads
    assert attached.end_of().exit_status == 0


def test_a_user_owns_its_terminal(attach: Attach) -> None:
    attached = attach("stat -c %u /dev/pts/0; echo again > /dev/console; echo end", uid=1000)
    assert attached.read_until("end\r\n").split("\r\n")[:2] == ["1000", "again"]


def test_keys_go_to_the_command(attach: Attach) -> None:
    attached = attach("trap 'echo interrupted; exit 3' INT; echo ready; read line; echo \"<$line>\"; read never")
    attached.read_until("ready")
    assert termios.tcgetattr(attached.end)[3] & (termios.ICANON | termios.ECHO | termios.ISIG) == 0
    attached.write("text\r")
    attached.read_until("<text>")
    attached.write("\x03")
    attached.read_until("interrupted")
    assert attached.end_of().exit_status == 3
    assert termios.tcgetattr(attached.end) == attached.before


def test_the_terminal_is_restored_when_the_sandbox_is_cancelled(attach: Attach) -> None:
    with Sandbox() as own:
        attached = attach("echo ready; sleep 100", by=own)
        attached.read_until("ready")
        own.cancel()
        assert attached.end_of().cancelled
    assert termios.tcgetattr(attached.end) == attached.before


def test_the_size_of_the_window(attach: Attach) -> None:
    attached = attach("echo ready; cat > /dev/null")
    attached.read_until("ready")
    attached.write("\x04")
    attached.end_of()
    sized = attach("busybox stty size; echo end")
    assert sized.read_until("end").startswith("31 97\r\n")


def test_all_output_arrives_before_the_end(attach: Attach) -> None:
    attached = attach("seq 20000; exit 4")
    text = attached.read_until("\n20000\r\n")
    assert text.split("\r\n")[:-1] == [str(number) for number in range(1, 20001)]
    assert attached.end_of().exit_status == 4


def test_a_terminal_that_hangs_up_ends_the_command(attach: Attach) -> None:
    attached = attach("echo ready; read line; echo never")
    attached.read_until("ready")
    os.close(attached.end)
    attached.end = -1
    assert attached.end_of().exit_status != 0


def test_no_descriptor_is_left_behind(attach: Attach, sandbox: Sandbox) -> None:
    attach("true").end_of()
    before = len(os.listdir("/proc/self/fd"))
    for terminal in (True, False):
        attached = attach("echo x; exit 0", terminal=terminal, with_input=terminal)
        attached.end_of()
    assert len(os.listdir("/proc/self/fd")) == before + 2 + 4  # those of the two tests' ends


CHILD = """
import os, signal, sys
from builder.sandbox.client import Sandbox
from builder.sandbox.command import Command
from builder.sandbox.session import Session
lower, upper, work, terminal, script = sys.argv[1:]
command = Command(("/bin/sh", "-c", script), lowers=(lower,), upper=upper, work=work, environment=("PATH=/bin",))
if terminal == "ignored":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
with Sandbox() as sandbox:
    result = sandbox.attach(command, Session(stdin=0, terminal=terminal == "yes"))
sys.exit(result.exit_status if result.exit_status is not None else 128 + result.signal)
"""


@pytest.fixture
def program(
    run: Run, busybox: Path, overlay: Overlay, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Program]]:
    made: list[Program] = []
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))

    def program(script: str, *, terminal: bool = True, ignoring: bool = False) -> Program:
        kind = "ignored" if ignoring else "yes" if terminal else "no"
        arguments = ["-c", CHILD, str(busybox), *overlay(), kind, script]
        made.append(Program([sys.executable, *arguments]))
        return made[-1]

    yield program
    for one in made:
        one.close()


def test_a_new_window_size_is_passed_on(program: Callable[..., Program]) -> None:
    running = program("trap 'busybox stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done")
    running.read_until("ready")
    set_size(running.end, (11, 22))
    running.read_until("11 22")
    assert running.status() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
@pytest.mark.parametrize("terminal", [True, False])
def test_signals_are_passed_on(program: Callable[..., Program], number: signal.Signals, terminal: bool) -> None:
    script = f"trap 'echo got it; exit 5' {number.value}; echo ready; while :; do sleep 0.05; done"
    running = program(script, terminal=terminal)
    running.read_until("ready")
    os.kill(running.pid, number)
    running.read_until("got it")
    assert running.status() == 5


@pytest.mark.parametrize("terminal", [True, False])
def test_a_command_that_a_hang_up_does_not_end_ends_soon_after(program: Callable[..., Program], terminal: bool) -> None:
    """Process 1 of its namespace, it ignores what it has no handler for."""
    mark = f"{1000 + os.getpid()}.{int.from_bytes(os.urandom(3), 'big')}"
    running = program(f"echo ready; exec sleep {mark}", terminal=terminal)
    running.read_until("ready")
    began = time.monotonic()
    assert running.hang_up() == 137
    assert 2 < time.monotonic() - began < 9


def test_a_command_has_time_for_its_end_when_its_terminal_is_gone(
    program: Callable[..., Program], tmp_path: Path
) -> None:
    running = program("trap 'sleep 0.5; exit 7' HUP; echo ready; while :; do sleep 0.05; done", terminal=False)
    running.read_until("ready")
    assert running.hang_up() == 7


def test_the_signal_alone_ends_nothing_while_the_terminal_is_there(program: Callable[..., Program]) -> None:
    """Programs read their configuration again for it."""
    running = program("trap 'echo again' HUP; echo ready; while :; do sleep 0.05; done", terminal=False)
    running.read_until("ready")
    os.kill(running.pid, signal.SIGHUP)
    running.read_until("again")
    time.sleep(4)
    assert os.waitpid(running.pid, os.WNOHANG) == (0, 0)


def test_the_signal_ends_nothing_where_no_terminal_was(run: Run, busybox: Path, overlay: Overlay) -> None:
    """As of a service or a job: that there is none now does not tell that one was lost."""
    script = "trap 'echo again' HUP; echo ready; while :; do sleep 0.05; done"
    arguments = [sys.executable, "-c", CHILD, str(busybox), *overlay(), "no", script]
    environ = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(
        arguments, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
    ) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == b"ready\n"
            running.send_signal(signal.SIGHUP)
            assert running.stdout.readline() == b"again\n"
            with pytest.raises(subprocess.TimeoutExpired):
                running.wait(4)
        finally:
            running.kill()


def test_a_hang_up_that_the_caller_ignores_ends_nothing(program: Callable[..., Program]) -> None:
    """As under nohup(1)."""
    running = program("trap 'exit 9' HUP; echo ready; sleep 1; sleep 4; exit 8", ignoring=True)
    running.read_until("ready")
    os.kill(running.pid, signal.SIGHUP)
    assert running.hang_up() == 8


def test_the_third_interrupt_kills(program: Callable[..., Program]) -> None:
    running = program("trap '' INT TERM; echo ready; while :; do sleep 0.05; done", terminal=False)
    running.read_until("ready")
    for _ in range(3):
        assert os.waitpid(running.pid, os.WNOHANG) == (0, 0)
        os.kill(running.pid, signal.SIGINT)
        time.sleep(0.1)
    assert running.status() == 137


def test_input_cannot_be_pushed_into_the_callers_terminal(run: Run) -> None:
    """The controlling terminal is not even there for a step of a build."""
    outcome = run("(: < /dev/tty) 2>&1; ls /dev/console /dev/pts")
    assert "No such device or address" in outcome.out
    assert "0" not in outcome.lines


def test_sizes() -> None:
    master, terminal = os.openpty()
    set_size(master, (3, 5))
    assert get_size(terminal) == (3, 5)
    assert fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8))[:4] == b"\3\0\5\0"
    os.close(master)
    os.close(terminal)
