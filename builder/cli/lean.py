"""Stand-ins for modules that libraries load and hardly use: two thirds of a cached rebuild's time is importing.

Each stands in only while a library is loaded, and only for modules that nobody has loaded before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any


@contextmanager
def standing_in(*modules: ModuleType) -> Iterator[None]:
    """Have others that import modules of these names get these meanwhile."""
    names = [module.__name__ for module in modules if module.__name__ not in sys.modules]
    sys.modules.update({module.__name__: module for module in modules if module.__name__ in names})
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)


class Platform(ModuleType):
    """`platform`, of which `uuid` asks the operating system's name: it compiles a dozen regular expressions."""

    def __init__(self) -> None:
        super().__init__("platform")

    @staticmethod
    def system() -> str:
        return os.uname().sysname


class Inspect(ModuleType):
    """`inspect`, by which click takes the indentation from help texts: it loads the compiler's modules. Whatever else
    is asked of it the real one answers."""

    def __init__(self) -> None:
        super().__init__("inspect")

    def cleandoc(self, text: str) -> str:
        return text.strip() if "\n" not in text else str(self.__getattr__("cleandoc")(text))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system's own questions
            raise AttributeError(name)
        return getattr(import_module("inspect"), name)
