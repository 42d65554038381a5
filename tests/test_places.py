from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from builder import config
from builder.errors import StoreError
from builder.places import configuration_files, default_root
from tests.support.builds import Cli

HOMELESS = """\
import os, pwd, sys
def unknown(uid):
    raise KeyError(uid)
os.geteuid, pwd.getpwuid = lambda: 54321, unknown
from builder.__main__ import run
run()
"""
"""The program for a user whom the system does not know."""


def test_default_root(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_root({"BUILDER_ROOT": "/x"}) == "/x"
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_root({"HOME": "/root"}) == "/var/lib/builder"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert default_root({"HOME": "/home/u"}) == "/home/u/.local/share/builder"
    assert default_root({"HOME": "/home/u", "XDG_DATA_HOME": "/d"}) == "/d/builder"
    assert default_root({"HOME": "/home/u", "XDG_DATA_HOME": "relative"}) == "/home/u/.local/share/builder"


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "."}, {"HOME": "~"}, {"XDG_DATA_HOME": "d"}])
def test_without_a_home_the_system_is_asked(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: pwd.struct_passwd(("u", "x", uid, uid, "", "/home/u", "sh")))
    assert default_root(environ) == "/home/u/.local/share/builder"
    assert configuration_files(environ)[1] == "/home/u/.config/builder/builder.toml"


def test_without_any_home_nothing_is_in_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(StoreError) as caught:
        default_root({})
    assert caught.value.remedy == "set HOME, or give --root DIR"
    assert default_root({"XDG_DATA_HOME": "/d"}) == "/d/builder"
    assert configuration_files({}) == ("/etc/builder/builder.toml",)
    assert all(os.path.isabs(path) for path in config.load({}).certificate_directories)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [("images", 1), ("build .", 1), ("push x", 1), ("build --help", 0), ("--root r images", 0)],
)
def test_an_error_says_what_to_set(cli: Cli, tmp_path: Path, arguments: str, status: int) -> None:
    work = tmp_path / "work"
    work.mkdir()
    environ = {name: value for name, value in cli.environ.items() if name not in ("HOME", "BUILDER_CONFIG")}
    done = subprocess.run(
        [sys.executable, "-c", HOMELESS, *arguments.split()], env=environ, cwd=work, capture_output=True, text=True
    )
    assert done.returncode == status, done.stderr
    if status:
        assert done.stderr.startswith("error: it is not known where the store is: ")
        assert done.stderr.endswith("\nhelp: set HOME, or give --root DIR\n")
    assert not (work / "~").exists()


def test_configuration_files() -> None:
    assert configuration_files({"HOME": "/home/u"})[1] == "/home/u/.config/builder/builder.toml"
    assert configuration_files({"HOME": "/home/u", "XDG_CONFIG_HOME": "/c"})[1] == "/c/builder/builder.toml"
    assert configuration_files({"BUILDER_CONFIG": "/x.toml"}) == ("/x.toml",)
    assert len(configuration_files({"HOME": "/home/u", "BUILDER_CONFIG": ""})) == 2
