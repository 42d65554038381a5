"""Names of users and groups, looked up in an image's own files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.context.local import LocalTree
from builder.errors import StepFailed
from builder.filesystem.tree import FileTree
from builder.solver.users import ExecUser, check_owner, find_owner, find_user, read_accounts
from tests.solver.support import write

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# comment:x:9:9:::
app:x:1000:1001:App:/home/app:/bin/sh

short:x:5:6
app:x:7:7:second:/no:
1234:x:50:51::/numeric:
odd:x:x:y::/odd:
nogroups:x:77:78::/n:/bin/sh
nfsnobody:x:4294967294:4294967294::/var/lib/nfs:/sbin/nologin
above:x:4294967295:1::/:
negative:x:-2:1::/:
endless:x:99999999999999999999:1::/:
groupless:x:1:4294967295::/:
crowded:x:79:79::/:
"""
GROUP = """\
root:x:0:
app:x:1001:
wheel:x:10:root,app
audio:x:63:app
audio2:x:63:app
4321:x:60:
few:x:61
nfsgroup:x:4294967294:
full:x:4294967295:crowded
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> FileTree:
    root = write(tmp_path_factory.mktemp("users"), {"etc/passwd": PASSWD, "etc/group": GROUP})
    return LocalTree(str(root))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> FileTree:
    return LocalTree(str(tmp_path_factory.mktemp("bare")))


OWNERS = {
    "app": (1000, 1001), "app:wheel": (1000, 10), "app:root": (1000, 0), "app:": (1000, 0), "app:5": (1000, 5),
    "5": (5, 5), "5:app": (5, 1001), "5:6": (5, 6), "root": (0, 0), "root:wheel": (0, 10), ":wheel": (0, 10),
    "nobody": (0, 0), "nobody:wheel": (0, 10), "app:nogroup": (1000, 1001), "short": (5, 6), "odd": (0, 0),
    "few:few": (0, 61), "1234": (1234, 1234), "2147483647": (2147483647, 2147483647), "2147483648": (0, 0),
    "9" * 5000: (0, 0), "nfsnobody:nfsgroup": (4294967294, 4294967294),
}  # fmt: skip


@pytest.mark.parametrize("text", OWNERS, ids=lambda text: text[:20])
def test_owners(tree: FileTree, text: str) -> None:
    assert find_owner(tree, text) == OWNERS[text]


USERS = {
    "": ExecUser(0, 0, (10,), "/root"),
    "root": ExecUser(0, 0, (10,), "/root"),
    "app": ExecUser(1000, 1001, (10, 63), "/home/app"),
    "1000": ExecUser(1000, 1001, (10, 63), "/home/app"),
    "app:wheel": ExecUser(1000, 10, (), "/home/app"),
    "app:": ExecUser(1000, 1001, (10, 63), "/home/app"),
    "app:99": ExecUser(1000, 99, (), "/home/app"),
    "99": ExecUser(99, 0),
    "99:98": ExecUser(99, 98),
    ":wheel": ExecUser(0, 10, (), "/root"),
    "nogroups": ExecUser(77, 78, (), "/n"),
    "1234": ExecUser(50, 51, (), "/numeric"),  # a name goes before a number
    "77:4321": ExecUser(77, 60, (), "/n"),
    "short": ExecUser(5, 6, (), ""),
    "nfsnobody": ExecUser(4294967294, 4294967294, (), "/var/lib/nfs"),
    "app:nfsgroup": ExecUser(1000, 4294967294, (), "/home/app"),
    "odd": ExecUser(0, 0, (), "/odd"),
}


@pytest.mark.parametrize("text", USERS)
def test_users(tree: FileTree, text: str) -> None:
    assert find_user(read_accounts(tree), text) == USERS[text]


@pytest.mark.parametrize(
    ("text", "cause"), [("nobody", "no user 'nobody'"), ("app:nogroup", "no group 'nogroup'"), ("9" * 5000, "no user")]
)
def test_names_that_nobody_has(tree: FileTree, text: str, cause: str) -> None:
    with pytest.raises(StepFailed, match=cause) as caught:
        find_user(read_accounts(tree), text)
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["above", "negative", "endless", "groupless", "app:full"])
def test_ids_that_no_system_has(tree: FileTree, text: str) -> None:
    """They stand for nobody, and for root least of all."""
    with pytest.raises(StepFailed, match=r"/etc/(passwd|group) .* not an ID"):
        find_user(read_accounts(tree), text)
    with pytest.raises(StepFailed, match=r"/etc/(passwd|group) .* not an ID"):
        find_owner(tree, text)


def test_a_supplementary_group_that_no_system_has(tree: FileTree) -> None:
    with pytest.raises(StepFailed, match="/etc/group gives 'full' the number 4294967295"):
        find_user(read_accounts(tree), "crowded")


def test_an_image_without_users(bare: FileTree) -> None:
    assert find_user(read_accounts(bare), "") == ExecUser()
    assert find_user(read_accounts(bare), "5:6") == ExecUser(5, 6)
    assert find_owner(bare, "app:app") == (0, 0)
    for numbers in ("root", "1:2", "root:root", "7:", ""):
        check_owner(numbers, "--chown")
    for names in ("app", "1:app", "app:1"):
        with pytest.raises(StepFailed, match="--chown names 'app'"):
            check_owner(names, "--chown")
    with pytest.raises(StepFailed):
        find_user(read_accounts(bare), "app")


def test_passwd_may_be_a_link_but_leads_nowhere_outside(tmp_path: Path) -> None:
    write(tmp_path / "root", {"etc/passwd": "-> /real/passwd", "real/passwd": "app:x:1:2:::"})
    assert find_owner(LocalTree(str(tmp_path / "root")), "app") == (1, 2)
    write(tmp_path, {"daemon": "daemon:x:1:2:::", "other/etc/passwd": "-> ../../daemon"})
    assert find_owner(LocalTree(str(tmp_path / "other")), "daemon") == (0, 0)


@given(st.binary(max_size=60), st.text(max_size=10))
def test_any_passwd_can_be_read(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str) -> None:
    root = tmp_path_factory.mktemp("any")
    write(root, {"etc/passwd": b"app:x:" + b"9" * 5000 + b":1::\n" + data, "etc/group": data})
    tree = LocalTree(str(root))
    with suppress(StepFailed):
        find_owner(tree, name)
    with suppress(StepFailed):
        find_user(read_accounts(tree), name)
