"""The modules in one file: loaded from it, never in place of what their sources say."""

from __future__ import annotations

import marshal
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.builds import PROJECT
from tests.support.bundles import ALL, Sample


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return Sample(tmp_path)


def test_loaded_from_it_the_next_time(sample: Sample) -> None:
    assert sample.run("one") == ({"one": 2}, [])
    assert sample.run("one") == ({"one": 2}, ALL)


def test_written_once(sample: Sample) -> None:
    def written() -> tuple[int, int]:
        status = sample.file().stat()
        return status.st_ino, status.st_ctime_ns  # not when it was read

    sample.run("one")
    once = written()
    sample.run("one")
    sample.run("inner.two")
    assert written() == once


def test_grows_by_what_another_command_loads(sample: Sample) -> None:
    sample.run("inner.two")
    assert sample.run("one") == ({"one": 2}, ["sample.inner", "sample.inner.two"])
    assert sample.run("one") == ({"one": 2}, ALL)


@pytest.mark.parametrize(
    ("text", "later"), [("VALUE = 50\n", 0), ("VALUE = 5\n", 9)], ids=["another size", "another time"]
)
def test_a_changed_source_counts(sample: Sample, text: str, later: int) -> None:
    sample.run("one")
    path = sample.package / "inner/two.py"
    before = path.stat().st_mtime
    path.write_text(text)
    os.utime(path, (before + later, before + later))
    value = int(text.split()[-1])
    assert sample.run("one") == ({"one": value + 1}, ["sample.inner", "sample.one"])
    assert sample.run("one") == ({"one": value + 1}, ALL)


def test_a_removed_source_is_gone(sample: Sample) -> None:
    sample.run("one")
    (sample.package / "inner/two.py").unlink()
    assert list(sample.run("inner.two")[0]) == ["ModuleNotFoundError"]


def test_what_is_gone_leaves_it(sample: Sample) -> None:
    sample.run("one")
    (sample.package / "one.py").unlink()
    sample.run("inner.two", "inner.three")
    assert b"sample.inner.three" in sample.file().read_bytes()
    assert b"sample.one" not in sample.file().read_bytes()


def test_moved_with_its_package(sample: Sample, tmp_path: Path) -> None:
    """Names of files are those of the place where it is, in what a traceback shows, too."""
    sample.write("one.py", "import os\nVALUE = os.environ.get('FAIL') or 1\nif VALUE != 1: raise RuntimeError\n")
    sample.run("one")
    there = tmp_path / "there"
    there.mkdir()
    sample.package = sample.package.rename(there / "sample")
    sample.directory = there
    assert sample.run("one") == ({"one": 1}, ["sample.one"])
    assert sample.run("one", FAIL="1")[0] == {"RuntimeError": str(there / "sample/one.py")}


def test_the_source_can_be_asked_for(sample: Sample) -> None:
    sample.run("inner.three")
    said, found = sample.run("inner.three")
    assert said == {"inner.three": ""}
    assert "sample.inner.three" in found


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[:6], id="no whole head"),
        pytest.param(lambda data: data[:40], id="no whole index"),
        pytest.param(lambda data: data[:-1], id="cut short"),
        pytest.param(lambda data: data + b"\0", id="too long"),
        pytest.param(lambda data: bytes(4) + data[4:], id="of another interpreter"),
        pytest.param(lambda data: data[:12] + bytes(len(data) - 12), id="zeros"),
        pytest.param(lambda data: data[:4] + (5).to_bytes(4, "little") + bytes(4) + marshal.dumps(7), id="a number"),
        pytest.param(lambda data: data[:4] + b"\xff\xff\xff\x7f" + data[8:], id="a wrong length of the index"),
        pytest.param(lambda data: data[:8] + b"\xff\xff\xff\x7f" + data[12:], id="a wrong length of the code"),
    ],
)
def test_a_damaged_file_is_made_again(sample: Sample, damage: object) -> None:
    sample.run("one")
    file = sample.file()
    whole = file.read_bytes()
    assert callable(damage)
    file.write_bytes(damage(whole))
    assert sample.run("one") == ({"one": 2}, [])
    assert file.read_bytes() == whole


def test_code_that_cannot_be_read_comes_from_the_module(sample: Sample) -> None:
    sample.run("one")
    file = sample.file()
    data = bytearray(file.read_bytes())
    code = int.from_bytes(data[8:12], "little")
    data[-code:] = bytes(code)
    file.write_bytes(data)
    assert sample.run("one")[0] == {"one": 2}


def test_the_program_uses_it(tmp_path: Path) -> None:
    """A copy of the program, called twice: how many of its compiled modules it reads one by one."""
    copy = tmp_path / "builder"
    unwanted = shutil.ignore_patterns("*.modules")
    shutil.copytree(PROJECT / "builder", copy, ignore=unwanted)
    shutil.copytree(PROJECT / "grammar", tmp_path / "grammar", ignore=unwanted)
    environ = {"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def count() -> int:
        arguments = [sys.executable, "-v", f"{copy}/__main__.py", "--root", f"{tmp_path}/root", "images"]
        done = subprocess.run(arguments, env=environ, capture_output=True, text=True, check=True)
        return sum("code object from" in line and f"{copy}/" in line for line in done.stderr.splitlines())

    first = count()
    assert count() < first / 2
