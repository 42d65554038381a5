"""Writes a bundle, from the compiled modules that Python has written."""

from __future__ import annotations

import marshal
import os
from _frozen_importlib_external import MAGIC_NUMBER, cache_from_source
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from builder.bundle import Bundle, Entry

_COMPILED_HEAD = 16  # bytes in front of a compiled module's code (PEP 552): magic number, flags, time, size


def write(bundle: Bundle, loaded: Iterable[tuple[str, str]]) -> None:
    """Put these modules, names and sources, into the file, beside what is in it and is not outdated. Nothing is
    written if none of them has been compiled, or if it cannot be."""
    fresh = {}
    for name, source in loaded:
        compiled = _compiled(source)
        if compiled is not None:
            fresh[name] = (os.path.relpath(source, bundle.package), *compiled)
    if fresh:
        try:
            _replace(bundle.path, bundle.kept() | fresh)
        except OSError:
            return


def _replace(path: str, modules: Mapping[str, tuple[str, int, int, bytes]]) -> None:
    """Write a file of modules: by their names the file, the source's time and size, the code."""
    entries: dict[str, Entry] = {}
    done = 0
    for name, (file, time, size, code) in modules.items():
        entries[name] = (file, time, size, done, len(code))
        done += len(code)
    index = marshal.dumps(entries)
    head = MAGIC_NUMBER + len(index).to_bytes(4, "little") + done.to_bytes(4, "little")
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as writing:
        try:
            writing.write(b"".join((head, index, *(code for *_, code in modules.values()))))
            writing.flush()
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


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
