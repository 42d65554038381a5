"""Layers whose unchanged files come from the layer before: the same bytes as if every file had been read."""

from __future__ import annotations

import gzip
import os
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.filesystem import compress, encoders
from builder.filesystem.blocks import Damaged
from builder.filesystem.compress import LayerBlob, LayerSink
from builder.filesystem.compression import Compression
from builder.plan.steps import CopyNode
from builder.solver.assemble import write_layer
from builder.solver.cache import Made
from builder.solver.recycle import FEWEST
from builder.solver.roots import EmptyTree
from builder.solver.staging import Staging
from builder.store.store import Store
from tests.solver.support import environment, node, run_copy, write

pytestmark = pytest.mark.usefixtures("settled")

COUNT = FEWEST + 40


def many(root: Path) -> Path:
    """A context whose files have every size that matters to a tar archive."""
    sizes = (0, 1, 511, 512, 513, 5000)
    return write(
        root,
        {f"d{i % 7}/f{i:03}": f"{i} ".encode() * (sizes[i % 6] // 4 + 1) for i in range(COUNT)}
        | {"big": b"x" * 3_000_000},
    )


def made_of(store: Store, context: Path, step: CopyNode | None = None) -> Made:
    return run_copy(environment(store, context)[0], step or node("/", to="/n"))


def test_only_what_changed_is_read(tmp_path: Path, store: Store, reads: list[str]) -> None:
    context = many(tmp_path / "context")
    made_of(store, context)
    reads.clear()
    (context / "d3/f003").write_text("other")
    changed = made_of(store, context)
    assert reads == ["d3/f003"]
    assert changed.diff_id == made_of(Store(str(tmp_path / "other")), context).diff_id


def test_every_source_of_a_step_is_recycled(tmp_path: Path, store: Store, reads: list[str]) -> None:
    context = many(tmp_path / "context")
    step = node(*(f"/d{number}" for number in range(7)), "/big", to="/n/")
    made_of(store, context, step)
    reads.clear()
    (context / "d1/f001").write_text("other")
    changed = made_of(store, context, step)
    assert reads == ["d1/f001"]
    assert changed.diff_id == made_of(Store(str(tmp_path / "other")), context, step).diff_id


def _replace(context: Path, chosen: random.Random) -> None:
    victim = chosen.choice(sorted(path for path in context.rglob("*") if path.is_file() and not path.is_symlink()))
    victim.write_bytes(chosen.randbytes(chosen.choice((0, 10, 512, 4000))))


def _add(context: Path, chosen: random.Random) -> None:
    (context / f"d{chosen.randrange(9)}").mkdir(exist_ok=True)
    (context / f"d{chosen.randrange(7)}/n{chosen.randrange(99)}ä").write_text("new")


def _remove(context: Path, chosen: random.Random) -> None:
    chosen.choice(sorted(path for path in context.rglob("*") if path.is_file())).unlink()


def _change_mode(context: Path, chosen: random.Random) -> None:
    chosen.choice(sorted(path for path in context.rglob("f*") if path.is_file())).chmod(0o755)


def _touch(context: Path, chosen: random.Random) -> None:
    (context / "d1" / "touched").write_text("one more")  # a time alone changes nothing
    victim = chosen.choice(sorted(path for path in context.rglob("f*") if path.is_file()))
    os.utime(victim, (1_000_000_000, 1_000_000_000))


def _rename(context: Path, chosen: random.Random) -> None:
    victim = chosen.choice(sorted(path for path in context.rglob("f*") if path.is_file()))
    victim.rename(victim.with_name(f"renamed{chosen.randrange(10**6)}"))


def _link(context: Path, chosen: random.Random) -> None:
    victim = chosen.choice(sorted(path for path in context.rglob("f*") if path.is_file()))
    (context / f"a{chosen.randrange(10**6)}").hardlink_to(victim)
    (context / f"s{chosen.randrange(10**6)}").symlink_to("big")


EDITS = (_replace, _add, _remove, _change_mode, _touch, _rename, _link)


STEPS = (
    lambda: node("/", to="/n"),
    lambda: node("/", to="/n", chown="5:6"),
    lambda: node("/", to="/n", chmod=0o640),
    lambda: node("/", to="/n", link=True),
    lambda: node("/", to="/n", excludes=("d2/*", "**/f03*")),
    lambda: node("/d1", "/d2", "/big", to="/n/"),
)


@pytest.mark.parametrize("seed", range(12))
def test_the_layer_is_the_same_as_if_everything_was_read(tmp_path: Path, store: Store, seed: int) -> None:
    chosen = random.Random(seed)
    context = many(tmp_path / "context")
    step = STEPS[seed % len(STEPS)]()
    made_of(store, context, step)
    for turn in range(4):
        for edit in chosen.sample(EDITS, 3):
            edit(context, chosen)
        (context / "d1" / f"turn{turn}").write_text("new")  # or the layer with the earlier times is as good
        other = Store(str(tmp_path / f"fresh{turn}"))
        assert blob_of(store, made_of(store, context, step)) == blob_of(other, made_of(other, context, step))


def blob_of(store: Store, made: Made) -> tuple[str, str]:
    record = store.layers.record(made.diff_id)
    assert record is not None
    return record.digest, made.diff_id


def content_of(store: Store, made: Made) -> bytes:
    return Path(store.layout.blob_path(blob_of(store, made)[0])).read_bytes()


def difference(blob: bytes, expected: bytes) -> str:
    """Where two gzip streams part, in words, and whether the first one can be unpacked to what the other is."""
    if blob == expected:
        return ""
    try:
        unpacked = "to the same" if gzip.decompress(blob) == gzip.decompress(expected) else "to something else"
    except (OSError, EOFError, zlib.error) as error:
        unpacked = f"not: {error}"
    place = next((at for at, pair in enumerate(zip(blob, expected, strict=False)) if pair[0] != pair[1]), "the end")
    return f"{len(blob)} and {len(expected)} bytes, equal up to {place}; unpacked {unpacked}"


def test_what_did_not_change_is_not_compressed_again(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = random.Random(1)
    context = write(tmp_path / "context", {f"f{number:04}": chosen.randbytes(6000) for number in range(2000)})
    made_of(store, context)
    compressed: list[int] = []

    def encoder(kind: str, level: int | None) -> Callable[[bytes], bytes]:
        encode = encoders.encoder(kind, level)

        def counted(block: bytes) -> bytes:
            compressed.append(len(block))
            return encode(block)

        return counted

    monkeypatch.setattr(compress, "encoder", encoder)
    (context / "f0700").write_bytes(chosen.randbytes(9000))
    changed = made_of(store, context)
    assert sum(compressed) < 4 << 20  # of 13 MB: around the file, and at both ends
    other = Store(str(tmp_path / "other"))
    afresh = made_of(other, context)
    assert difference(content_of(store, changed), content_of(other, afresh)) == ""
    assert blob_of(store, changed) == blob_of(other, afresh)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda: node("/", to="/elsewhere"), id="another destination"),
        pytest.param(lambda: node("/", to="/n", chmod=0o600), id="chmod"),
        pytest.param(lambda: node("/", to="/n", chown="5:6"), id="chown"),
    ],
)
def test_flags_that_change_every_entry(tmp_path: Path, store: Store, other: Callable[[], CopyNode]) -> None:
    context = many(tmp_path / "context")
    made_of(store, context)
    fresh = Store(str(tmp_path / "fresh"))
    assert blob_of(store, made_of(store, context, other())) == blob_of(fresh, made_of(fresh, context, other()))


def test_without_cache_everything_is_read(tmp_path: Path, store: Store, reads: list[str]) -> None:
    context = many(tmp_path / "context")
    made_of(store, context)
    reads.clear()
    (context / "big").write_text("other")
    made_of(store, context, node("/", to="/n", ignore_cache=True))
    assert len(reads) == COUNT + 1


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_layer_is_not_recycled(tmp_path: Path, store: Store, damage: str) -> None:
    context = many(tmp_path / "context")
    first = made_of(store, context)
    record = store.layers.record(first.diff_id)
    assert record is not None
    blob = Path(store.layout.blob_path(record.digest))
    data = bytearray(blob.read_bytes())
    blob.unlink()
    if damage == "flip":
        data[len(data) // 2] ^= 0x55
    if damage != "gone":
        blob.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    (context / "d3/f003").write_text("other")
    fresh = made_of(Store(str(tmp_path / "fresh")), context)
    assert made_of(store, context).diff_id == fresh.diff_id


def test_damage_that_threads_find_at_the_end(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """By then all was told, and nothing may be missing for the other try."""
    context = many(tmp_path / "context")
    made_of(store, context)
    (context / "d3/f003").write_text("other")
    fresh = made_of(Store(str(tmp_path / "fresh")), context)
    finish, finished = LayerSink.finish, list[str]()

    def once_damaged(sink: LayerSink) -> LayerBlob:
        blob = finish(sink)
        finished.append(blob.diff_id)
        if len(finished) == 1:
            raise Damaged("a block of the layer is not what was written")
        return blob

    monkeypatch.setattr(LayerSink, "finish", once_damaged)
    assert made_of(store, context).diff_id == fresh.diff_id
    assert finished == [fresh.diff_id] * 2


def test_layers_without_a_checksum_are_not_recycled(tmp_path: Path, store: Store, reads: list[str]) -> None:
    context = many(tmp_path / "context")
    plain = environment(store, context)[0]
    plain.compression = Compression("uncompressed")
    run_copy(plain, node("/", to="/n"))
    reads.clear()
    (context / "big").write_text("other")
    made_of(store, context)
    assert len(reads) == COUNT + 1


def test_a_record_that_cannot_be_read(tmp_path: Path, store: Store) -> None:
    context = many(tmp_path / "context")
    made_of(store, context)
    assert store.database.memo("members-3", "lineage")
    store.database.add_memo("members-3", "lineage", b"\xc1 nonsense")
    (context / "big").write_text("other")
    fresh = made_of(Store(str(tmp_path / "fresh")), context)
    assert made_of(store, context).diff_id == fresh.diff_id


def test_what_is_done_meanwhile_keeps_its_errors(tmp_path: Path) -> None:
    def fail() -> None:
        raise FileNotFoundError("a file of the context")

    with pytest.raises(FileNotFoundError, match="of the context"):
        write_layer(Staging(EmptyTree()), str(tmp_path), meanwhile=fail)
    assert os.listdir(tmp_path) == []
