"""What commands cost: seconds, processor time, and the memory of all their processes together.

Memory is the proportional set size (a page that several processes share counts once), summed over the whole tree of
processes and sampled. A peak that falls between two samples is missed unless one process alone reached it, which the
kernel remembers as long as the process lives. Sampling costs some percent of a processor.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import msgspec

INTERVAL = 0.02
"""Seconds between two looks at the memory."""

Command = Sequence[str]


class Failed(Exception):
    """A command failed, or what it made is wrong."""


class Usage(msgspec.Struct, frozen=True):
    """`seconds` from the start of the first command to the end of the last; `cpu` seconds (user and system) of the
    commands with all processes that they waited for; `peak` the most memory that all had at once, in bytes (0: nobody
    looked)."""

    seconds: float
    cpu: float
    peak: int = 0


def run(command: Command, environ: Mapping[str, str], *, cwd: str | None = None) -> Usage:
    """Run one command to its end, with nothing looking on. Raises Failed, which holds the end of its output."""
    return measure([[command]], environ, cwd=cwd)


def measure(
    plans: Sequence[Sequence[Command]],
    environ: Mapping[str, str],
    *,
    watch: bool = False,
    daemons: Sequence[int] = (),
    cwd: str | None = None,
) -> Usage:
    """Run plans side by side, the commands of each one after the other. `watch` their memory and that of the daemons
    with these process ids. Raises Failed."""
    used: list[float] = []
    failures: list[Failed] = []
    roots = list(daemons)
    memory = _Memory(roots) if watch else contextlib.nullcontext()

    def go(plan: Sequence[Command]) -> None:
        try:
            used.extend(_wait_for(command, environ, cwd, roots) for command in plan)
        except Failed as failure:
            failures.append(failure)

    with memory as watched:
        started = time.perf_counter()
        others = [threading.Thread(target=go, args=(plan,)) for plan in plans[1:]]
        for thread in others:
            thread.start()
        go(plans[0])
        for thread in others:
            thread.join()
        seconds = time.perf_counter() - started
    if failures:
        raise failures[0]
    return Usage(seconds, sum(used), watched.peak if watched is not None else 0)


def _wait_for(command: Command, environ: Mapping[str, str], cwd: str | None, started: list[int]) -> float:
    """The processor seconds of a command. Its process joins those that are `started`."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, env=environ, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        started.append(process.pid)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(max(0, output.seek(0, os.SEEK_END) - 300))
            end = " ".join(output.read().decode(errors="replace").split())
            raise Failed(f"{os.path.basename(command[0])} ended with status {process.returncode}: … {end}")
    return usage.ru_utime + usage.ru_stime


class _Memory:
    """Looks at the memory of some processes, to which others may come, and of all below them."""

    def __init__(self, roots: Sequence[int]) -> None:
        self.peak = 0
        self._roots = roots
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._end.wait(INTERVAL):
            processes = _below(tuple(self._roots))
            together = sum(_bytes(pid, "smaps_rollup", "Pss:") for pid in processes)
            self.peak = max(self.peak, together, *(_bytes(pid, "status", "VmHWM:") for pid in processes))


def _below(roots: Sequence[int]) -> set[int]:
    """The processes `roots` and all below them."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting.extend(children.get(pid, ()))
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                yield int(name), int(file.read().rpartition(")")[2].split()[1])


def _bytes(pid: int, file: str, key: str) -> int:
    """A figure that the kernel gives for a process; 0 for one that is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/{file}") as lines:
        for line in lines:
            if line.startswith(key):
                return int(line.split()[1]) << 10
    return 0


def calibrate() -> float:
    """Seconds for a fixed piece of work on one processor: what it varies by says how disturbed the machine was."""
    block, digest = bytes(1 << 20), hashlib.sha256()
    started = time.perf_counter()
    for _ in range(50):
        digest.update(block)
    return time.perf_counter() - started
