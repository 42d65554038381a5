"""Stand-ins for modules that libraries load and hardly use: two thirds of a cached rebuild's time is importing.

Each stands in only while a library is loaded, and only for modules that nobody has loaded before.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any


def load(library: str, stand_ins: Mapping[str, ModuleType | None]) -> None:
    """Import a library that gets these for modules of their names; None makes importing one fail.

    A library that asks them for more than they have gets the real modules.
    """
    names = stand_ins.keys() - sys.modules.keys()
    sys.modules.update({name: module for name, module in stand_ins.items() if name in names})  # type: ignore[misc]
    try:
        with suppress(Exception):
            import_module(library)
            return
        for name in [name for name in sys.modules if name == library or name.startswith(f"{library}.")]:
            del sys.modules[name]
    finally:
        for name in names:
            sys.modules.pop(name, None)
    import_module(library)


class Later(ModuleType):
    """A module that is loaded when something is asked of it, or one of `functions` is called."""

    def __init__(self, name: str, *functions: str) -> None:
        super().__init__(name)
        for function in functions:
            setattr(self, function, partial(self._call, function))

    def _call(self, function: str, *values: Any, **named: Any) -> Any:
        return getattr(import_module(self.__name__), function)(*values, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system's own questions
            raise AttributeError(name)
        return getattr(import_module(self.__name__), name)


class Types(ModuleType):
    """A module of types of which nobody here has a value, so that none need be known."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"unknown": None})  # which msgspec asks of uuid.SafeUUID


class Inspect(Later):
    """`inspect`, by which click takes the indentation from help texts: it loads the compiler's modules."""

    def __init__(self) -> None:
        super().__init__("inspect")

    def cleandoc(self, text: str) -> str:
        return text.strip() if "\n" not in text else str(self.__getattr__("cleandoc")(text))


class Gettext(Later):
    """`gettext`, by which click would translate its few words: there are no translations, and looking for them at
    each word loads the locales."""

    def __init__(self) -> None:
        super().__init__("gettext")

    @staticmethod
    def gettext(message: str) -> str:
        return message

    @staticmethod
    def ngettext(one: str, many: str, count: int) -> str:
        return one if count == 1 else many
