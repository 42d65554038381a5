"""Builds that are stopped: by the user, and by kill -9. Nothing of them stays, and nothing of others goes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.builds import BASE, Cli, Log, busybox_context, context, needs_sandbox, reading

pytestmark = needs_sandbox


def processes(text: str) -> list[int]:
    """The processes that have `text` in their command line."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                command = Path("/proc", entry, "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in command and b"builder\0build" not in command:
                found.append(int(entry))
    return found


def gone(text: str, seconds: float = 10) -> bool:
    """Whether all such processes end soon."""
    return wait_for(lambda: not processes(text), seconds)


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def mark() -> Iterator[str]:
    """A number of seconds to sleep that no other process sleeps, to find ours by."""
    text = f"{1000 + os.getpid()}.{os.urandom(3).hex().translate(str.maketrans('abcdef', '123456'))}"
    yield text
    assert gone(text)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_a_step(cli: Cli, tmp_path: Path, mark: str, number: signal.Signals) -> None:
    directory = busybox_context(tmp_path / "context", f"RUN echo begun; (sleep {mark} & sleep {mark})\n")
    output = f"type=oci,dest={tmp_path}/x.tar"
    with reading(cli.start("build", "-t", "x", "-o", output, "-o", "type=image", directory)) as log:
        log.wait_for(" begun\n")
        assert wait_for(lambda: len(processes(mark)) >= 2)
        log.process.send_signal(number)
        assert log.process.wait(20) == 130
    assert gone(mark)
    assert "Traceback" not in log.text
    assert len([line for line in log.text.splitlines() if line.startswith("error: ")]) == 1
    assert "interrupted" in log.text
    assert cli.entries() == {}
    assert cli.leftovers() == []
    assert not (tmp_path / "x.tar").exists()
    assert list(tmp_path.glob("*.part")) == []


def test_interrupted_with_several_steps_at_once(cli: Cli, tmp_path: Path, mark: str) -> None:
    stages = "".join(f"FROM base AS s{n}\nRUN echo begun {n}; sleep {mark}\n" for n in range(3))
    copies = "".join(f"COPY --from=s{n} /tmp /{n}\n" for n in range(3))
    directory = busybox_context(tmp_path / "context", f"{stages}FROM base\n{copies}")
    with reading(cli.start("build", "--jobs", "3", "-t", "x", directory)) as log:
        for n in range(3):
            log.wait_for(f" begun {n}\n")
        log.process.send_signal(signal.SIGINT)
        assert log.process.wait(20) == 130
    assert gone(mark)
    assert len([line for line in log.text.splitlines() if line.startswith("error: ")]) == 1
    assert cli.leftovers() == []


def test_a_step_that_ignores_signals(cli: Cli, tmp_path: Path, mark: str) -> None:
    command = f"trap '' INT TERM HUP; echo begun; sleep {mark}; sleep {mark}"
    directory = busybox_context(tmp_path / "context", f"RUN {command}\n")
    with reading(cli.start("build", directory)) as log:
        log.wait_for(" begun\n")
        log.process.send_signal(signal.SIGINT)
        assert log.process.wait(20) == 130
    assert gone(mark)
    assert cli.leftovers() == []


def test_a_failing_step_ends_the_others(cli: Cli, tmp_path: Path, mark: str) -> None:
    """Waiting for them would only cost time."""
    directory = busybox_context(
        tmp_path / "context",
        f"FROM base AS one\nRUN sleep {mark}\n"
        "FROM base AS two\nRUN sleep 0.3; exit 3\n"
        "FROM base\nCOPY --from=one /tmp /1\nCOPY --from=two /tmp /2\n",
    )
    done = cli.spawn("build", "--jobs", "2", directory)
    assert done.status == 1
    assert "status 3" in done.err
    assert cli.leftovers() == []


WAITED_FOR = {
    "a cache": ("RUN --mount=type=cache,id=both,target=/c,sharing=locked {}\n", "the cache mount both"),
    "the same command": ("RUN {}\n", "the same command"),
}
"""A command that runs in one build, and what another that comes to it is told to wait for."""


@pytest.fixture(params=WAITED_FOR)
def waiting(request: pytest.FixtureRequest, cli: Cli, tmp_path: Path, mark: str) -> Iterator[Callable[[str], Log]]:
    """Starts a build of two stages: one waits for what another build has, the other runs a command."""
    instruction, what = WAITED_FOR[request.param]
    directory = busybox_context(tmp_path / "context", instruction.format(f"echo begun; sleep {mark}"))
    logs = contextlib.ExitStack()

    def start(command: str) -> Log:
        other = instruction.format(f"echo begun; sleep {mark}" if request.param == "the same command" else "true")
        stages = f"FROM base AS one\n{other}FROM base AS two\nRUN {command}\n"
        ends = "FROM base\nCOPY --from=one /tmp /1\nCOPY --from=two /tmp /2\n"
        (directory / "second").write_text(f"{BASE}{stages}{ends}")
        log = logs.enter_context(reading(cli.start("build", "--jobs", "2", "-f", directory / "second", directory)))
        log.wait_for(f"waits for {what}")
        return log

    with logs, reading(cli.start("build", directory)) as first:
        first.wait_for(" begun\n")
        yield start
        assert first.process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_another_build_is_waited_for(
    waiting: Callable[[str], Log], mark: str, number: signal.Signals
) -> None:
    log = waiting(f"echo second; sleep {mark}1")
    log.process.send_signal(number)
    assert log.process.wait(20) == 130
    assert gone(f"{mark}1")
    assert "Traceback" not in log.text
    assert len([line for line in log.text.splitlines() if line.startswith("error: ")]) == 1


def test_a_failing_step_ends_one_that_waits_for_another_build(waiting: Callable[[str], Log]) -> None:
    log = waiting("sleep 4; exit 3")
    assert log.process.wait(20) == 1
    log.thread.join()
    assert "status 3" in log.text


def test_killed_in_a_step(cli: Cli, tmp_path: Path, mark: str) -> None:
    """After kill -9 the step's processes are gone, and the next build works and clears what was left."""
    commands = f"RUN echo kept > /kept\nRUN echo x > /lost; echo begun; sleep {mark}\n"
    directory = busybox_context(tmp_path / "context", commands)
    with reading(cli.start("build", "-t", "x", directory)) as log:
        log.wait_for(" begun\n")
        log.process.kill()
        log.process.wait(20)
    assert gone(mark)
    assert cli.leftovers() != []
    assert cli.entries() == {}
    (directory / "base/tmp/other").touch()
    (directory / "Dockerfile").write_text((directory / "Dockerfile").read_text().replace(f"sleep {mark}", "true"))
    done = cli("build", "-t", "x", "--progress", "plain", directory)
    assert done.status == 0, done.err
    assert cli.leftovers() == []
    assert cli.files("x")["lost"].content == b"x\n"


def test_killed_at_many_moments(cli: Cli, tmp_path: Path) -> None:
    """Wherever a build is killed, the store stays readable and the next one gives the whole image."""
    commands = "RUN for i in 1 2 3 4 5 6; do echo $i > /f$i; done\nCOPY big /big\nRUN rm /f3\n"
    directory = busybox_context(tmp_path / "context", commands)
    for turn in range(6):
        (directory / "big").write_bytes(os.urandom(1 << 20))
        process = cli.start("build", "-t", "x", directory, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(0.15 + 0.07 * turn)
        process.kill()
        process.wait(20)
        if (cli.root / "index.json").exists():
            for name, entry in cli.entries().items():
                for layer in json.loads(cli.blob(entry["digest"]))["layers"]:
                    assert len(cli.blob(layer["digest"])) == layer["size"], name
    cli.build("-t", "x", directory)
    files = cli.files("x")
    assert "f3" not in files
    assert files["big"].content == (directory / "big").read_bytes()
    assert cli.leftovers() == []


def test_a_running_build_keeps_its_files(cli: Cli, tmp_path: Path) -> None:
    """What a killed build left is cleared by one that is alone, and never what another still uses."""
    wait = "echo begun; while ! test -e /c/go; do sleep 0.05; done; echo 1 > /1"
    directory = busybox_context(tmp_path / "context", f"RUN --mount=type=cache,target=/c {wait}\n")
    other = context(tmp_path / "other", "FROM scratch\nCOPY Dockerfile /\n")
    with reading(cli.start("build", "-t", "x", directory)) as log:
        log.wait_for(" begun\n")
        (cli.root / "tmp/work.of-a-killed-one").mkdir()
        cli.build("-t", "y", other)
        (work,) = cli.root.glob("mounts/*/data")
        (work / "go").touch()
        assert log.process.wait(20) == 0
    assert cli.files("x")["1"].content == b"1\n"
    assert cli.leftovers() == ["work.of-a-killed-one"]
    cli.build("-t", "y", other)
    assert cli.leftovers() == []
