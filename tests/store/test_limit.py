"""A limit of the build cache: how much stays, what goes first, and what does not go."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.filesystem.compression import Compression
from builder.store import limit as limits
from builder.store.limit import Limit
from builder.store.mounts import note_use, pin_of, remove_unused, unused_mounts
from builder.store.prune import prune
from builder.store.records import StepRecord
from builder.store.room import SIZE
from builder.store.store import Store
from builder.store.usage import usage
from tests.store.test_collect import add_image, add_layer, here
from tests.support.mounts import in_use, make_mount

PLENTY = 1 << 40
NO_FREE = SIZE
"""What is free where nothing is but the reserve."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(str(tmp_path / "store"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What is free on the disk, to be changed."""
    found = [PLENTY]
    monkeypatch.setattr(limits, "free_space", lambda directory: found[0])
    return found


def add_step(store: Store, diff_id: str, used: float, *below: str, key: str = "") -> None:
    """The record of a step that made a layer upon others, last used at a time."""
    recipe = f'{{"parent":[{",".join(f"{name!r}" for name in below)}]}}'.replace("'", '"').encode()
    key = key or f"key of {diff_id}"
    store.database.add_step(StepRecord(key, diff_id, recipe, "", 0.0))
    with store.database._cursor() as connection:
        connection.execute("UPDATE steps SET used = ? WHERE key = ?", (used, key))


LAYER = 3300
"""The bytes of one layer of `noise`, and a few more."""


def noise(seed: int, size: int = 3000) -> bytes:
    """What does not get smaller when it is compressed."""
    return random.Random(seed).randbytes(size)


def taken(store: Store) -> int:
    """What `du` shows as build cache, and as unpacked layers that no image has."""
    rows = {row.kind: row for row in usage(store)}
    return rows["Build Cache"].size + rows["Unpacked Layers"].reclaimable


@pytest.mark.parametrize(
    ("limit", "used", "free", "kept"),
    [
        (Limit(max_used=10), 30, 0, 10),
        (Limit(max_used=10, reserved=5), 30, 0, 10),
        (Limit(max_used=10, reserved=20), 30, 0, 20),
        (Limit(reserved=20), 30, PLENTY, 20),
        (Limit(min_free=10), 30, 10, 30),
        (Limit(min_free=10), 30, 4, 24),
        (Limit(min_free=100), 30, 0, 0),
        (Limit(min_free=100, reserved=20), 30, 0, 20),
        (Limit(min_free=10, reserved=20), 30, 10, 30),
        (Limit(min_free=10, max_used=25), 30, 10, 25),
        (Limit(min_free=10, max_used=25), 30, 0, 20),
        (Limit(min_free=10, max_used=15), 30, 0, 15),
    ],
)
def test_how_much_a_limit_keeps(limit: Limit, used: int, free: int, kept: int) -> None:
    """As `calculateKeepBytes` in BuildKit's cache/manager.go."""
    assert limit.kept(used, free) == kept


@pytest.mark.parametrize("count", range(6))
def test_what_was_not_used_for_longest_goes_first(store: Store, count: int) -> None:
    layers = [add_layer(store, noise(number)) for number in range(5)]
    for moment, layer in enumerate([layers[3], layers[0], layers[4], layers[1], layers[2]]):
        add_step(store, layer, 1000.0 + moment)
    before = taken(store)
    pruned = prune(store, [], cache="unused", limit=Limit(max_used=max(count * LAYER, 1)))
    assert [number for number in range(5) if here(store, layers[number])] == sorted([3, 0, 4, 1, 2][5 - count :])
    assert pruned.steps == 5 - count
    assert pruned.size == before - taken(store)


def test_random_caches_keep_within_random_limits(store: Store) -> None:
    """After it no more is there than allowed, and what went was used before what stayed."""
    chance = random.Random(7)
    for turn in range(12):
        used = {}
        for number in range(8):
            layer = add_layer(store, noise(turn * 100 + number, chance.randrange(1, 9000)))
            if chance.random() < 0.5:
                store.unpacked.directories([layer])
            used[layer] = chance.random() * 1e9
            add_step(store, layer, used[layer])
            if chance.random() < 0.3:
                add_step(store, layer, used[layer] / 2, key=f"other of {layer}")
        allowed = chance.randrange(1, taken(store))
        prune(store, [], cache=chance.choice(("unused", "all")), limit=Limit(max_used=allowed))
        assert taken(store) <= allowed
        ages = {layer: here(store, layer) for layer in sorted(used, key=lambda layer: used[layer])}
        assert list(ages.values()) == sorted(ages.values())


def test_nothing_goes_that_need_not(store: Store) -> None:
    add_step(store, add_layer(store, noise(1)), 1.0)
    for limit in (Limit(max_used=taken(store)), Limit(reserved=taken(store)), Limit(min_free=PLENTY - SIZE)):
        assert prune(store, [], cache="all", limit=limit).steps == 0


def test_what_is_free_counts_with_what_nobody_needs(store: Store, free: list[int]) -> None:
    """That goes in any case, and without the reserve's room, which is taken again."""
    old, new = add_layer(store, noise(1)), add_layer(store, noise(2))
    add_step(store, old, 1.0)
    add_step(store, new, 2.0)
    free[0] = NO_FREE
    add_layer(store, noise(3))
    assert prune(store, [], cache="unused", limit=Limit(min_free=3000)).steps == 0
    add_layer(store, noise(3))
    assert prune(store, [], cache="unused", limit=Limit(min_free=LAYER)).steps == 1
    assert [here(store, layer) for layer in (old, new)] == [False, True]
    assert prune(store, [], cache="unused", limit=Limit(min_free=PLENTY, reserved=LAYER)).steps == 0
    assert prune(store, [], cache="unused", limit=Limit(min_free=PLENTY)).steps == 1


def test_a_layer_that_several_records_keep_counts_once_and_goes_with_all_of_them(store: Store) -> None:
    """When the last of them was last used for longest."""
    shared, other = add_layer(store, noise(1)), add_layer(store, noise(2))
    add_step(store, shared, 1.0)
    add_step(store, shared, 3.0, key="same layer")
    add_step(store, other, 2.0)
    prune(store, [], cache="unused", limit=Limit(max_used=LAYER))
    assert [here(store, layer) for layer in (shared, other)] == [True, False]
    assert prune(store, [], cache="unused", limit=Limit(max_used=3000)).steps == 2


def test_what_a_step_stands_on_goes_after_it(store: Store) -> None:
    """It was made before, and its use is not noted at once: without it the step would never be found again."""
    first, second, third = (add_layer(store, noise(number)) for number in range(3))
    add_step(store, first, 1.0)
    add_step(store, second, 2.0, first)
    add_step(store, third, 3.0, first, second)
    other = add_layer(store, noise(4))
    add_step(store, other, 2.5)
    for count, gone in ((3, other), (2, third), (1, second)):
        assert prune(store, [], cache="unused", limit=Limit(max_used=count * LAYER)).steps == 1
        assert not here(store, gone)


def test_a_base_image_goes_after_what_stands_on_it(store: Store) -> None:
    base, step, old = add_layer(store, noise(1)), add_layer(store, noise(2)), add_layer(store, noise(3))
    manifest = add_image(store, base)
    store.database.add_memo("image-1", "base", b"", holds=manifest.digest)
    with store.database._cursor() as connection:
        connection.execute("UPDATE memos SET used = 1")
    add_step(store, step, 3.0, base)
    add_step(store, old, 2.0)
    before = taken(store)
    prune(store, [], cache="unused", limit=Limit(max_used=before - 1))
    assert [here(store, layer) for layer in (base, step, old)] == [True, True, False]
    prune(store, [], cache="unused", limit=Limit(max_used=taken(store) - 1))
    assert [here(store, layer) for layer in (base, step)] == [True, False]


def test_what_images_have_takes_no_space_of_the_cache(store: Store) -> None:
    """Not even with `all`: nothing would become free. Another form of the same layer would."""
    layer = add_layer(store, noise(1))
    add_image(store, layer, name="app")
    store.unpacked.directories([layer])
    add_step(store, layer, 1.0)
    assert taken(store) == 0
    for number in (2, 3):
        add_step(store, add_layer(store, noise(number)), float(number))
    assert prune(store, [], cache="all", limit=Limit(max_used=LAYER)).steps == 1
    assert prune(store, [], cache="all", limit=Limit(max_used=1)).steps == 1
    assert taken(store) == 0
    assert store.database.step(f"key of {layer}")
    store.layers.ensure_form(layer, Compression("zstd"))
    assert taken(store) > 1
    assert prune(store, [], cache="unused", limit=Limit(max_used=1)).steps == 0
    assert prune(store, [], cache="all", limit=Limit(max_used=1)).steps == 1
    assert taken(store) == 0


def test_what_running_builds_use_counts_and_stays(store: Store) -> None:
    old, new = add_layer(store, noise(1)), add_layer(store, noise(2))
    add_step(store, old, 1.0)
    add_step(store, new, 2.0)
    working = Store(store.root)
    with working.lease():
        assert working.layers.available(old)
        assert prune(store, [], cache="all", limit=Limit(max_used=LAYER)).steps == 1
        assert [here(store, layer) for layer in (old, new)] == [True, False]
        assert prune(store, [], cache="all", limit=Limit(max_used=1)).steps == 0
    working.close()
    assert prune(store, [], cache="all", limit=Limit(max_used=1)).steps == 1


def test_a_layer_that_a_running_build_uses_frees_nothing_with_its_base_image(store: Store) -> None:
    base, steps = add_layer(store, noise(1)), [add_layer(store, noise(number)) for number in (2, 3)]
    store.database.add_memo("image-1", "base", b"", holds=add_image(store, base).digest)
    with store.database._cursor() as connection:
        connection.execute("UPDATE memos SET used = 1")
    for number, layer in enumerate(steps):
        add_step(store, layer, 2.0 + number)
    working = Store(store.root)
    with working.lease():
        assert working.layers.available(base)
        assert prune(store, [], cache="all", limit=Limit(max_used=2 * LAYER)).steps == 2
        assert [here(store, layer) for layer in (base, *steps)] == [True, False, True]
    working.close()


def test_a_cache_mount_goes_in_its_turn(store: Store) -> None:
    """As in BuildKit, where it is a record of the cache as others."""
    layers = [add_layer(store, noise(number)) for number in range(2)]
    for number, layer in enumerate(layers):
        add_step(store, layer, 1.0 + 2 * number)
    mounts = [
        make_mount(Path(store.root), digit * 32, "npm", used=used, a=noise(3))
        for digit, used in (("1", 2.0), ("2", 4.0))
    ]
    for count in (4, 3, 2, 1):
        pruned = prune(store, [], cache="unused", limit=Limit(max_used=count * LAYER))
        there = [here(store, layers[0]), mounts[0].exists(), here(store, layers[1]), mounts[1].exists()]
        assert there == [False] * (4 - count) + [True] * count
        assert pruned.steps + pruned.mounts == (count < 4)


def test_a_cache_mount_that_is_in_use_counts_and_stays(store: Store) -> None:
    """By a step now, or by a build that had it for a step."""
    held, used, free = (
        make_mount(Path(store.root), digit * 32, "npm", used=float(digit), a=noise(3)) for digit in "123"
    )
    layer = add_layer(store, noise(1))
    add_step(store, layer, 9.0)
    working = Store(store.root)
    with working.lease(), in_use(held):
        working.layout.pin(pin_of(used.name))
        pruned = prune(store, [], cache="all", limit=Limit(max_used=3 * LAYER))
        assert (pruned.steps, pruned.mounts, free.exists()) == (0, 1, False)
        pruned = prune(store, [], cache="all", limit=Limit(max_used=1))
        assert (pruned.steps, pruned.mounts) == (1, 0)
    working.close()
    assert prune(store, [], cache="all", limit=Limit(max_used=1)).mounts == 2


def test_a_cache_mount_that_was_used_meanwhile_stays(store: Store) -> None:
    path = make_mount(Path(store.root), "1" * 32, "npm", used=1.0, a="x")
    found = unused_mounts(store)
    note_use(str(path), "npm")
    assert remove_unused(store, found) == []
    assert [size for _, size in remove_unused(store, unused_mounts(store))] == [1 + len("npm")]


def test_of_what_was_used_before_only(store: Store) -> None:
    layers = [add_layer(store, noise(number)) for number in range(3)]
    for number, layer in enumerate(layers):
        add_step(store, layer, 10.0 * number)
    prune(store, [], cache="unused", before=15.0, limit=Limit(max_used=1))
    assert [here(store, layer) for layer in layers] == [False, False, True]
