"""A package that is loaded from a bundle as the program is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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


ALL = ["sample.inner", "sample.inner.two", "sample.one"]
"""What of it comes from a bundle that holds `sample.one`."""
