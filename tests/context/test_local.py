"""LocalTree: what a context directory shows, what it hides, and that nothing leads out of it."""

from __future__ import annotations

import os
import socket
import threading
from functools import partial
from pathlib import Path

import msgspec
import pytest

from builder.context.ignore import Matcher, compile_rules
from builder.context.local import LocalTree
from builder.errors import ContextError
from builder.filesystem import kinds
from builder.filesystem.tree import FileInfo
from tests.support.together import together


def tree_of(path: Path, ignore: str | None = None) -> LocalTree:
    return LocalTree(str(path), None if ignore is None else Matcher(compile_rules(ignore)))


def walk(tree: LocalTree, path: str = "") -> list[str]:
    found = []
    for name, info in tree.scan(path):
        below = f"{path}/{name}" if path else name
        assert tree.lstat(below) == info
        found.append(below)
        if info.kind == kinds.DIRECTORY:
            found += walk(tree, below)
    return found


def read(tree: LocalTree, path: str) -> bytes:
    with open(tree.open(path), "rb") as file:
        return file.read()


def lstat(tree: LocalTree, path: str) -> FileInfo:
    info = tree.lstat(path)
    assert info is not None
    return info


def test_metadata(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("hello")
    file.chmod(0o4755)
    os.utime(file, ns=(1, 1_234_567_890_123_456_789))
    (tmp_path / "d").mkdir(mode=0o750)
    (tmp_path / "l").symlink_to("../outside")
    os.mkfifo(tmp_path / "p", 0o640)
    if os.getuid() == 0:
        os.chown(file, 7, 8)
        file.chmod(0o4755)
        os.setxattr(file, "user.note", b"x")
    tree = tree_of(tmp_path)
    entries = dict(tree.scan(""))
    assert list(entries) == ["d", "f", "l", "p"]
    plain = msgspec.structs.replace(entries["f"], inode=0, changed_ns=0)
    assert plain == FileInfo(kinds.FILE, 0o4755, 0, 0, 5, 1_234_567_890_123_456_789)
    assert (entries["f"].inode, entries["f"].changed_ns) == (file.stat().st_ino, file.stat().st_ctime_ns)
    assert (entries["d"].kind, entries["d"].mode, entries["d"].size) == (kinds.DIRECTORY, 0o750, 0)
    assert (entries["l"].kind, entries["l"].link) == (kinds.SYMLINK, "../outside")
    assert (entries["p"].kind, entries["p"].mode) == (kinds.FIFO, 0o640)
    assert tree.xattrs("f") == {}
    assert lstat(tree, "").kind == kinds.DIRECTORY
    assert read(tree, "f") == b"hello"


def test_hard_links_have_one_identity(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    os.link(tmp_path / "one", tmp_path / "two")
    tree = tree_of(tmp_path)
    one, two = (info for _, info in tree.scan(""))
    assert one == two
    assert one.links == 2
    assert one.identity is not None


def test_a_socket_is_an_empty_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")  # relative: the name of a socket is at most 108 bytes long
        tree = tree_of(tmp_path)
        assert (lstat(tree, "s").kind, lstat(tree, "s").size) == (kinds.FILE, 0)
        assert read(tree, "s") == b""


def test_names_sort_by_their_bytes(tmp_path: Path) -> None:
    names = [b"\xff", b"a", "ü".encode(), "\U00010000".encode(), "\uffee".encode(), b"B"]
    for name in names:
        os.close(os.open(os.fsencode(tmp_path) + b"/" + name, os.O_CREAT))
    assert [os.fsencode(name) for name, _ in tree_of(tmp_path).scan("")] == sorted(names)


def test_missing_and_wrong_kinds(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    (tmp_path / "d").mkdir()
    tree = tree_of(tmp_path)
    assert tree.lstat("nope") is None
    assert tree.lstat("f/x") is None
    assert tree.lstat("n" * 300) is None
    with pytest.raises(NotADirectoryError):
        tree.scan("f")
    with pytest.raises(FileNotFoundError):
        tree.scan("nope")
    with pytest.raises(FileNotFoundError):
        tree.open("nope")
    with pytest.raises(IsADirectoryError):
        tree.open("d")
    with pytest.raises(ContextError, match="no such file"):
        tree_of(tmp_path / "nope")
    with pytest.raises(ContextError, match="not a directory"):
        tree_of(tmp_path / "f")


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p")
    with pytest.raises(ContextError, match="not a regular file"):
        tree_of(tmp_path).open("p")


def test_links_are_never_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("s")
    context = tmp_path / "context"
    (context / "real").mkdir(parents=True)
    (context / "up").symlink_to("../outside")
    (context / "abs").symlink_to(tmp_path / "outside")
    (context / "file").symlink_to("../outside/secret")
    (context / "self").symlink_to("self")
    tree = tree_of(context)
    for path in ("up/secret", "abs/secret", "self/x"):
        assert tree.lstat(path) is None
        with pytest.raises(NotADirectoryError):
            tree.open(path)
    for path in ("up", "abs", "self"):
        with pytest.raises(NotADirectoryError):
            tree.scan(path)
    with pytest.raises(ContextError, match="symbolic link"):
        tree.open("file")
    for path in ("..", "real/../../outside", "real/./x", "/etc/passwd", "a\0b"):
        with pytest.raises(ContextError, match="cannot be part"):
            tree.open(path)


def test_a_directory_that_becomes_a_link_is_not_followed(tmp_path: Path) -> None:
    """One thread swaps a directory for a link to a secret while the other one reads."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_text("secret")
    context = tmp_path / "context"
    (context / "d").mkdir(parents=True)
    (context / "d" / "f").write_text("public")
    (context / "link").symlink_to("../outside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(context / "d", context / "hidden")
            os.rename(context / "link", context / "d")
            os.rename(context / "d", context / "link")
            os.rename(context / "hidden", context / "d")

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        for _ in range(2000):
            tree = tree_of(context)
            try:
                seen.add(read(tree, "d/f"))
                assert all(info.size == len("public") for _, info in tree.scan("d"))
            except (FileNotFoundError, NotADirectoryError):
                seen.add(b"")
    finally:
        stop.set()
        thread.join()
    assert b"public" in seen
    assert b"secret" not in seen


def test_hidden_files_do_not_exist(tmp_path: Path) -> None:
    for name in ("a.txt", "b.md", "node/x/y.js", "d/keep/f", "d/other/g", "empty/deep/h"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    tree = tree_of(tmp_path, "*\n!*.md\n!d/keep\n!empty/none\n")
    assert walk(tree) == ["b.md", "d", "d/keep", "d/keep/f"]
    for path in ("a.txt", "node", "node/x/y.js", "d/other", "empty", "empty/deep"):
        assert tree.lstat(path) is None
        with pytest.raises(FileNotFoundError):
            tree.scan(path)
    with pytest.raises(FileNotFoundError):
        tree.open("a.txt")


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(0)
    tmp_path.chmod(0o755)
    plain, hiding, hoping = tree_of(tmp_path), tree_of(tmp_path, "d"), tree_of(tmp_path, "d\n!**/x")
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read everything
    try:
        with pytest.raises(ContextError, match="permission denied") as caught:
            plain.scan("d")
        assert caught.value.place == str(tmp_path / "d")
        assert caught.value.remedy
        assert walk(hiding) == walk(hoping) == []
    finally:
        if user == 0:
            os.seteuid(0)
        (tmp_path / "d").chmod(0o700)


def test_skipped_directories_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "big" / "x").mkdir(parents=True)
    (tmp_path / "f").write_text("")
    tree = tree_of(tmp_path, "big\n!src/f\n")
    opened: list[str] = []
    scandir = os.scandir

    def recorded(descriptor: int) -> object:
        opened.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        return scandir(descriptor)

    monkeypatch.setattr(os, "scandir", recorded)
    assert walk(tree) == ["f"]
    assert opened == [str(tmp_path)]


def test_many_threads(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / str(number)).mkdir()
        for name in range(20):
            (tmp_path / str(number) / str(name)).write_text(f"{number}/{name}")
    tree = tree_of(tmp_path, "*.log\n!x\n")
    failures: list[str] = []

    def work(number: int) -> None:
        for _ in range(10):
            for name, _info in tree.scan(str(number)):
                path = f"{number}/{name}"
                if read(tree, path).decode() != path:
                    failures.append(path)

    together(*(partial(work, number) for number in range(8)))
    assert failures == []


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "f").write_text("")
    before = len(os.listdir("/proc/self/fd"))
    tree = tree_of(tmp_path, "x\n!y/**/z\n")
    walk(tree)
    os.close(tree.open("a/b/f"))
    del tree
    assert len(os.listdir("/proc/self/fd")) == before


def test_owners_of_an_archive(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    (tmp_path / "g").write_text("")
    tree = LocalTree(str(tmp_path), owners={"f": (5, 6)})
    assert [(info.uid, info.gid) for _, info in tree.scan("")] == [(5, 6), (0, 0)]
