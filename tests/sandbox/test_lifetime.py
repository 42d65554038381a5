"""Processes end with their step, with a cancellation, and with the builder itself, however it dies."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from builder.sandbox.client import Sandbox
from builder.sandbox.command import Command, Mount
from tests.sandbox.outcome import PATH, Outcome, Run, needs_groups
from tests.support.together import together


def processes_with(word: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if word.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    found.append(int(name))
            except OSError:
                continue
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_background_processes_end_with_the_command(run: Run) -> None:
    word = f"3000.{os.getpid()}1"
    outcome = run(f"(sleep {word}; touch /late) & sleep {word} > /dev/null 2>&1 & echo on")
    assert outcome.out == "on\n"
    assert outcome.result.duration < 5
    assert processes_with(word) == []


def test_many_at_once(run: Run, tmp_path: Path) -> None:
    outcomes = []
    (tmp_path / "meeting").mkdir()
    mounts = (Mount("/meeting", source=str(tmp_path / "meeting"), read_only=False),)

    def step(i: int) -> None:
        come = (
            f"touch /meeting/{i}; until test $(ls /meeting | wc -l) = 8 || test $((n += 1)) = 1000; do sleep 0.02; done"
        )
        outcomes.append((i, run(f"{come}; echo {i} $((n < 1000)); exit {i}", mounts=mounts)))

    together(*(partial(step, i) for i in range(8)))
    assert sorted((i, o.out, o.result.exit_status) for i, o in outcomes) == [(i, f"{i} 1\n", i) for i in range(8)]


def test_cancel(run: Run) -> None:
    word = f"3000.{os.getpid()}2"
    with Sandbox() as own:
        results = []
        thread = threading.Thread(target=lambda: results.append(run(f"sleep {word}", by=own).result))
        thread.start()
        assert wait_until(lambda: bool(processes_with(word)))
        own.cancel()
        thread.join(10)
        assert results[0].cancelled
        assert results[0].signal == signal.SIGKILL
        assert processes_with(word) == []
        assert run("true", by=own).result.cancelled


def test_a_helper_that_died_is_replaced(run: Run) -> None:
    with Sandbox() as own:
        assert run("true", by=own).result.exit_status == 0
        os.kill(own._pid, signal.SIGKILL)
        assert own._helper is not None
        gone = select.poll()
        gone.register(own._helper, 0)
        assert gone.poll(10_000)  # later than its own end: what it forked has its socket, too
        assert run("true", by=own).result.exit_status == 0


def test_a_helper_that_may_rest_ends_and_another_starts(run: Run) -> None:
    with Sandbox() as own:
        assert run("true", by=own).result.exit_status == 0
        first = own._pid
        own.rest()
        assert wait_until(lambda: _state(first) == "Z")  # nobody has waited for it
        assert run("echo on", by=own).out == "on\n"
        assert own._pid not in (0, first)
        assert not os.path.exists(f"/proc/{first}")
    assert wait_until(lambda: not os.path.exists(f"/proc/{own._pid}"))


def test_a_helper_at_work_does_not_rest(run: Run) -> None:
    word = f"1.{os.getpid()}3"
    with Sandbox() as own:
        outcomes = []
        thread = threading.Thread(target=lambda: outcomes.append(run(f"sleep {word}; echo on", by=own)))
        thread.start()
        assert wait_until(lambda: bool(processes_with(f"sleep\0{word}")))
        own.rest()
        thread.join(10)
        assert outcomes[0].out == "on\n"


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


CLIENT = """
import sys
from builder.sandbox.client import Sandbox
from builder.sandbox.command import Command
lower, upper, work, word = sys.argv[1:]
script = f"sleep {word} & setsid sleep {word} & sleep {word}"
command = Command(("/bin/sh", "-c", script), lowers=(lower,), upper=upper, work=work, environment=("PATH=/bin",))
Sandbox().run(command, print)
"""


@pytest.mark.parametrize("victim", ["client", "helper and client"])
def test_everything_dies_with_the_client(
    run: Run, busybox: Path, overlay: Callable[[], tuple[str, str]], victim: str
) -> None:
    word = f"3000.{os.getpid()}{len(victim)}"
    checkout = Path(__file__).parents[2]
    client = subprocess.Popen([sys.executable, "-c", CLIENT, str(busybox), *overlay(), word], cwd=checkout)
    assert wait_until(lambda: len(processes_with(f"sleep\0{word}")) >= 2)
    helpers = [pid for pid in processes_with("builder.sandbox.helper") if _parent(pid) == client.pid]
    assert len(helpers) == 1
    if victim != "client":
        os.kill(helpers[0], signal.SIGKILL)
    client.kill()
    client.wait()
    assert wait_until(lambda: processes_with(word) == [])
    assert wait_until(lambda: not os.path.exists(f"/proc/{helpers[0]}"))


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def test_memory_limit(run: Run) -> None:
    fill = (Mount("/t", "tmpfs", read_only=False),)
    outcome = run("dd if=/dev/zero of=/t/f bs=1M count=64", memory=16 << 20, mounts=fill)
    needs_groups(outcome.result)
    assert outcome.result.out_of_memory
    assert outcome.result.signal == signal.SIGKILL or outcome.result.exit_status == 137
    assert not run("true", memory=64 << 20).result.out_of_memory


def test_processor_limit(run: Run) -> None:
    outcome = run("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done", cpus=0.2)
    needs_groups(outcome.result)
    used = outcome.result.user_time + outcome.result.system_time
    assert outcome.result.duration > used * 2


def test_a_limit_that_is_no_number_ends_no_other_command(run: Run) -> None:
    bad: list[Outcome] = []
    outcome = run("sleep 0.2; echo still", meanwhile=lambda: bad.append(run("true", cpus=float("nan"))))
    assert bad[0].result.setup_failed
    assert outcome.lines == ["still"], outcome


def groups_of(sandbox: Sandbox) -> list[Path]:
    """The control groups that its helper has made; others may run beside this one."""
    assert sandbox._pid
    return [path for path in Path("/sys/fs/cgroup").glob("**/builder/*") if path.name.startswith(f"{sandbox._pid}-")]


def test_groups_are_removed(run: Run, sandbox: Sandbox) -> None:
    needs_groups(run("true", memory=64 << 20, cpus=1.0).result)
    assert not groups_of(sandbox)


def test_a_group_that_is_still_in_use(busybox: Path, overlay: Callable[[], tuple[str, str]]) -> None:
    """The helper does not wait for it before its answer, nor gives it up."""
    with Sandbox() as own, subprocess.Popen(["sleep", "10"]) as stranger:

        def join(stream: int, data: bytes) -> None:
            for group in groups_of(own):
                (group / "cgroup.procs").write_text(str(stranger.pid))

        upper, work = overlay()
        shell = ("/bin/sh", "-c", "echo here; sleep 0.3")
        command = Command(shell, lowers=(str(busybox),), upper=upper, work=work, environment=(PATH,), memory=64 << 20)
        needs_groups(own.run(command, join))
        left = groups_of(own)
        assert left
        time.sleep(0.2)
        stranger.kill()
        stranger.wait()
        own.close()
        assert not [group for group in left if group.exists()]


def test_groups_of_what_is_interrupted(busybox: Path, overlay: Callable[[], tuple[str, str]]) -> None:
    with Sandbox() as own:
        made: list[Path] = []

        def close(stream: int, data: bytes) -> None:
            made.extend(groups_of(own))
            own.close()

        upper, work = overlay()
        shell = ("/bin/sh", "-c", "echo here; sleep 60")
        command = Command(shell, lowers=(str(busybox),), upper=upper, work=work, environment=(PATH,), memory=64 << 20)
        result = own.run(command, close)
        needs_groups(result)
        assert result.cancelled
        assert made
        assert not [group for group in made if group.exists()]


def test_a_step_costs_milliseconds(
    run: Run, sandbox: Sandbox, busybox: Path, overlay: Callable[[], tuple[str, str]]
) -> None:
    def step() -> float:
        upper, work = overlay()
        command = Command(("/bin/true",), lowers=(str(busybox),), upper=upper, work=work, environment=(PATH,))
        started = time.perf_counter()
        sandbox.run(command, lambda stream, data: None)
        return time.perf_counter() - started

    assert any(step() < 0.1 for _ in range(100))  # whatever else the machine does
