"""The policy of builder.toml: what builds that write layers remove of the build cache at their end."""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from builder.filesystem.locks import exclusive_or_not
from builder.store import trim as trimming
from builder.store.leases import frozen
from builder.store.limit import Limit
from builder.store.store import Store
from builder.store.trim import trim
from builder.store.usage import usage
from tests.support.builds import Cli, Done, busybox_context, context, needs_sandbox
from tests.support.checks import database
from tests.support.mounts import in_use, make_mount


def configure(cli: Cli, text: str) -> None:
    Path(cli.environ["BUILDER_CONFIG"]).write_text(text)


def noise(seed: str) -> bytes:
    return random.Random(seed).randbytes(20_000)


def build(cli: Cli, name: str, *files: str) -> Done:
    """Build a layer of some 20 kB for each file, for an archive: no image keeps them. An hour has gone by since the
    last one."""
    directory = context(
        cli.root.parent / name,
        "FROM scratch\n" + "".join(f"COPY {file} /\n" for file in files),
        **{file: noise(name + file) for file in files},
    )
    if (cli.root / "cache.db").exists():
        database(cli, "UPDATE steps SET used = used - 3600")
    return cli.build("-o", f"type=oci,dest={cli.root.parent / 'out.tar'}", directory)


def taken(cli: Cli) -> int:
    store = Store(str(cli.root))
    try:
        rows = {row.kind: row for row in usage(store)}
        return rows["Build Cache"].size + rows["Unpacked Layers"].reclaimable
    finally:
        store.close()


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        ("", "abc"),
        ("[gc]", "abc"),
        ('max-used-space = "50KB"', "bc"),
        ("max-used-space = 50_000", "bc"),
        ('max-used-space = "1g"', "abc"),
        ('reserved-space = "25 KiB"', "c"),
        ('min-free-space = "999999t"\nreserved-space = "50k"', "bc"),
        ('min-free-space = "1b"', "abc"),
        ('keep-duration = "90m"', "bc"),
        ("keep-duration = 5_400", "bc"),
        ('keep-duration = "1h30m"\nmax-used-space = "100k"', "abc"),
        ('keep-duration = "90m"\nmax-used-space = "1"', "bc"),
        ('max-used-space = "1"', "c"),
    ],
)
def test_a_build_that_writes_layers_keeps_the_cache_within_the_policy(cli: Cli, policy: str, left: str) -> None:
    """What was not used for longest goes first, and nothing of that build."""
    build(cli, "a", "1")
    build(cli, "b", "1")
    configure(cli, policy if policy.startswith("[") else f"[gc]\n{policy}\n")
    done = build(cli, "c", "1")
    assert done.status == 0
    assert "WARNING" not in done.err
    assert abs(taken(cli) - 20_000 * len(left)) < 3_000
    configure(cli, "")
    assert "".join(name for name in "abc" if build(cli, name, "1").cached()) == left


def test_what_the_build_found_stays(cli: Cli) -> None:
    """Whatever the policy: the layers of this build are more than it allows."""
    build(cli, "a", "1", "2", "3")
    build(cli, "b", "1")
    configure(cli, '[gc]\nmax-used-space = "1"\n')
    assert build(cli, "a", "1", "2", "3", "4").cached() == 3
    assert taken(cli) >= 80_000
    configure(cli, "")
    assert build(cli, "a", "1", "2", "3", "4").cached() == 4
    assert build(cli, "b", "1").cached() == 0


def test_a_cached_build_removes_nothing_and_reads_no_policy(cli: Cli) -> None:
    build(cli, "a", "1")
    build(cli, "b", "1")
    configure(cli, "this is no TOML: gc")
    done = build(cli, "b", "1")
    assert (done.status, done.cached()) == (0, 1)
    assert "builder.toml" not in done.err
    assert build(cli, "a", "1").cached() == 1


@pytest.mark.parametrize(
    "policy", ['max-used-space = "20%"', "max_used_space = 1", "min-free-space = -1", 'keep-duration = "2d"']
)
def test_a_wrong_policy_is_warned_of(cli: Cli, policy: str) -> None:
    configure(cli, f"[gc]\n{policy}\n")
    done = cli.build(context(cli.root.parent / "context", "FROM scratch\nCOPY a /\n", a="a"))
    assert done.status == 0
    assert "the build cache was not limited: " in done.err
    assert "builder.toml: wrong setting: " in done.err


def test_sizes_of_unpacked_layers_are_found_out_once(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    build(cli, "a", "1")
    build(cli, "b", "1")
    store = Store(str(cli.root))
    layers = {holding.holds for holding in store.database.holdings()}
    for layer in layers:
        store.unpacked.directories([layer])
    asked: list[str] = []

    def tree_size(path: str) -> int:
        asked.append(path)
        return 20_000

    monkeypatch.setattr(trimming, "tree_size", tree_size)
    for limit, left in ((10**6, 2), (85_000, 2), (50_000, 1), (50_000, 1)):
        trim(store, Limit(max_used=limit), None)
        assert len({holding.holds for holding in store.database.holdings()}) == left
    assert len(asked) == 2
    store.close()


@pytest.mark.parametrize(
    ("policy", "used", "left"),
    [
        ('max-used-space = "105KB"', "", "12"),
        ('max-used-space = "85KB"', "", "1"),
        ('max-used-space = "85KB"', "2", "2"),
        ('max-used-space = "65KB"', "", ""),
        ('keep-duration = "36h"', "", "1"),
        ('keep-duration = "36h"', "2", "12"),
        ('keep-duration = "90h"\nmax-used-space = "1"', "", "12"),
    ],
)
def test_cache_mounts_count_and_go(cli: Cli, policy: str, used: str, left: str) -> None:
    """In the order of their last use, with the records of the cache, unless they are used now."""
    build(cli, "a", "1", "2")
    for number in (1, 2):
        mount = make_mount(cli.root, str(number) * 32, "npm", used=time.time() - number * 86400, x=b"x" * 20_000)
    configure(cli, f"[gc]\n{policy}\n")
    with in_use(mount) if used else nullcontext():
        build(cli, "b", "1")
    assert "".join(sorted(path.name[0] for path in (cli.root / "mounts").iterdir())) == left


@needs_sandbox
def test_cache_mounts_that_the_build_used_stay(cli: Cli) -> None:
    directory = busybox_context(cli.root.parent / "context", "RUN --mount=type=cache,target=/c echo x > /c/f\n")
    old = make_mount(cli.root, "1" * 32, "npm", x="x")
    configure(cli, '[gc]\nmax-used-space = "1"\n')
    assert cli.build(directory).status == 0
    (mount,) = (cli.root / "mounts").iterdir()
    assert mount != old
    assert (mount / "data/f").read_text() == "x\n"


def test_sizes_of_cache_mounts_are_found_out_once_after_a_use(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = make_mount(cli.root, "1" * 32, "npm", x="x")
    store = Store(str(cli.root))
    asked: list[str] = []

    def tree_size(path: str) -> int:
        asked.append(path)
        return 20_000

    monkeypatch.setattr(trimming, "tree_size", tree_size)
    for used in (1, 2):
        os.utime(mount / "lock", (used, used))
        for _ in range(2):
            trim(store, Limit(max_used=10**9), None)
            assert len(asked) == used
    os.utime(mount / "lock", (3, 3))
    with in_use(mount):  # it counts with what it had
        assert trim(store, Limit(max_used=10_000), None) == 0
    assert len(asked) == 2
    assert trim(store, Limit(max_used=10_000), None) == 1
    assert not mount.exists()
    store.close()


@pytest.mark.parametrize("what", ["gate", "other"])
def test_nobody_is_waited_for_for_long(cli: Cli, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Another collection, or another build that does this very thing. The next build does it."""
    build(cli, "a", "1")
    monkeypatch.setattr(trimming, "_PATIENCE", 0.02)
    store = Store(str(cli.root))
    holding = frozen(store.leases) if what == "gate" else exclusive_or_not(str(cli.root / "tmp" / "trim.lock"))
    with holding:
        assert not trim(store, Limit(max_used=1), None)
    assert trim(store, Limit(max_used=1), None)
    store.close()


def test_a_collection_that_ends_soon_is_waited_for(cli: Cli) -> None:
    build(cli, "a", "1")
    store = Store(str(cli.root))
    there, over = threading.Event(), threading.Event()

    def collect() -> None:
        with frozen(store.leases):
            there.set()
            over.wait(0.1)

    thread = threading.Thread(target=collect)
    thread.start()
    there.wait()
    assert trim(store, Limit(max_used=1), None)
    thread.join()
    store.close()


def test_what_nobody_needs_goes_where_little_is_free(cli: Cli) -> None:
    build(cli, "a", "1")
    store = Store(str(cli.root))
    store.layout.put(noise("nobody's"))
    before = store.layout.digests()
    assert trim(store, Limit(max_used=10**9), None) == 0
    assert store.layout.digests() == before
    assert trim(store, Limit(min_free=1 << 60, reserved=10**9), None) == 0
    assert len(store.layout.digests()) == 1
    store.close()
