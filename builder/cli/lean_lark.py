"""What stands in while Lark is loaded. It comes with parsers, tools and checks that a grammar whose tables are known
(they are kept, see `dockerfile.tables`) never asks for; making the tables asks for some."""

from __future__ import annotations

from typing import Any

from builder.cli.lean import Later, StandIns
from builder.cli.lean_libraries import Inspect


def stand_ins() -> StandIns:
    """The modules for Lark, by their names."""
    return {
        "ast": Later("ast", "literal_eval"),
        "atomicwrites": None,  # this and the next three are what Lark uses if it is there, and does without
        "interegular": None,
        "regex": None,
        "rich": None,
        "getpass": Later("getpass"),
        "hashlib": Later("hashlib"),
        "inspect": Members(),
        "lark.parsers.cyk": Later("lark.parsers.cyk", "Parser"),
        "lark.parsers.earley": Later("lark.parsers.earley", "Parser"),
        "lark.parsers.xearley": Later("lark.parsers.xearley", "Parser"),
        "logging": Logging(),
        "pickle": Later("pickle"),
        "pkgutil": Later("pkgutil"),
        "random": Later("random", "randint"),
        "tempfile": Later("tempfile"),
        "unicodedata": Later("unicodedata"),
    }


class Members(Inspect):
    """`inspect`, by which Lark finds the methods of a class to wrap them."""

    @staticmethod
    def getmro(cls: type) -> tuple[type, ...]:
        return cls.__mro__

    @staticmethod
    def getmembers(cls: type) -> list[tuple[str, object]]:
        return [(name, getattr(cls, name)) for name in sorted(dir(cls)) if hasattr(cls, name)]


class Logging(Later):
    """`logging`, of which Lark makes a logger that says nothing unless a grammar is to be debugged."""

    CRITICAL = 50

    def __init__(self) -> None:
        super().__init__("logging")
        self.Logger = Logger  # an annotation

    @staticmethod
    def getLogger(name: str) -> Logger:
        return Logger(name)

    @staticmethod
    def StreamHandler(*_: Any) -> None:
        return None


class Logger:
    """Lark's logger: made, with the handler that Lark gives it, when it is used."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._level = 0
        self._made: Any = None

    def addHandler(self, handler: object) -> None:
        if handler is not None:  # Lark's own
            self._real().addHandler(handler)

    def setLevel(self, level: int) -> None:
        self._level = level
        if self._made is not None:
            self._made.setLevel(level)

    def _real(self) -> Any:
        if self._made is None:
            import logging

            self._made = logging.getLogger(self._name)
            self._made.addHandler(logging.StreamHandler())
            self._made.setLevel(self._level)
        return self._made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)
