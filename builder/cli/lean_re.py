"""`re`, loaded when the first expression is needed: `typing` and `msgspec` load it for two types and a function, and
the modules here for what few command lines and Dockerfiles hold. It takes 1.4 ms."""

# Nothing here may load `typing`.
import _sre  # type: ignore[import-not-found]  # the interpreter's own part of `re`
import sys
from _thread import allocate_lock
from types import ModuleType

_SUCCESS = 1  # the operation that ends an expression (`re._constants.SUCCESS`), here the only one
_turn = allocate_lock()


class _Expressions(ModuleType):
    """Stands in for `re` until something else than these is asked of it, and is as good as that from then on."""

    def __init__(self) -> None:
        super().__init__("re")
        pattern = _sre.compile("", 0, [_SUCCESS], 0, {}, ())
        self.Pattern = type(pattern)
        self.Match = type(pattern.match(""))

    def compile(self, *values: object, **named: object) -> object:
        return self.__getattr__("compile")(*values, **named)  # type: ignore[operator]

    def __getattr__(self, name: str) -> object:
        with _turn:  # of several threads, none may take away what another has loaded
            if sys.modules.get("re") is self:
                del sys.modules["re"]
        import re

        self.__dict__.update(vars(re))
        return getattr(re, name)


def install() -> None:
    """Let `re` be loaded later, unless it is there."""
    if "re" in sys.modules:
        return
    try:
        stand_in = _Expressions()
    except Exception:  # another interpreter's expressions look different
        return
    sys.modules["re"] = stand_in
