"""The program's compiled modules in one file, which a command loads them from.

A build loads some 130 modules of this package. For each, Python looks through a directory, opens the compiled module,
reads it and asks for the time of its source. Here they lie behind each other in a file that is opened once; what is
left is the look at the source's time and size, by which Python, too, knows an outdated module.

The file lies in `__pycache__`, under the rules of compiled modules: whoever may write there is trusted with the code
anyway; where nobody may, or PYTHONDONTWRITEBYTECODE is set, none is written. It is made of the modules' own files
there, at the end of a command that has loaded others than it holds.

    the interpreter's magic number, 4 bytes; the length of what follows, 4 bytes
    by each module's name: its file below the package, its source's time and size, where its code begins, how long it is
    the code of all modules, as `marshal` writes it

Standard library only, since it comes before all else.
"""

from __future__ import annotations

import _imp
import marshal
import os
import sys

# The parts of importlib that every start has loaded.
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader, cache_from_source

TYPE_CHECKING = False  # as type checkers know it; loading `typing` takes longer than all the rest here
if TYPE_CHECKING:
    from types import CodeType, ModuleType

    Entry = tuple[str, int, int, int, int]

_HEAD = 8  # bytes in front of the index
_COMPILED_HEAD = 16  # bytes in front of a compiled module's code (PEP 552): magic number, flags, time, size
_WORD = 0xFFFF_FFFF
_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_NAME = __name__.partition(".")[0]


class Bundle:
    """A file of compiled modules as a finder of `sys.meta_path`. What it does not hold, or holds of another source, is
    left to the finders after it."""

    def __init__(self, package: str = _PACKAGE, name: str = _NAME) -> None:
        self._package = package
        self._name = name
        # Its name tells the interpreter, and how far it optimises; its place is where PYTHONPYCACHEPREFIX says.
        self.path = cache_from_source(os.path.join(package, "all.py")).removesuffix(".pyc") + ".modules"
        self._file = -1
        self._before: frozenset[str] = frozenset()
        self._entries: dict[str, Entry] = {}

    def install(self) -> None:
        """Load from it what is imported from now on."""
        self._before = frozenset(sys.modules)
        self._read()
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        entry = self._entries.get(name)
        if entry is None or not self._is_current(entry):
            return None
        file, _, _, begin, length = entry
        file = f"{self._package}/{file}"
        spec = ModuleSpec(name, _Loader(name, file, self._file, begin, length), origin=file)
        package, _, last = file.rpartition("/")
        if last == "__init__.py":
            spec.submodule_search_locations = [package]
        spec.has_location = True
        # Where its code is from, indeed; the import system would make up the compiled module's name, in 8 µs.
        spec.cached = self.path
        return spec

    def complete(self) -> None:
        """Write the file anew if modules were loaded that it does not hold, with them. All is only slower without it,
        so that what keeps it from being written is nobody's concern."""
        if sys.dont_write_bytecode or not os.access(os.path.dirname(self.path), os.W_OK):
            return  # before anything is read: others' programs are used again and again
        fresh = {}
        for name, module in sys.modules.copy().items():
            loader = getattr(module, "__loader__", None)
            if name.startswith(f"{self._name}.") and type(loader) is SourceFileLoader and name not in self._before:
                compiled = _compiled(loader.path)
                if compiled is not None:
                    fresh[name] = (os.path.relpath(loader.path, self._package), *compiled)
        if not fresh:
            return
        try:
            for name, entry in self._entries.items():
                if name not in fresh and self._is_current(entry):
                    file, time, size, begin, length = entry
                    fresh[name] = (file, time, size, os.pread(self._file, length, begin))
            self._write(fresh)
        except OSError:
            return

    def _is_current(self, entry: Entry) -> bool:
        file, time, size, *_ = entry
        try:
            status = os.stat(f"{self._package}/{file}")
        except OSError:
            return False
        return (int(status.st_mtime) & _WORD, status.st_size & _WORD) == (time, size)

    def _read(self) -> None:
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        self._entries = _index(file)
        if self._entries:
            self._file = file
        else:
            os.close(file)

    def _write(self, modules: dict[str, tuple[str, int, int, bytes]]) -> None:
        """Write modules: by their names the file, the source's time and size, the code."""
        entries: dict[str, Entry] = {}
        done = 0
        for name, (file, time, size, code) in modules.items():
            entries[name] = (file, time, size, done, len(code))
            done += len(code)
        index = marshal.dumps(entries)
        head = MAGIC_NUMBER + len(index).to_bytes(4, "little")
        temporary = f"{self.path}.{os.getpid()}"
        with open(temporary, "wb") as writing:
            try:
                writing.write(b"".join((head, index, *(code for *_, code in modules.values()))))
                writing.flush()
                os.rename(temporary, self.path)
            except BaseException:
                os.unlink(temporary)
                raise


class _Loader(SourceFileLoader):
    """Loads a module's code from a bundle, and all else that is asked of it from its file."""

    def __init__(self, name: str, path: str, bundle: int, begin: int, length: int) -> None:
        super().__init__(name, path)
        self._bundle, self._begin, self._length = bundle, begin, length

    def get_code(self, fullname: str) -> CodeType | None:
        try:
            code: CodeType = marshal.loads(os.pread(self._bundle, self._length, self._begin))
            # As Python does: it may have been compiled by another path.
            _imp._fix_co_filename(code, self.path)  # type: ignore[attr-defined]
        except (EOFError, ValueError, TypeError, OSError):
            return super().get_code(fullname)
        return code


def _index(file: int) -> dict[str, Entry]:
    """What a file of modules says that it holds, with the places in the file; nothing if it is not whole."""
    size = os.fstat(file).st_size
    head = os.pread(file, _HEAD, 0)
    first = _HEAD + int.from_bytes(head[4:], "little")
    if head[:4] != MAGIC_NUMBER or first > size:
        return {}
    try:
        entries: dict[str, Entry] = dict(marshal.loads(os.pread(file, first - _HEAD, _HEAD)))
    except (EOFError, ValueError, TypeError):
        return {}
    if first + sum(length for *_, length in entries.values()) != size:
        return {}
    return {name: (*entry[:3], first + entry[3], entry[4]) for name, entry in entries.items()}


def _compiled(source: str) -> tuple[int, int, bytes] | None:
    """The time and size of the source that a compiled module was made from, and its code; None if there is none, or it
    is known by something else (PEP 552)."""
    try:
        with open(cache_from_source(source), "rb") as file:
            data = file.read()
    except OSError:
        return None
    if data[:8] != MAGIC_NUMBER + bytes(4):
        return None
    return int.from_bytes(data[8:12], "little"), int.from_bytes(data[12:16], "little"), data[_COMPILED_HEAD:]
