"""The program's compiled modules in one file, which a command loads them from.

A build loads some 130 modules of this package. For each, Python looks through a directory, opens the compiled module,
reads it and asks for the time of its source. Here they lie behind each other in a file that is opened once; what is
left is the look at the source's time and size, by which Python, too, knows an outdated module.

The file lies in `__pycache__`, under the rules of compiled modules: whoever may write there is trusted with the code
anyway; where nobody may, or PYTHONDONTWRITEBYTECODE is set, none is written. It is made of the modules' own files
there, at the end of a command that has loaded others than it holds (`writer`).

    the interpreter's magic number, 4 bytes; the length of the index, 4 bytes; the length of all code, 4 bytes
    by each module's name: its file below the package, its source's time and size, where its code begins, how long it is
    the code of all modules, as `marshal` writes it

Standard library only, and as little as there is, since it comes before all else.
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

_HEAD = 12  # bytes in front of the index
_WORD = 0xFFFF_FFFF
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_NAME = __name__.partition(".")[0]


class Bundle:
    """A file of compiled modules as a finder of `sys.meta_path`. What it does not hold, or holds of another source, is
    left to the finders after it."""

    def __init__(self, package: str = _PACKAGE, name: str = _NAME) -> None:
        self.package = package
        self._name = name
        # Its name tells the interpreter, and how far it optimises; its place is where PYTHONPYCACHEPREFIX says.
        self.path = cache_from_source(f"{package}/all.py").removesuffix(".pyc") + ".modules"
        self._file = -1
        self._code = 0  # where that of the modules begins in the file
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
        file = f"{self.package}/{file}"
        spec = ModuleSpec(name, _Loader(name, file, self._file, self._code + begin, length), origin=file)
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
        if sys.dont_write_bytecode:
            return
        found = []
        for name, module in sys.modules.copy().items():
            loader = getattr(module, "__loader__", None)
            if name.startswith(f"{self._name}.") and type(loader) is SourceFileLoader and name not in self._before:
                found.append((name, loader.path))
        if found and os.access(os.path.dirname(self.path), os.W_OK):  # others' programs are used again and again
            from builder.bundle.writer import write

            write(self, found)

    def kept(self) -> dict[str, tuple[str, int, int, bytes]]:
        """What it holds that is not outdated: by their names the file, the source's time and size, the code. Raises
        OSError."""
        return {
            name: (file, time, size, os.pread(self._file, length, self._code + begin))
            for name, (file, time, size, begin, length) in self._entries.items()
            if self._is_current(self._entries[name])
        }

    def _is_current(self, entry: Entry) -> bool:
        file, time, size, *_ = entry
        try:
            status = os.stat(f"{self.package}/{file}")
        except OSError:
            return False
        return (int(status.st_mtime) & _WORD, status.st_size & _WORD) == (time, size)

    def _read(self) -> None:
        """Open the file, unless there is none or it is not whole."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        size = os.fstat(file).st_size
        head = os.pread(file, _HEAD, 0)
        index = int.from_bytes(head[4:8], "little")
        if head[:4] == MAGIC_NUMBER and _HEAD + index + int.from_bytes(head[8:], "little") == size:
            try:
                self._entries = dict(marshal.loads(os.pread(file, index, _HEAD)))
                self._file, self._code = file, _HEAD + index
                return
            except (EOFError, ValueError, TypeError):
                pass
        os.close(file)


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
