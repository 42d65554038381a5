"""Kept failed steps as part of the store: what they take, when they go, and what a power failure makes of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.errors import StoreError
from builder.store.failed import Cleared, FailedStates
from builder.store.store import Store
from tests.support.builds import Cli
from tests.support.checks import CHECK, REPAIR, run

STATE = b"\x81\xa1a\x01"  # MessagePack: {"a": 1}


@pytest.fixture
def store(cli: Cli) -> Store:
    return Store(str(cli.root))


@pytest.fixture
def states(store: Store) -> FailedStates:
    return FailedStates(store.root, store.temporary)


def keep(store: Store, build: str, size: int = 1000, state: bytes = STATE) -> Path:
    """Keep a step that wrote a file; its directory."""
    upper = os.path.join(store.temporary, "upper")
    os.makedirs(f"{upper}/deep")
    Path(upper, "deep/file").write_bytes(bytes(size))
    states = FailedStates(store.root, store.temporary)
    states.keep(build, "project", state, upper)
    (name,) = (name for name in states.names() if f"-{build}-" in name)
    return Path(states.path, name)


def set_time(path: Path, seconds: float) -> Path:
    return path.rename(path.with_name(f"{int(seconds * 1000):012x}{path.name[12:]}"))


def usage(cli: Cli) -> dict[str, dict[str, str]]:
    rows = map(json.loads, cli("du", "--format", "json").out.decode().splitlines())
    return {row["Type"]: row for row in rows}


def test_another_kind_of_process_is_not_shown_what_it_cannot_read(store: Store, states: FailedStates) -> None:
    """Overlayfs's marks are others inside a user namespace: what a step deleted would be there."""
    kept = keep(store, "aa")
    with states.hold() as (build, _, _):
        assert build == "aa"
    (upper,) = (path for path in kept.iterdir() if path.is_dir())
    upper.rename(kept / "upper-user-0")
    with pytest.raises(StoreError, match="other privileges"), states.hold():
        pass


def test_du_counts_them(cli: Cli, store: Store) -> None:
    assert usage(cli)["Failed Steps"] == {
        "Type": "Failed Steps", "TotalCount": "0", "Active": "0", "Size": "0B", "Reclaimable": "0B",
    }  # fmt: skip
    keep(store, "aa", 996)
    keep(store, "bb", 996)
    row = usage(cli)["Failed Steps"]
    assert (row["TotalCount"], row["Size"], row["Reclaimable"]) == ("2", "2kB", "2kB (100%)")


def test_du_counts_beginnings_of_blobs(cli: Cli, store: Store) -> None:
    os.makedirs(store.partial)
    Path(store.partial, "0" * 64).write_bytes(bytes(3000))
    row = usage(cli)["Other"]
    assert (row["TotalCount"], row["Size"], row["Reclaimable"]) == ("1", "3kB", "3kB (100%)")
    assert b"Total reclaimed space: 3kB" in cli("prune", "-f").out
    assert usage(cli)["Other"]["Size"] == "0B"


@pytest.mark.parametrize("everything", [(), ("-a",)])
def test_prune_removes_them_and_says_so(cli: Cli, store: Store, states: FailedStates, everything: tuple[str]) -> None:
    keep(store, "aa", 996)
    assert b"Deleted" not in cli("image", "prune", "-f", *everything).out
    assert len(states.names()) == 1
    out = cli("prune", "-f", *everything).out
    assert b"Deleted failed steps: 1\n" in out
    assert b"Total reclaimed space: 1kB\n" in out
    assert states.names() == []


def test_prune_asks_about_them(cli: Cli, store: Store, states: FailedStates) -> None:
    keep(store, "aa")
    asked = cli("prune", stdin=b"n\n")
    assert asked.status == 1
    assert b"  - all kept states of failed steps\n" in asked.out
    assert states.builds() == ["aa"]


def test_prune_with_a_time_keeps_later_ones(cli: Cli, store: Store, states: FailedStates) -> None:
    set_time(keep(store, "aa"), 1_600_000_000)
    keep(store, "bb")
    cli("prune", "-f", "--filter", "until=24h")
    assert states.builds() == ["bb"]


def test_one_that_somebody_looks_at_stays(store: Store, states: FailedStates) -> None:
    keep(store, "aa")
    keep(store, "bb")
    with states.hold("bb"):
        assert states.clear().count == 1
        assert states.builds() == ["bb"]
    assert states.clear() == Cleared(1, 1000 + len(STATE))


def test_what_the_caller_misses_is_no_matter_of_the_state(store: Store, states: FailedStates, tmp_path: Path) -> None:
    keep(store, "aa")
    with pytest.raises(FileNotFoundError), states.hold():
        (tmp_path / "missing").read_bytes()
    assert states.clear().count == 1  # it is let go of


def test_one_that_was_removed_just_now(store: Store, states: FailedStates, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [keep(store, "aa").name]
    states.clear()
    monkeypatch.setattr(states, "names", lambda: names)
    with pytest.raises(StoreError, match="the failed step was removed just now"), states.hold():
        pytest.fail("there is none")


def test_one_that_cannot_be_read(store: Store, states: FailedStates) -> None:
    path = keep(store, "aa") / "state"
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match="the state of the step cannot be read: Is a directory"), states.hold():
        pytest.fail("there is none")


def lose_state(path: Path) -> None:
    (path / "state").unlink()


def zero_state(path: Path) -> None:
    (path / "state").write_bytes(bytes(100))


def empty_state(path: Path) -> None:
    os.truncate(path / "state", 0)


def lose_files(path: Path) -> None:
    (path / "upper").rename(path / "elsewhere")


@pytest.mark.parametrize("harm", [lose_state, zero_state, empty_state, lose_files])
def test_fsck_removes_what_is_broken(cli: Cli, store: Store, harm: Callable[[Path], None]) -> None:
    good, broken = keep(store, "aa"), keep(store, "bb")
    assert run(cli).counts["failed"] == 2
    assert run(cli).problems == ()
    harm(broken)
    (problem,) = run(cli, CHECK).problems
    assert (problem.area, problem.severity, problem.place) == ("failed", "leftover", str(broken))
    (problem,) = run(cli, REPAIR).problems
    assert problem.repair == "removed"
    assert run(cli).problems == ()
    assert [path.name for path in good.parent.iterdir()] == [good.name]


def test_fsck_sets_aside_what_is_none(cli: Cli, store: Store) -> None:
    (keep(store, "aa").parent / "strange").mkdir()
    assert len(run(cli).remaining()) == 1
    assert not run(cli, REPAIR).remaining()
    assert run(cli).problems == ()
