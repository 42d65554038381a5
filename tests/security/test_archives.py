"""Hostile archives by every way in: refused with a message, or unpacked inside the root. Nothing outside changes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from builder.errors import LayerError
from builder.filesystem.decompress import decompressor
from builder.filesystem.syscalls import remove_tree
from tests.security import hostile
from tests.security.hostile import FILE
from tests.security.ways_in import WAYS, image_archive
from tests.support.archives import archive
from tests.support.builds import Cli, Done, context, tree_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacking devices and owners needs root")

IN_A_LAYER = ("loaded", "pulled", "imported")
UNPACKING = (*IN_A_LAYER, "added", "context")


class Target:
    """A store that archives are let into, beside a directory that none of them may reach."""

    def __init__(self, directory: Path) -> None:
        self.outside = directory / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_text("keep")
        self._directory = directory
        self._before = self._state()

    def _state(self) -> object:
        found: list[object] = [sorted(os.listdir(self.outside))]
        for path in (self.outside, self.outside / "secret"):
            status = path.lstat()  # when it was read does not matter, and listing it here reads it
            found.append((status[:7], status.st_mtime_ns, status.st_ctime_ns, sorted(os.listxattr(path))))
        return found, (self.outside / "secret").read_bytes()

    def receive(self, way: str, data: bytes, toml: str = "") -> tuple[Done, Path]:
        """Let an archive in. Whatever becomes of it, there is no traceback, and nothing outside is touched."""
        place = Path(tempfile.mkdtemp(dir=self._directory))
        cli = Cli(place / "store")
        Path(cli.environ["BUILDER_CONFIG"]).write_text(toml)
        done = WAYS[way](cli, place, data)
        assert done.status in (0, 1), done.err
        assert "Traceback" not in done.err
        assert "internal error" not in done.err
        assert self._state() == self._before
        assert cli.leftovers() == []
        return done, place / "out"

    def refuse(self, way: str, data: bytes, toml: str = "") -> str:
        done, _ = self.receive(way, data, toml)
        assert done.status == 1
        return done.err

    def accept(self, way: str, data: bytes, toml: str = "") -> Path:
        """The directory with what was unpacked."""
        done, out = self.receive(way, data, toml)
        assert done.status == 0, done.err
        return out / "into" if way in ("added", "context") else out


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    made = Target(tmp_path)
    yield made
    for path in tmp_path.iterdir():
        remove_tree(str(path))  # pytest's own way of doing so ends at deep trees


ESCAPES = sorted(hostile.escapes(Path("/nowhere")))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_leads_outside(target: Target, way: str, name: str) -> None:
    done, _ = target.receive(way, archive(*hostile.escapes(target.outside)[name]))
    if way in UNPACKING and (name.startswith("hard link") or name == "whiteout of dots"):
        assert done.status == 1
    if way == "context" and name.startswith("climbing"):
        assert "leads out of the archive" in done.err


@pytest.mark.parametrize("way", ["loaded", "context", "archive"])
@pytest.mark.parametrize("name", sorted(hostile.damaged()))
def test_what_is_damaged_is_refused(target: Target, way: str, name: str) -> None:
    target.refuse(way, hostile.damaged()[name])


def test_add_of_what_begins_as_an_archive_and_is_damaged_is_refused(target: Target) -> None:
    good = archive(("a", {"data": b"1"}), ("b", {"data": b"x" * 2000}))
    assert "/evil.tar:b: the archive is truncated" in target.refuse("added", good[:2000])


@pytest.mark.parametrize("way", ["loaded", "added", "context"])
@pytest.mark.parametrize("name", sorted(hostile.too_long()))
def test_what_no_file_system_takes_is_refused(target: Target, way: str, name: str) -> None:
    target.refuse(way, hostile.too_long()[name])


@pytest.mark.parametrize("way", UNPACKING)
def test_the_last_of_duplicates_counts(target: Target, way: str) -> None:
    out = target.accept(way, hostile.odd()["duplicate entries"])
    assert (out / "a").read_bytes() == b"evil"


@pytest.mark.parametrize("way", UNPACKING)
def test_names_that_are_not_utf8_are_kept(target: Target, way: str) -> None:
    out = target.accept(way, hostile.odd()["name that is not UTF-8"])
    assert b"n\xff\xfe" in os.listdir(os.fsencode(out))


@pytest.mark.parametrize("way", ["loaded", "added", "context", "archive"])
@pytest.mark.parametrize("name", sorted(hostile.odd()))
def test_what_is_lawful_is_taken(target: Target, way: str, name: str) -> None:
    target.accept(way, hostile.odd()[name])


@pytest.mark.parametrize("way", UNPACKING)
@pytest.mark.parametrize("name", sorted(hostile.devices()))
def test_devices_are_never_opened(target: Target, way: str, name: str) -> None:
    """They are files of the image like others; whether one may be opened is the sandbox's business."""
    target.receive(way, hostile.devices()[name])


def test_a_tree_deeper_than_pythons_stack(target: Target) -> None:
    out = target.accept("context", archive((f"{'d/' * 1050}f", FILE)))
    depth, place = 0, os.open(out, os.O_RDONLY)
    while "d" in os.listdir(place):
        place, before = os.open("d", os.O_RDONLY, dir_fd=place), place
        os.close(before)
        depth += 1
    os.close(place)
    assert depth == 1050


MANY = archive(*((f"f{number}", {"data": b""}) for number in range(40)))


@pytest.mark.parametrize("way", WAYS)
def test_more_entries_than_allowed(target: Target, way: str) -> None:
    errors = target.refuse(way, MANY, "[limits]\nentries = 20\n")
    assert "has more than 20 entries" in errors
    assert "raise entries below [limits] in builder.toml" in errors


@pytest.mark.parametrize("way", WAYS)
def test_more_bytes_than_allowed(target: Target, way: str) -> None:
    errors = target.refuse(way, archive(("zeros", {"data": bytes(300_000)})), "[limits]\nsize = 200_000\n")
    assert "more than the 200000 bytes that are allowed" in errors
    assert "raise size below [limits] in builder.toml" in errors


def test_zero_is_no_limit(target: Target) -> None:
    target.accept("loaded", MANY, "[limits]\nentries = 0\nsize = 0\nratio = 0\n")


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda raw: gzip.compress(raw, 9),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(19).compress,
}


@pytest.mark.parametrize("compression", COMPRESSORS)
@pytest.mark.parametrize("way", ["added", "imported"])
def test_compression_bombs(target: Target, way: str, compression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ratio counts from a gigabyte on; here from a megabyte, to be done sooner."""
    monkeypatch.setattr("builder.config.ArchiveLimits.GRACE", 1 << 20)
    bomb = COMPRESSORS[compression](archive(("zeros", {"data": bytes(8 << 20)})))
    errors = target.refuse(way, bomb, "[limits]\nratio = 500\n")
    assert "it looks like a compression bomb" in errors
    assert "raise ratio below [limits] in builder.toml" in errors


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_compression_bombs_in_images(target: Target, compression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.config.ArchiveLimits.GRACE", 1 << 20)
    raw = archive(("zeros", {"data": bytes(8 << 20)}))
    files = image_archive(COMPRESSORS[compression](raw), raw)
    data = archive(*((name, {"data": content}) for name, content in files.items()))
    assert "it looks like a compression bomb" in target.refuse("archive", data[:-1024], "[limits]\nratio = 500\n")


@pytest.mark.parametrize(
    ("compression", "size", "most"), [("gzip", 32, 4), ("bzip2", 32, 4), ("xz", 32, 12), ("zstd", 128, 70)]
)
def test_the_memory_of_a_bomb(compression: str, size: int, most: int) -> None:
    """However much a bomb would become, only pieces of it are in memory at once; in MiB."""
    import tracemalloc

    bomb = COMPRESSORS[compression](bytes(size << 20))
    tracemalloc.start()
    try:
        stream = decompressor(_Stream(bomb))
        while stream.read(1 << 20):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most << 20, peak


class _Stream:
    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def read(self, size: int, /) -> bytes:
        piece, self._data = self._data[:size], self._data[size:]
        return bytes(piece)


@pytest.mark.parametrize("compression", COMPRESSORS)
@pytest.mark.parametrize("way", ["loaded", "imported", "context"])
def test_truncated_compression(target: Target, way: str, compression: str) -> None:
    whole = COMPRESSORS[compression](archive(("a", {"data": os.urandom(40_000)})))
    cut = whole[: len(whole) // 2]
    if way == "context":
        with pytest.raises(LayerError, match="truncated"):
            decompressor(_Stream(cut)).read()
        return
    assert "truncated" in target.refuse(way, cut)


def test_links_of_a_context_are_never_followed_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("keep")
    made = context(tmp_path / "context", "FROM scratch\nCOPY link dir/ /\n", dir__x=b"")
    (made / "link").symlink_to("../secret")
    (made / "dir/up").symlink_to("/etc")
    (made / "dir/file").symlink_to(tmp_path / "secret")
    cli = Cli(tmp_path / "store")
    done = cli("build", "-o", f"type=local,dest={tmp_path / 'out'}", made)
    assert done.status == 1
    assert "/link is a link to ../secret, which is not in the build context" in done.err
    (made / "Dockerfile").write_text("FROM scratch\nCOPY dir/ /\n")
    cli.build("-o", f"type=local,dest={tmp_path / 'out'}", made)
    assert {name: entry[0] for name, entry in tree_of(tmp_path / "out").items()} == {
        "file": "link", "up": "link", "x": "file",
    }  # fmt: skip
    (made / "Dockerfile").write_text("FROM scratch\nCOPY dir/up/passwd /\n")
    assert cli("build", made).status == 1
    (made / "Dockerfile").write_text("FROM scratch\nADD dir/file /\n")
    assert cli("build", made).status == 1


@pytest.mark.parametrize("source", ["out/passwd", "out", "chain/etc/passwd"])
def test_copy_from_a_stage_resolves_inside_its_root(tmp_path: Path, source: str) -> None:
    """A link of the image leads to the image's own files: here there are none."""
    links = archive(
        ("out", hostile.symlink("/etc")), ("up", hostile.symlink("../../../..")), ("chain", hostile.symlink("up/.")),
        ("etc/mine", {"data": b"mine"}),
    )  # fmt: skip
    made = context(tmp_path / "context", f"FROM scratch AS a\nADD a.tar /\nFROM scratch\nCOPY --from=a /{source} /\n")
    (made / "a.tar").write_bytes(links)
    cli = Cli(tmp_path / "store")
    done = cli("build", "--progress", "plain", "-o", f"type=local,dest={tmp_path / 'out'}", made)
    if source == "out":
        assert (tmp_path / "out/mine").read_bytes() == b"mine"
    else:
        assert done.status == 1
        assert "was not found" in done.err


def test_the_type_of_members_is_not_trusted(target: Target) -> None:
    """A directory with content, a link with a size: readers that disagree on these can be played against each other."""
    data = archive(("a", {"type": tarfile.DIRTYPE}), ("b", FILE))
    assert sorted(os.listdir(target.accept("loaded", data))) == ["a", "b", "probe"]
