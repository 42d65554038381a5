"""Modules of the standard library that are loaded when the first thing is asked of them that needs it.

`re` takes 1.4 ms: `typing` and `msgspec` load it for two types and a function, and the modules here for what few
command lines and Dockerfiles hold. `threading` takes 0.7 ms: most of what loads it makes locks and no threads.
`operator` takes 0.4 ms to define in Python what it then has from `_operator`, and `warnings` as long to show none.
"""

# Nothing here may load `typing`.
import _operator
import _sre  # type: ignore[import-not-found]  # the interpreter's own part of `re`
import _thread
import sys
from types import ModuleType

_SUCCESS = 1  # the operation that ends an expression (`re._constants.SUCCESS`), here the only one
_turn = _thread.allocate_lock()


class _Late(ModuleType):
    """Stands in for a module until something is asked of it that it has not, and is as good as that from then on."""

    is_package = False

    def __getattr__(self, name: str) -> object:
        if name == "__path__" and not self.is_package:  # the import system asks it before it takes a name from a module
            raise AttributeError(name)
        with _turn:  # of several threads, none may take away what another has loaded
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        module = __import__(self.__name__)
        self.__dict__.update(vars(module))
        return getattr(module, name)


class _Expressions(_Late):
    is_package = True

    def __init__(self) -> None:
        super().__init__("re")
        pattern = _sre.compile("", 0, [_SUCCESS], 0, {}, ())
        self.Pattern = type(pattern)
        self.Match = type(pattern.match(""))

    def compile(self, *values: object, **named: object) -> object:
        return self.__getattr__("compile")(*values, **named)  # type: ignore[operator]


class _Threads(_Late):
    def __init__(self) -> None:
        super().__init__("threading")
        self.Lock = _thread.allocate_lock
        self.RLock = _thread.RLock
        self.local = _thread._local


class _Operators(_Late):
    def __init__(self) -> None:
        super().__init__("operator")
        self.__dict__.update({name: value for name, value in vars(_operator).items() if not name.startswith("_")})


def install() -> None:
    """Let them be loaded later, unless they are there."""
    if "operator" not in sys.modules:
        sys.modules["operator"] = _Operators()
    if "warnings" not in sys.modules:
        sys.modules["warnings"] = _Late("warnings")
    if "threading" not in sys.modules:
        sys.modules["threading"] = _Threads()
    if "re" not in sys.modules:
        try:
            sys.modules["re"] = _Expressions()
        except Exception:  # another interpreter's expressions look different
            return
