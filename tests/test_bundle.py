"""The modules in one file: loaded from it, never in place of what their sources say."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builder import bundle as bundle_module
from tests.support.builds import PROJECT

# A package of four modules, and a program that loads it as the builder is loaded: what comes from where.
MODULES = {
    "__init__.py": "",
    "first.py": "",
    "one.py": "from sample import first\nfrom sample.inner import two\nVALUE = two.VALUE + 1\n",
    "inner/__init__.py": "",
    "inner/two.py": "VALUE = 1\n",
    "inner/three.py": "import inspect\nfrom sample.inner import two\nSOURCE = inspect.getsource(two)\n",
}
PROGRAM = """\
import json, sys
from builder.bundle import Bundle
import sample.first
bundle = Bundle(sys.argv[1], "sample")
bundle.install()
import importlib
try:
    said = {name: getattr(importlib.import_module(f"sample.{name}"), "VALUE", "") for name in sys.argv[2:]}
except Exception as error:
    import traceback
    said = {type(error).__name__: [frame.filename for frame in traceback.extract_tb(error.__traceback__)][-1]}
loaders = {name: type(getattr(module, "__loader__", None)).__name__ for name, module in sys.modules.items()}
found = sorted(name for name, loader in loaders.items() if loader == "_Loader")
bundle.complete()
print(json.dumps([said, found]))
"""


class Sample:
    """The package in a directory, and what running the program in it says."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.package = directory / "sample"
        for name, text in MODULES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, *names: str, **environ: str) -> tuple[dict[str, object], list[str]]:
        environ = {"PYTHONPATH": f"{self.directory}:{PROJECT}", "PATH": os.environ["PATH"], **environ}
        arguments = [sys.executable, "-c", PROGRAM, str(self.package), *names]
        done = subprocess.run(arguments, env=environ, capture_output=True, text=True, check=True)
        said, found = json.loads(done.stdout)
        return said, found

    def file(self) -> Path:
        (file,) = self.package.rglob("*.modules")
        return file


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return Sample(tmp_path)


ALL = ["sample.inner", "sample.inner.two", "sample.one"]


def test_loaded_from_it_the_next_time(sample: Sample) -> None:
    assert sample.run("one") == ({"one": 2}, [])
    assert sample.run("one") == ({"one": 2}, ALL)


def test_written_once(sample: Sample) -> None:
    sample.run("one")
    written = sample.file().stat()
    sample.run("one")
    sample.run("inner.two")
    assert sample.file().stat() == written


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
        pytest.param(lambda data: data[:8] + bytes(len(data) - 8), id="zeros"),
        pytest.param(lambda data: data[:4] + b"\xff\xff\xff\x7f" + data[8:], id="a wrong length"),
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
    length = int.from_bytes(data[4:8], "little")
    data[8 + length :] = bytes(len(data) - 8 - length)
    file.write_bytes(data)
    assert sample.run("one")[0] == {"one": 2}


def test_not_written_where_python_writes_nothing(sample: Sample) -> None:
    sample.run("one", PYTHONDONTWRITEBYTECODE="1")
    assert not list(sample.package.rglob("*.modules"))
    sample.run("one")
    assert sample.run("one", PYTHONDONTWRITEBYTECODE="1") == ({"one": 2}, ALL)


def test_where_python_keeps_compiled_modules(sample: Sample, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    sample.run("one", PYTHONPYCACHEPREFIX=str(elsewhere))
    assert not list(sample.package.rglob("*.modules"))
    assert len(list(elsewhere.rglob("*.modules"))) == 1
    assert sample.run("one", PYTHONPYCACHEPREFIX=str(elsewhere)) == ({"one": 2}, ALL)


def test_one_for_each_way_to_compile(sample: Sample) -> None:
    sample.run("one")
    assert sample.run("one", PYTHONOPTIMIZE="2") == ({"one": 2}, [])
    assert sample.run("one", PYTHONOPTIMIZE="2") == ({"one": 2}, ALL)
    assert len(list(sample.package.rglob("*.modules"))) == 2


def test_nobody_minds_that_it_cannot_be_written(sample: Sample) -> None:
    (sample.package / "__pycache__").write_text("a file")
    assert sample.run("one") == ({"one": 2}, [])
    assert sample.run("one") == ({"one": 2}, [])


def test_nothing_is_read_where_it_cannot_be_written(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a program is used that belongs to somebody else."""
    sample.run("one")
    sample.file().unlink()
    monkeypatch.syspath_prepend(sample.directory)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    read: list[str] = []
    monkeypatch.setattr(bundle_module, "_compiled", lambda source: read.append(source))
    made = bundle_module.Bundle(str(sample.package), "sample")
    importlib.import_module("sample.one")
    try:
        made.complete()
        assert read
        read.clear()
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        made.complete()
        assert not read
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "sample"]:
            del sys.modules[name]


def test_no_half_written_file_stays(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bundle_module.Bundle(str(sample.package), "sample")
    (sample.package / "__pycache__").mkdir()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(KeyboardInterrupt):
        made._write({"sample.one": ("one.py", 0, 0, b"code")})
    assert not list(sample.package.rglob("*modules*"))


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
