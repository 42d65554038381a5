"""Stand-ins for modules that libraries load and hardly use: two thirds of a cached rebuild's time is importing.

Each stands in only while a library is loaded, and only for modules that nobody has loaded before.
"""

from __future__ import annotations

import sys
import typing
from _frozen_importlib import ModuleSpec  # `importlib.machinery` has it too, and loads more
from _frozen_importlib_external import PathFinder
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader  # which loads more than it saves

StandIns = Mapping[str, ModuleType | None]


def load(library: str, stand_ins: StandIns) -> None:
    """Import a library that gets these for modules of their names; None makes importing one fail.

    A library that asks them for more than they have gets the real modules.
    """
    _attempt(library, lambda: import_module(library), stand_ins)


def load_later(libraries: Iterable[str], stand_ins: Callable[[str], StandIns]) -> None:
    """Have libraries loaded so when somebody imports them; `stand_ins` is asked then, by the library's name."""
    sys.meta_path.insert(0, _Finder(libraries, stand_ins))


def import_module(name: str) -> ModuleType:
    """As that of `importlib`."""
    __import__(name)
    return sys.modules[name]


def _attempt(library: str, load_it: Callable[[], object], stand_ins: StandIns) -> None:
    """Load a library with stand-ins, or without if that fails."""
    before = set(sys.modules)
    with suppress(Exception), _standing_in(library, stand_ins), _unread_annotations():
        load_it()
        return
    for name in [name for name in sys.modules if name == library or name.startswith(f"{library}.")]:
        if name not in before:
            del sys.modules[name]
    load_it()


@contextmanager
def _standing_in(library: str, stand_ins: StandIns) -> Iterator[None]:
    names = stand_ins.keys() - sys.modules.keys()
    try:
        sys.modules.update({name: module for name, module in stand_ins.items() if name in names})  # type: ignore[misc]
        for name in names:
            package, _, child = name.rpartition(".")
            if package and package != library and stand_ins[name] is not None:
                # For `import email.message`, which is used as `email.message.Message` and by the library alone. It
                # stays there until somebody imports the real one.
                setattr(import_module(package), child, stand_ins[name])
        yield
    finally:
        for name in names:
            if sys.modules.get(name) is stand_ins[name]:
                sys.modules.pop(name, None)


@contextmanager
def _unread_annotations() -> Iterator[None]:
    """What is loaded meanwhile states types as texts, which `typing` compiles at once: the first makes the classes of
    all of the compiler's nodes, 119 of them. Here it takes them as they are; one that is asked for later is unknown."""
    names = typing.__dict__
    before = names.get("compile")
    names["compile"] = lambda *_: _unread.__code__
    try:
        yield
    finally:
        if before is None:
            del names["compile"]


def _unread() -> typing.NoReturn:
    raise NameError("an annotation that was not read when its library was loaded")


class _Finder:
    """Finds each of some libraries once, where the import system would have, and has it loaded with stand-ins."""

    def __init__(self, libraries: Iterable[str], stand_ins: Callable[[str], StandIns]) -> None:
        self._libraries = set(libraries)
        self._stand_ins = stand_ins

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._libraries:
            return None
        self._libraries.remove(name)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._stand_ins)  # type: ignore[assignment]
        return spec


class _Loader:
    def __init__(self, real: Loader, stand_ins: Callable[[str], StandIns]) -> None:
        self._real = real
        self._stand_ins = stand_ins

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._real
        _attempt(module.__name__, lambda: self._real.exec_module(module), self._stand_ins(module.__name__))


class Later(ModuleType):
    """A module that is loaded when something is asked of it, or one of `functions` is called."""

    def __init__(self, name: str, *functions: str) -> None:
        super().__init__(name)
        for function in functions:
            setattr(self, function, partial(self._call, function))

    def _call(self, function: str, *values: Any, **named: Any) -> Any:
        return getattr(self._real(), function)(*values, **named)

    def _stands_in(self) -> bool:
        return sys.modules.get(self.__name__) is self

    def _real(self) -> ModuleType:
        if self._stands_in():
            sys.modules.pop(self.__name__, None)
        return import_module(self.__name__)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system's own questions
            raise AttributeError(name)
        return getattr(self._real(), name)


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
