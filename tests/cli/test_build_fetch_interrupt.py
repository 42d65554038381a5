"""Builds that are interrupted while several of their steps fetch something, none of which goes on to its end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.archives import archive
from tests.support.builds import Cli, Log, context, reading
from tests.support.registry import FakeRegistry, Faults, digest_of

LAYERS = [archive((name, {"data": bytes(1_000_000)})) for name in ("one", "two")]
SLOW = 0.05
"""Seconds between pieces of 1000 bytes: a layer takes most of a minute."""
SOON = 5.0


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        for number, layer in enumerate(LAYERS):
            registry.add_image(f"app{number}", "1", layers=(layer,))
        registry.faults = Faults(only="|".join(map(digest_of, LAYERS)), drip=SLOW)
        yield registry


def stages(*instructions: str) -> str:
    """A Dockerfile whose stages each have one of these instructions."""
    made = "".join(f"FROM scratch AS s{number}\n{one}\n" for number, one in enumerate(instructions))
    return made + "FROM scratch\n" + "".join(f"COPY --from=s{number} / /\n" for number in range(len(instructions)))


def of_urls(registry: FakeRegistry) -> str:
    return stages(
        *(f"ADD http://{registry.host}/v2/app{n}/blobs/{digest_of(layer)} /" for n, layer in enumerate(LAYERS))
    )


def of_images(registry: FakeRegistry) -> str:
    return stages(*(f"COPY --from={registry.host}/app{number}:1 / /" for number in range(len(LAYERS))))


def interrupt(log: Log) -> None:
    """Interrupt a build, which then ends soon, and says so once."""
    began = time.monotonic()
    log.process.send_signal(signal.SIGINT)
    assert log.process.wait(30) == 130
    assert time.monotonic() - began < SOON
    log.thread.join()
    assert "Traceback" not in log.text
    assert len([line for line in log.text.splitlines() if line.startswith("error: ")]) == 1


def wait_for_requests(registry: FakeRegistry) -> None:
    deadline = time.monotonic() + 20
    while not all(any(digest_of(layer) in request for request in registry.requests) for layer in LAYERS):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)  # some of it arrives


@pytest.mark.parametrize("dockerfile", [of_urls, of_images])
def test_downloads(cli: Cli, tmp_path: Path, registry: FakeRegistry, dockerfile: Callable[[FakeRegistry], str]) -> None:
    directory = context(tmp_path / "context", dockerfile(registry))
    with reading(cli.start("build", "--jobs", "2", "-t", "x", directory)) as log:
        wait_for_requests(registry)
        interrupt(log)
    assert cli.leftovers() == []


def test_what_another_build_fetches(cli: Cli, tmp_path: Path, registry: FakeRegistry) -> None:
    directory = context(tmp_path / "context", of_images(registry))
    with reading(cli.start("build", "--jobs", "2", directory)) as first:
        wait_for_requests(registry)
        with reading(cli.start("build", "--jobs", "2", "-t", "x", directory)) as second:
            second.wait_for("waiting for another build that fetches or unpacks sha256:")
            interrupt(second)
        assert first.process.poll() is None
        interrupt(first)


def test_repositories(cli: Cli, tmp_path: Path) -> None:
    """Of git no process stays either."""
    mark = tmp_path / "fetching"
    mark.mkdir()
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git").write_text(
        f'#!/bin/sh\nmkdir {mark}/$$\ntrap "rmdir {mark}/$$; exit 1" TERM\nsleep 60 & wait $!\n'
    )
    (programs / "git").chmod(0o755)
    cli.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
    directory = context(tmp_path / "context", stages(*(f"ADD https://example.test/{n}.git /" for n in "ab")))
    with reading(cli.start("build", "--jobs", "2", directory)) as log:
        deadline = time.monotonic() + 20
        while len(list(mark.iterdir())) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        interrupt(log)
    assert list(mark.iterdir()) == []
    assert cli.leftovers() == []
