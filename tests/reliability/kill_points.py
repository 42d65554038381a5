"""Kill the builder at random moments, and look at the store after each: `python -m tests.reliability.kill_points 200`.

Each point is one command (mostly a build; also a pull, a prune, a removal) that gets `kill -9` after a random time.
Then
- `builder fsck -n` finds nothing worse than leftovers;
- every step that the killed build had finished is cached for the next one, which gives the whole image;
- nothing is left of the killed one: no temporary file, lease, process, mount or control group.
Needs root, overlayfs and a static busybox. Prints a line for each point that fails, and a summary.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.support.archives import archive
from tests.support.builds import BASE, Cli, busybox_context, obstacle
from tests.support.registry import FakeRegistry

DOCKERFILE = """\
COPY big /big
RUN for i in 1 2 3 4 5 6 7 8; do echo $i > /f$i; done
RUN --mount=type=cache,target=/cache echo more >> /cache/log; cat /big > /copy
FROM base AS other
RUN mkdir /out; for i in 1 2 3 4; do cat /bin/busybox > /out/$i; done
COPY second /second
RUN rm /out/3; mv /second /out/second
FROM base
COPY --from=1 /f3 /copy /from/
COPY --from=other /out /out
RUN rm /out/1; ln /out/2 /out/22
"""
STAGES = BASE + "FROM base\n" + DOCKERFILE
_NAME = re.compile(r"^#(\d+) (\[.*)$", re.MULTILINE)
_DONE = re.compile(r"^#(\d+) (DONE|CACHED)", re.MULTILINE)
_GROUPS = ("/sys/fs/cgroup/builder", "/sys/fs/cgroup/memory/builder", "/sys/fs/cgroup/cpu/builder")


class Points:
    """A store and what is done to it."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.cli = Cli(directory / "store")
        self.context = busybox_context(directory / "context")
        (self.context / "Dockerfile").write_text(STAGES)
        self.failures: list[str] = []
        self.kinds: Counter[str] = Counter()
        self.killed = 0
        self._limits: tuple[str, ...] = ()
        self._took = dict.fromkeys(("pull", "prune", "rmi"), 0.5)  # seconds, as far as was seen lately

    def prepare(self) -> None:
        """Find out how long a build takes here, and whether it can have a control group."""
        self._change()
        limited = self.cli.spawn("build", "--memory", "1g", "-t", "x", self.context)
        self._limits = ("--memory", "1g") if limited.status == 0 else ()
        self._change()
        started = time.monotonic()
        self._build()
        self._took["build"] = time.monotonic() - started

    def _change(self) -> None:
        for name, size in (("big", 1 << 21), ("second", 1 << 16)):
            if self.random.random() < 0.7 or not (self.context / name).exists():
                (self.context / name).write_bytes(self.random.randbytes(size))

    def _build(self) -> str:
        done = self.cli.spawn("build", "--progress", "plain", *self._limits, "-t", "x", self.context, seconds=120)
        assert done.status == 0, done.err
        return done.err

    def point(self, number: int, registry: FakeRegistry) -> None:
        """Kill one command, and look."""
        kind = self.random.choices(["build", "pull", "prune", "rmi"], [7, 1, 1, 1])[0]
        self.kinds[kind] += 1
        self._change()
        moment = self.random.uniform(0, self._took[kind] * 1.1)
        if kind == "pull":
            layer = archive(("file", {"data": self.random.randbytes(3 << 20)}))
            registry.add_image("app", "1", layers=(layer, archive((f"f{number}", {"data": b"x"}))))
            words = ["pull", f"{registry.host}/app:1"]
        else:
            build = ["build", "--progress", "plain", *self._limits, "-t", "x", str(self.context)]
            words = {"build": build, "prune": ["prune", "-a", "-f"], "rmi": ["rmi", "x"]}[kind]
        started = time.monotonic()
        process = self.cli.start(*words, stdout=subprocess.DEVNULL)
        try:
            _, log = process.communicate(timeout=moment)
            self._took[kind] = time.monotonic() - started
        except subprocess.TimeoutExpired:
            process.kill()
            _, log = process.communicate(timeout=30)
            self.killed += 1
            self._took[kind] *= 1.05  # it may take longer by now
        try:
            self._look(log.decode() if kind == "build" else "")
        except AssertionError as error:
            self.failures.append(f"point {number}: {kind} killed after {moment:.3f} s: {error}")
            print(self.failures[-1], flush=True)

    def _look(self, log: str) -> None:
        done = self.cli.spawn("fsck", "-n", "--format", "json")
        assert done.out, done.err
        document = json.loads(done.out)
        worse = [problem for problem in document["problems"] if problem["severity"] != "leftover"]
        assert not worse, worse
        finished = steps(log)
        again = self._build()
        cached = {name for name, word in steps(again).items() if word == "CACHED"}
        assert finished.keys() <= cached, f"ran again: {finished.keys() - cached}"
        files = self.cli.files("x")
        assert files["from/copy"].content == (self.context / "big").read_bytes(), "/from/copy is wrong"
        assert files["out/second"].content == (self.context / "second").read_bytes(), "/out/second is wrong"
        assert files["out/22"].content == files["out/2"].content, "/out/22 is wrong"
        assert not {"out/1", "out/3"} & files.keys(), "removed files are there"
        assert self.cli.leftovers() == [], self.cli.leftovers()
        assert self._leases() == [], self._leases()
        assert str(self.cli.root) not in Path("/proc/self/mountinfo").read_text(), "something is mounted"

    def finish(self) -> None:
        """Control groups go with the next step that needs one, whatever build it is of."""
        if self._limits:
            done = self.cli.spawn("build", "--no-cache", *self._limits, "-t", "x", self.context, seconds=120)
            if done.status or not eventually(lambda: not dead_groups()):
                self.failures.append(f"control groups are left: {dead_groups()} {done.err}")
                print(self.failures[-1], flush=True)

    def _leases(self) -> list[str]:
        """The leases that are left. A dead one stays until the next collection."""
        done = self.cli.spawn("prune", "-f")
        assert done.status == 0, done.err
        return [name for name in os.listdir(self.cli.root / "leases") if name != "gate"]


def steps(log: str) -> dict[str, str]:
    """The steps that a plain log says are done, by name, each with DONE or CACHED. What only exports does not count."""
    names = dict(_NAME.findall(log))
    return {names[number]: word for number, word in _DONE.findall(log) if number in names}


def dead_groups() -> list[str]:
    """Control groups of helpers that are gone."""
    found = []
    for parent in _GROUPS:
        if os.path.isdir(parent):
            for name in os.listdir(parent):
                owner = name.partition("-")[0]
                if owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
                    found.append(f"{parent}/{name}")
    return found


def eventually(condition: Callable[[], bool], seconds: float = 5) -> bool:
    """Whether something becomes true soon."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def run(count: int, seed: int) -> Points:
    """Try `count` points in a new store."""
    with tempfile.TemporaryDirectory() as directory, FakeRegistry() as registry:
        points = Points(Path(directory), seed)
        points.prepare()
        for number in range(count):
            points.point(number, registry)
        points.finish()
        return points


def main() -> int:
    """The script."""
    if why := obstacle():
        print(why)
        return 2
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    print(f"{count} points, seed {seed}")
    points = run(count, seed)
    kinds = ", ".join(f"{kind} {number}" for kind, number in points.kinds.most_common())
    print(f"{count} points ({kinds}), {points.killed} of them killed, {len(points.failures)} failed")
    return 1 if points.failures else 0


if __name__ == "__main__":
    sys.exit(main())
