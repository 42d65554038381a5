"""Which changes of files are past."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builder.filesystem import moments
from builder.filesystem.moments import Moment, has_exact_times, now

SECOND = 1_000_000_000
AT = 1_700_000_000 * SECOND + 5
"""A moment, not in whole seconds."""

ROOT = "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
TABLES = {
    "a local file system": (ROOT, True),
    "lines in any order": ("22 27 0:21 / /proc rw - proc proc rw\n" + ROOT, True),
    "an optional field more, or none": ("27 1 254:0 / / rw shared:1 master:2 - xfs /dev/vda rw\n", True),
    "one that is its own parent": ("27 27 254:0 / / rw - btrfs /dev/vda rw\n", True),
    "a container's": ("27 1 0:30 / / rw - overlay overlay rw,upperdir=/u\n", False),
    "a volume of a container": ("27 1 0:30 / / rw - overlay o rw\n28 27 8:1 /v /a/b rw - ext4 /x rw\n", True),
    "of another machine": (ROOT + "28 27 0:30 / /a rw - nfs4 s:/ rw\n", False),
    "beside": (ROOT + "28 27 0:30 / /a/bb rw - nfs4 s:/ rw\n", True),
    "below": (ROOT + "28 27 0:30 / /a/b/c/d rw - fuse.sshfs host: rw\n", False),
    "below, and as good": (ROOT + "28 27 0:30 / /a/b/c/d rw - tmpfs tmpfs rw\n", True),
    "mounted over": (ROOT + "28 27 8:1 / /a/b rw - ext4 /x rw\n29 28 0:30 / /a/b rw - nfs4 s:/ rw\n", False),
    "mounted over above": (ROOT + "28 27 8:1 / /a/b rw - xfs /x rw\n29 27 0:30 / /a rw - nfs4 s:/ rw\n", False),
    "mounted in it": (ROOT + "29 27 0:30 / /a rw - nfs4 s:/ rw\n28 29 8:1 / /a/b rw - xfs /x rw\n", True),
    "no root": ("28 27 8:1 / /elsewhere rw - ext4 /x rw\n", False),
    "nothing": ("", False),
    "something else": ("one two three four five - ext4\n", False),
    "no kind": ("27 1 254:0 / / rw,relatime\n", False),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_file_systems_by_the_table_of_mounts(tmp_path: Path, case: str) -> None:
    table, exact = TABLES[case]
    (tmp_path / "mountinfo").write_text(table)
    assert has_exact_times("/a/b", str(tmp_path / "mountinfo")) is exact


def test_white_space_in_names_of_mounts(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(ROOT + "28 27 0:30 / /a\\040b\\134c rw - nfs4 s:/ rw\n")
    assert not has_exact_times("/a b\\c/d", str(tmp_path / "mountinfo"))
    assert has_exact_times("/a", str(tmp_path / "mountinfo"))


def test_a_link_and_what_it_leads_to(tmp_path: Path) -> None:
    far, near = tmp_path / "far", tmp_path / "near"
    far.mkdir()
    near.mkdir()
    (far / "to-near").symlink_to(near)
    (near / "to-far").symlink_to(far)
    (tmp_path / "mountinfo").write_text(ROOT + f"28 27 0:30 / {far.resolve()} rw - nfs4 s:/ rw\n")
    assert not has_exact_times(f"{near}/to-far/../far/x", str(tmp_path / "mountinfo"))  # `..` is that of where it leads
    assert has_exact_times(f"{near}/to-far/../near", str(tmp_path / "mountinfo"))
    answers = {path: has_exact_times(str(path), str(tmp_path / "mountinfo")) for path in tmp_path.rglob("*")}
    assert [path.name for path, exact in answers.items() if exact] == ["near", "mountinfo"]


def test_without_a_table_of_mounts_nothing_is_known(tmp_path: Path) -> None:
    assert not has_exact_times("/", str(tmp_path / "none"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_real_table(tmp_path: Path) -> None:
    """A tmpfs, and another file system in it."""
    program = (
        "import os, sys\nfrom builder.filesystem.moments import has_exact_times\n"
        "print(has_exact_times(sys.argv[1]), has_exact_times(sys.argv[1] + '/a'), has_exact_times(sys.argv[1] + '/p'))"
    )
    script = 'mount -t tmpfs x "$1" && mkdir "$1/a" "$1/p" && mount -t proc x "$1/p" && exec "$2" -c "$0" "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, program, tmp_path, sys.executable],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["False", "True", "False"], done.stderr


@pytest.mark.parametrize(
    ("age", "exact", "rounded"),
    [
        (-SECOND, False, False),  # in the future
        (0, False, False),
        (99_000_000, False, False),
        (101_000_000, True, False),
        (SECOND, True, False),
        (SECOND + 5, False, False),  # in whole seconds
        (2 * SECOND, True, False),
        (2 * SECOND + 1, True, True),
        (3 * SECOND + 5, True, True),
    ],
)
def test_changes_that_are_past(monkeypatch: pytest.MonkeyPatch, age: int, exact: bool, rounded: bool) -> None:
    for answer, expected in ((True, exact), (False, rounded)):
        monkeypatch.setattr(moments, "has_exact_times", lambda _, answer=answer: answer)
        assert Moment(AT).is_past(AT - age, "/context") is expected


def test_mounts_are_looked_at_for_young_files_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def spy(place: str) -> bool:
        asked.append(place)
        return True

    monkeypatch.setattr(moments, "has_exact_times", spy)
    moment = Moment(AT)
    assert moment.is_past(AT - 3 * SECOND, "/a")
    assert asked == []
    assert all(moment.is_past(AT - SECOND // 2 - number, place) for number in (1, 2) for place in ("/a", "/b"))
    assert asked == ["/a", "/b"]


def test_what_is_past_by_the_clock_of_files_bears_another_time_when_it_changes(tmp_path: Path) -> None:
    """The kernel's promise on which all here stands, where `tmp_path` is such a file system."""
    if not has_exact_times(str(tmp_path)):
        pytest.skip("the temporary directory's file system is not known to store times as the kernel gives them")
    file = tmp_path / "file"
    for turn in range(200):
        file.write_text("one")
        before = os.stat(file).st_ctime_ns
        time.sleep(turn / 50_000)
        past = before < now()
        file.write_text("two")
        if past:
            assert os.stat(file).st_ctime_ns > before
