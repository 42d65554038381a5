"""The program as it is installed: one file, which pip gives the interpreter's path."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib

from builder import __version__
from tests.support.builds import PROJECT


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
