"""Eight commands at once on one store: nothing is corrupted, nothing that is used goes, nobody waits for ever."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.archives import archive
from tests.support.builds import Cli, Done, busybox_context, context, needs_sandbox
from tests.support.registry import FakeRegistry

ROUNDS = 3


@pytest.mark.slow
@needs_sandbox
@pytest.mark.timeout(240)
def test_builds_pulls_prunes_and_removals(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "store")
    shared = busybox_context(tmp_path / "shared", "RUN echo shared > /s\nRUN sleep 0.1; echo more >> /s\n")
    apart = busybox_context(tmp_path / "apart", "COPY data /data\nRUN cat /data > /copy\n")
    (apart / "data").write_text("0")
    failures: list[str] = []
    began = time.monotonic()

    def repeat(words: Callable[[int], list[str]], *, may_fail: tuple[str, ...] = ()) -> None:
        for turn in range(ROUNDS):
            done: Done = cli.spawn(*words(turn), seconds=120)
            if done.status and not any(text in done.err for text in may_fail):
                failures.append(f"{words(turn)}: {done.err}{done.out.decode()}")

    def edit_and_build(turn: int) -> list[str]:
        (apart / "data").write_text(str(turn))
        return ["build", "-t", "apart", str(apart)]

    with FakeRegistry() as registry:
        layers = tuple(archive((f"f{n}", {"data": os.urandom(1 << 20)})) for n in range(3))
        registry.add_image("app", "1", layers=layers)
        name = f"{registry.host}/app:1"
        based = context(tmp_path / "based", f"FROM {name}\nCOPY x /x\n", x="x")
        gone = ("no such image", "a running build uses the image")
        with ThreadPoolExecutor(8) as pool:
            tasks = [
                pool.submit(repeat, lambda turn: ["build", "-t", "one", str(shared)]),
                pool.submit(repeat, lambda turn: ["build", "-t", "two", "--no-cache", str(shared)]),
                pool.submit(repeat, edit_and_build),
                pool.submit(repeat, lambda turn: ["build", "-t", "based", str(based)]),
                pool.submit(repeat, lambda turn: ["pull", name]),
                pool.submit(repeat, lambda turn: ["prune", "-a", "-f"]),
                pool.submit(repeat, lambda turn: ["rmi", ("one", name, "based")[turn]], may_fail=gone),
                pool.submit(repeat, lambda turn: ["fsck", "-n"]),
            ]
            for task in tasks:
                task.result()
        assert failures == []
        assert time.monotonic() - began < 120
        document = json.loads(cli.spawn("fsck", "-n", "--deep", "--format", "json").out)
        assert [problem for problem in document["problems"] if problem["severity"] != "leftover"] == []
        for tag, source in (("one", shared), ("apart", apart), ("based", based)):
            cli.build("-t", tag, source)
    assert cli.files("one")["s"].content == b"shared\nmore\n"
    assert cli.files("apart")["copy"].content == str(ROUNDS - 1).encode()
    assert cli.files("based").keys() >= {"f0", "f1", "f2", "x"}
    assert cli.leftovers() == []
