"""Layers against the kernel: what overlayfs shows is what LayeredTree, diff, unpack and squash make of a stack."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import stat
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from builder.errors import LayerError
from builder.filesystem import kinds
from builder.filesystem.diff import Change, LeftOut, changes, drop, write_changes
from builder.filesystem.layer_facts import LayerFacts
from builder.filesystem.layered import LayeredTree
from builder.filesystem.squash import squash
from builder.filesystem.tar import TarWriter
from builder.filesystem.unpack import unpack

Describe = Callable[[Path], dict[str, Any]]
TYPES = {
    0o100000: kinds.FILE, 0o040000: kinds.DIRECTORY, 0o120000: kinds.SYMLINK, 0o020000: kinds.CHARACTER,
    0o010000: kinds.FIFO,
}  # fmt: skip
CAPABILITY = b"\x01\0\0\x02\0\x04" + bytes(14)
_NOBODY = 0xFFFF_FFFF
ACL = struct.pack("<I" + 5 * "HHI", 2, 1, 7, _NOBODY, 2, 7, 1000, 4, 5, _NOBODY, 16, 7, _NOBODY, 32, 0, _NOBODY)
"""u::rwx,u:1000:rwx,g::r-x,m::rwx,o::---, as the kernel takes it, acl(5)."""
WHAT = [
    "write", "write", "mkdir", "mkdir", "rm", "mv", "mv", "ln", "symlink", "fifo", "node", "chmod", "chown", "touch",
    "cap", "replace",
]  # fmt: skip
NAMES = ["a", "b", "c", "d", "é", "\udcfe"]


def scramble(root: Path, seed: int, count: int, what: Sequence[str] = WHAT) -> None:
    """Do random things below a directory, the same for the same seed and content."""
    chance = random.Random(seed)

    def pick() -> Path:
        return root.joinpath(*chance.choices(NAMES, k=chance.choice([1, 1, 2, 2, 3])))

    for number in range(count):
        path, other = pick(), pick()
        with contextlib.suppress(OSError, shutil.Error):
            match chance.choice(what):
                case "write":
                    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_NOFOLLOW
                    with open(os.open(path, flags, 0o644), "wb") as file:  # never waits at a fifo
                        file.write(b"%d" % number)
                case "mkdir":
                    path.mkdir(parents=True)
                case "rm":
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                case "mv":
                    if path.is_dir() or not other.is_dir():
                        os.rename(path, other)
                case "ln":
                    os.link(path, other, follow_symlinks=False)
                case "symlink":
                    path.symlink_to(str(number))
                case "fifo":
                    os.mkfifo(path)
                case "node":
                    os.mknod(path, 0o020644, os.makedev(1, 3))
                case "chmod":
                    path.chmod(chance.choice([0o600, 0o4755, 0o1777]))
                case "chown":
                    os.chown(path, number, number, follow_symlinks=False)
                case "touch":
                    os.utime(path, (number, number), follow_symlinks=False)
                case "cap":
                    if path.is_file() and not path.is_symlink():
                        os.setxattr(path, "security.capability", CAPABILITY)
                case "acl":
                    os.setxattr(path, "system.posix_acl_default", ACL)
                case "mark":
                    os.setxattr(path, chance.choice(["user.overlay.opaque", "user.overlay.redirect"]), b"y")
                case "replace":
                    os.listdir(path)  # raises for anything but a directory
                    shutil.rmtree(path)
                    path.mkdir()
                    (path / "fresh").write_bytes(b"%d" % number)


def seen(tree: LayeredTree) -> dict[str, Any]:
    """A LayeredTree in the form of `describe`."""
    found: dict[str, Any] = {}
    pending = [""]
    while pending:
        directory = pending.pop()
        for name, info in tree.scan(directory):
            path = f"{directory}/{name}" if directory else name
            assert tree.lstat(path) == info
            entry: dict[str, Any] = {"type": info.kind, "mode": info.mode, "owner": (info.uid, info.gid)}
            if info.kind == kinds.DIRECTORY:
                pending.append(path)
            else:
                entry["mtime"] = info.mtime_ns // 10**9
            if info.kind == kinds.FILE:
                descriptor = tree.open(path)
                with open(descriptor, "rb") as file:
                    entry["data"] = file.read()
                assert len(entry["data"]) == info.size
            elif info.kind == kinds.SYMLINK:
                entry["target"] = info.link
            elif info.kind == kinds.CHARACTER:
                entry["device"] = os.makedev(*info.device)
            entry["xattrs"] = tree.xattrs(path)
            found[path] = entry
    return found


def comparable(description: dict[str, Any]) -> dict[str, Any]:
    return {
        path: {**{key: value for key, value in entry.items() if key != "link of"}, "type": TYPES[entry["type"]]}
        for path, entry in description.items()
    }


def tar(entries: Iterable[Change]) -> bytes:
    pieces: list[bytes] = []
    writer = TarWriter(pieces.append)
    write_changes(entries, writer)
    writer.close()
    return b"".join(pieces)


def raw_tree(directory: Path) -> dict[str, tuple[object, ...]]:
    """What lies in a directory, whiteouts among it: mode, owner, size, time in seconds, device, target."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        leads = path.readlink() if path.is_symlink() else None
        size = status.st_size if path.is_file() and leads is None else 0
        whiteout = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
        about = () if whiteout else (status.st_mode, status.st_uid, status.st_gid, int(status.st_mtime))
        found[str(path.relative_to(directory))] = (whiteout, *about, size, status.st_rdev, leads)
    return found


def unpacked(raw: bytes, directory: Path) -> Path:
    directory.mkdir()
    assert unpack(io.BytesIO(raw), directory, layer=True).implicit == ()
    return directory


@pytest.mark.parametrize("seed", range(10))
def test_random_stacks(tmp_path: Path, overlays: Any, describe: Describe, seed: int) -> None:
    layers: list[Path] = []  # top first
    facts: defaultdict[str, LayerFacts] = defaultdict(LayerFacts)
    for number in range(4):
        upper, work = tmp_path / f"upper{number}", tmp_path / f"work{number}"
        upper.mkdir()
        work.mkdir()
        if layers:
            step = overlays.mount(tmp_path / f"step{number}", layers, upper, work)
            scramble(step, seed * 10 + number, 80)
        else:
            scramble(upper, seed * 10, 80)
        layers.insert(0, upper)
        truth = comparable(describe(step if number else upper))
        overlays.unmount()

        with LayeredTree(layers) as tree:
            assert seen(tree) == truth, "LayeredTree shows what the kernel shows"
        with LayeredTree(layers[1:]) as lowers:
            left_out = LeftOut()
            raw = tar(changes(upper, lowers if number else None, left_out))
            assert tar(changes(upper, lowers if number else None)) == raw
            again = unpacked(raw, tmp_path / f"again{number}")
            if number:
                view = overlays.mount(tmp_path / f"view{number}", [again, *layers[1:]])
                assert comparable(describe(view)) == truth, "the layer does what the step did"
                assert tar(changes(again, lowers)) == raw, "and holds nothing superfluous"
                overlays.unmount()
            drop(upper, left_out.paths)
            linked = [path for name in left_out.linked for path in (name, *map(str, Path(name).parents))]
            held = {path: about for path, about in raw_tree(upper).items() if path not in linked}
            assert held == {path: about for path, about in raw_tree(again).items() if path not in linked}, (
                "nor does the directory, once what it leaves out is gone"
            )
        with LayeredTree(layers, facts.__getitem__) as tree:
            assert seen(tree) == truth, "what the trees before learnt of these layers holds"

    flat = unpacked(tar(squash(layers)), tmp_path / "flat")
    assert comparable(describe(flat)) == truth
    with LayeredTree(layers[2:]) as below:
        merged = unpacked(tar(squash(layers[:2], below=below)), tmp_path / "merged")
    view = overlays.mount(tmp_path / "merged-view", [merged, *layers[2:]])
    assert comparable(describe(view)) == truth, "squashing the new layers changes nothing"


class Step:
    """Runs a function inside an overlay mount and gives the entries of its layer as texts."""

    def __init__(self, tmp_path: Path, overlays: Any) -> None:
        self._path = tmp_path
        self._overlays = overlays
        self._count = 0
        self.layers: list[Path] = []

    def __call__(self, work: Callable[[Path], object]) -> list[str]:
        self._count += 1
        upper, other = self._path / f"u{self._count}", self._path / f"w{self._count}"
        upper.mkdir()
        other.mkdir()
        (self._path / "empty").mkdir(exist_ok=True)
        work(self._overlays.mount(self._path / f"m{self._count}", [*self.layers, self._path / "empty"], upper, other))
        self._overlays.unmount()
        with LayeredTree(self.layers) as lowers:
            found = [text(change) for change in changes(upper, lowers)]
        self.layers.insert(0, upper)
        return found


def text(change: Change) -> str:
    kind = kinds.word(change.info.kind)
    return f"{kind} {change.path}" + (f" = {change.hardlink}" if change.hardlink else "")


@pytest.fixture
def step(tmp_path: Path, overlays: Any) -> Step:
    return Step(tmp_path, overlays)


def test_hard_links_across_layers(step: Step) -> None:
    assert step(lambda root: (root / "a").write_text("a")) == ["file a"]
    assert step(lambda root: os.link(root / "a", root / "b")) == ["file b"]
    assert step(lambda root: os.link(root / "b", root / "c")) == ["file c"]


def test_hard_links_within_a_layer(step: Step) -> None:
    def work(root: Path) -> None:
        (root / "d").mkdir()
        (root / "d/a").write_text("a")
        os.link(root / "d/a", root / "b")
        os.mkfifo(root / "p")
        os.link(root / "p", root / "q")
        (root / "s").symlink_to("x")
        os.link(root / "s", root / "t", follow_symlinks=False)

    assert step(work) == [
        "file b", "directory d", "file d/a = b", "fifo p", "fifo q = p", "symlink s", "symlink t = s",
    ]  # fmt: skip

    def change(root: Path) -> None:
        os.link(root / "b", root / "c")
        with (root / "c").open("a") as file:
            file.write("x")

    assert step(change) == ["file b", "file c = b"]


def test_a_copied_up_file_that_is_the_same_is_left_out(step: Step) -> None:
    def prepare(root: Path) -> None:
        (root / "d").mkdir()
        (root / "d/f").write_text("content")
        (root / "d/whole").write_text("1")
        os.utime(root / "d/whole", (5, 5))
        (root / "d/g").write_text("content")

    step(prepare)

    def touch(root: Path) -> None:
        (root / "d/f").open("a").close()
        os.chmod(root / "d/g", 0o600)
        os.chmod(root / "d/g", 0o644)
        (root / "d/whole").write_text("2")
        os.utime(root / "d/whole", (5, 5))

    assert step(touch) == ["directory d", "file d/whole"]
    assert step(lambda root: (root / "d/f").open("a").close()) == []


def test_whiteouts_and_opaque_directories(step: Step) -> None:
    def prepare(root: Path) -> None:
        for name in ("d/sub", "gone", "swap"):
            (root / name).mkdir(parents=True)
            (root / name / "f").write_text("x")
        (root / "file").write_text("x")

    step(prepare)

    def work(root: Path) -> None:
        (root / "temporary").write_text("x")
        (root / "temporary").unlink()
        (root / "d/sub/f").unlink()
        shutil.rmtree(root / "gone")
        shutil.rmtree(root / "swap")
        (root / "swap").mkdir()
        (root / "swap/new").write_text("x")
        (root / "file").unlink()
        (root / "file").mkdir()
        (root / "file/f").write_text("x")

    assert step(work) == [
        "directory d", "directory d/sub", "whiteout d/sub/f", "directory file", "file file/f", "whiteout gone",
        "directory swap", "opaque swap", "file swap/new",
    ]  # fmt: skip


def test_attributes_and_sockets(step: Step) -> None:
    import socket

    def work(root: Path) -> None:
        (root / "f").write_text("x")
        os.setxattr(root / "f", "user.note", b"x")
        os.setxattr(root / "f", "security.capability", CAPABILITY)
        os.setxattr(root / "f", "security.selinux", b"of this machine")
        here = os.getcwd()
        os.chdir(root)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("sock")
        os.chdir(here)

    assert step(work) == ["file f"]
    assert [change.xattrs for change in changes(step.layers[0], None)] == [{"security.capability": CAPABILITY}]
    with LayeredTree(step.layers) as tree:
        assert tree.xattrs("f") == {"security.capability": CAPABILITY}
        assert tree.all_xattrs(0, "f") == {"security.capability": CAPABILITY, "user.note": b"x"}
    assert [change.xattrs.get("user.note") for change in squash(step.layers)] == [b"x"]
    assert step(lambda root: os.removexattr(root / "f", "security.capability")) == ["file f"]


def test_a_redirected_directory_is_refused(tmp_path: Path, overlays: Any) -> None:
    (tmp_path / "u/d").mkdir(parents=True)
    os.setxattr(tmp_path / "u/d", "trusted.overlay.redirect", b"/x")
    with pytest.raises(LayerError, match="redirect"):
        list(changes(tmp_path / "u", None))


def test_what_is_no_mark_for_root_is_an_attribute(tmp_path: Path, overlays: Any) -> None:
    """`user.overlay.opaque` is the kernel's in user namespaces alone; rootless podman's storage is full of it."""
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for layer in (upper, lower):
        (layer / "d").mkdir(parents=True)
        (layer / "d" / layer.name).touch()
        os.setxattr(layer / "d", "user.overlay.opaque", b"y")
        os.setxattr(layer / "d", "user.overlay.redirect", b"/x")
    assert len(os.listdir(overlays.mount(tmp_path / "root", [upper, lower]) / "d")) == 2
    with LayeredTree([lower]) as below:
        said = [(change.path, change.info.kind) for change in changes(upper, below)]
    assert said == [("d", kinds.DIRECTORY), ("d/upper", kinds.FILE)]
    with LayeredTree([upper, lower]) as tree:
        assert [name for name, _ in tree.scan("d")] == ["lower", "upper"]
    whole = list(squash([upper, lower]))
    assert whole[0].xattrs["user.overlay.opaque"] == b"y"
    written = io.BytesIO()
    write_changes(whole, TarWriter(written.write))
    assert b"user.overlay" not in written.getvalue()  # where others unpack it might be theirs
