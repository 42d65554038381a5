"""The program as it is installed: one file, which pip gives the interpreter's path; and where text is not UTF-8."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from builder import __version__
from tests.support.builds import PROJECT, Cli, busybox_context, context, needs_sandbox

PLAIN = {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "LC_ALL": "C"}
"""Where Python reads and writes ASCII."""
WAYS = {
    "module": ["-m", "builder"],
    "script": [str(PROJECT / "builder/__main__.py")],
    "code": ["-c", "from builder.__main__ import run; run()"],
    "with options": ["-W", "error", "-X", "dev", "-m", "builder"],
}
ODD = "m\u00fcsli \u2026"


def test_the_script() -> None:
    """What pip does with a script of a wheel: the first line is replaced, the mode kept."""
    with open(PROJECT / "pyproject.toml", "rb") as file:
        scripts = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-scripts"]
    assert scripts == {"builder/__main__.py": "builder"}
    program = PROJECT / "builder/__main__.py"
    assert program.read_text().startswith("#!python\n")
    assert os.access(program, os.X_OK)
    environ = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, program, "--version"], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"builder {__version__}\n"


@pytest.fixture
def latin(tmp_path: Path) -> dict[str, str]:
    """Variables for a locale in which text is ISO-8859-1."""
    if shutil.which("localedef") is None:
        pytest.skip("needs localedef (Debian package libc-bin) to make a locale")
    name = "de_DE.ISO-8859-1"
    made = subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", tmp_path / name], capture_output=True)
    if made.returncode:
        pytest.skip("needs the sources of locales (Debian package locales)")
    environ = {"LOCPATH": str(tmp_path), "LC_ALL": name}
    asked = [sys.executable, "-c", "import sys; print(sys.getfilesystemencoding())"]
    assert subprocess.run(asked, env={**os.environ, **environ}, capture_output=True).stdout == b"iso8859-1\n"
    return environ


def builder(cli: Cli, way: str, *arguments: str | Path, environ: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, *WAYS[way], *cli.arguments(*arguments)], env={**cli.environ, **environ}, capture_output=True
    )


@pytest.mark.parametrize("way", WAYS)
def test_names_are_utf_8_whatever_the_locale(cli: Cli, tmp_path: Path, latin: dict[str, str], way: str) -> None:
    directory = context(tmp_path / ODD, f"FROM scratch\nCOPY . /\nLABEL name={ODD[:5]}\n", **{ODD: "x", "a": "a"})
    done = builder(cli, way, "build", "-t", "x", "--label", f"given={ODD}", directory, environ=latin)
    assert done.returncode == 0, done.stderr.decode()
    assert ODD in cli.files("x")
    assert cli.config("x")["config"]["Labels"] == {"name": ODD[:5], "given": ODD}
    listed = builder(cli, way, "ls", "x", environ=latin)
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert ODD in listed.stdout.decode()


@needs_sandbox
def test_what_a_step_names(cli: Cli, tmp_path: Path, latin: dict[str, str]) -> None:
    cli.root = tmp_path / f"{ODD} store"
    source = busybox_context(tmp_path / "context", f"COPY b /b\nRUN cat '/b/{ODD}' > '/{ODD}'; echo {ODD}\n")
    (source / "b").mkdir()
    (source / "b" / ODD).write_text("x")
    done = builder(cli, "module", "build", "--progress", "plain", "-t", "x", source, environ=latin)
    assert done.returncode == 0, done.stderr.decode()
    assert cli.files("x")[ODD].content == b"x"
    assert f" {ODD}\n" in done.stderr.decode()


def test_bytes_of_arguments_stay(cli: Cli, tmp_path: Path, latin: dict[str, str]) -> None:
    directory = context(tmp_path / os.fsdecode(b"caf\xe9"), "FROM scratch\nCOPY a /\n", a="a")
    done = builder(cli, "module", "build", "-t", "x", directory, environ=latin)
    assert done.returncode == 0, done.stderr.decode()
    assert "a" in cli.files("x")


@pytest.mark.parametrize("way", WAYS)
def test_a_locale_without_letters(cli: Cli, tmp_path: Path, way: str) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nCOPY . /\n", **{ODD: "x", "a": "a"})
    for arguments in (("build", "-t", "x", directory), ("ls", "x"), ("build", "--help")):
        done = builder(cli, way, *arguments, environ=PLAIN)
        assert done.returncode == 0, done.stderr.decode()
    assert ODD in cli.files("x")


@pytest.mark.parametrize("environ", [{}, PLAIN])
def test_what_a_terminal_cannot_show_is_no_error(cli: Cli, tmp_path: Path, environ: dict[str, str]) -> None:
    cli.build("-t", "x", context(tmp_path / "context", "FROM scratch\nCOPY . /\n", **{ODD: "x"}))
    done = builder(cli, "module", "ls", "x", environ={**environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"m\\xfcsli \\u2026" in done.stdout


def test_who_wants_another_encoding_gets_it(cli: Cli) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-m", "builder", "--version"], env={**cli.environ, **PLAIN},
        capture_output=True, timeout=20,
    )  # fmt: skip
    assert done.returncode == 0
