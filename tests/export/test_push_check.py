"""Whether an image may be pushed, asked while its first command runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.config import Config
from builder.errors import Interrupted, PlanError
from builder.export.push_check import PushCheck
from builder.oci import reference
from builder.registry.transport import Session
from tests.support.builds import BASE, Cli, busybox_context, context, needs_sandbox
from tests.support.registry import FakeRegistry

FOREVER = "RUN while true; do sleep 1; done\n"
REFUSED = "refuses access to"


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as running:
        yield running


@pytest.fixture
def closed_registry() -> Iterator[FakeRegistry]:
    """One that everybody may pull from."""
    with FakeRegistry(auth="token", users={"somebody": "else"}) as running:
        yield running


def asked(*names: str) -> tuple[PushCheck, list[str]]:
    """A check that has ended, and how often it has refused."""
    refused: list[str] = []
    check = PushCheck(map(reference.parse, names), lambda: Session(Config(), {}), lambda: refused.append("once"))
    check.begin()
    wait_for_check()
    return check, refused


def wait_for_check() -> None:
    for thread in threading.enumerate():
        if thread.name == "push-check":
            thread.join(20)
            assert not thread.is_alive()


def test_each_repository_is_asked_once_and_nothing_is_left_there(registry: FakeRegistry) -> None:
    check, refused = asked(f"{registry.host}/a:1", f"{registry.host}/a:2", f"{registry.host}/b/c:1")
    assert (check.error, refused, registry.uploads) == (None, [], {})
    assert sorted(request.partition("?")[0] for request in registry.requests if request.startswith("POST")) == [
        "POST /v2/a/blobs/uploads/", "POST /v2/b/c/blobs/uploads/",
    ]  # fmt: skip
    assert registry.count("DELETE .*/blobs/uploads/.*") == 2


def test_a_refusal(registry: FakeRegistry, closed_registry: FakeRegistry) -> None:
    check, refused = asked(f"{registry.host}/a:1", f"{closed_registry.host}/a:1", f"{registry.host}/b:1")
    assert refused == ["once"]
    assert f"{REFUSED} {closed_registry.host}/a" in str(check.error)
    assert check.cause_of(Interrupted("the build was interrupted")) is check.error
    interrupt = KeyboardInterrupt()
    assert check.cause_of(interrupt) is interrupt
    assert registry.count("POST /v2/b/.*") == 0


@pytest.mark.parametrize("status", [404, 405, 500, 429])
def test_what_is_no_refusal(registry: FakeRegistry, status: int) -> None:
    registry.faults.statuses = [(status, {})]
    check, refused = asked(f"{registry.host}/a:1", "127.0.0.1:1/a:1", f"{registry.host}/b:1")
    assert (check.error, refused) == (None, [])
    assert registry.count("POST /v2/b/.*") == 1
    error = PlanError("another")
    assert check.cause_of(error) is error


def test_a_check_that_was_closed(registry: FakeRegistry) -> None:
    check = PushCheck([reference.parse(f"{registry.host}/a")], lambda: Session(Config(), {}), lambda: None)
    check.close()
    check.begin()
    wait_for_check()
    assert registry.requests == []


# --- builds


@needs_sandbox
def test_a_build_ends_when_it_may_not_push(cli: Cli, closed_registry: FakeRegistry, tmp_path: Path) -> None:
    name = f"{closed_registry.host}/app:1"
    directory = busybox_context(tmp_path / "context", "RUN true\n" + FOREVER)
    early = cli.spawn("build", "--progress", "plain", "-t", name, "--push", directory)
    late = cli("build", "-t", name, "--push", context(tmp_path / "small", "FROM scratch\nLABEL a=b\n"))
    (error,) = (line for line in late.err.splitlines() if line.startswith("error: "))
    assert f"{REFUSED} {closed_registry.host}/app" in error
    assert early.status == late.status == 1
    assert early.err.count("error: ") == 1
    assert error in early.err
    assert early.err.partition("error: ")[2] == late.err.partition("error: ")[2]
    assert cli.leftovers() == []


@needs_sandbox
def test_a_cached_build_asks_nothing(cli: Cli, registry: FakeRegistry, tmp_path: Path) -> None:
    name = f"{registry.host}/app:1"
    directory = busybox_context(tmp_path / "context", "RUN sleep 1\n")
    cli.build("-t", name, "--push", directory)
    assert registry.uploads == {}
    registry.requests.clear()
    cli.build("-t", name, "--push", directory)
    assert registry.count("(POST|PUT|DELETE) .*") == 0
    assert BASE in (directory / "Dockerfile").read_text()
