"""What a command line gave, kept so that the same words need not be read again.

People build and push again and again with the same command lines. To load click, state the options and read the words
takes an eighth of a build that changes an image's configuration alone. What came of the words is kept beside the notes
of `api.repeat`, under the same question: ROOT/repeats/KEY.given, a digest and JSON. It names places in the command line
instead of its words, since one of them may be a secret.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import xxhash

from builder import __version__
from builder.api.repeat.leave import make_room

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.api.repeat.question import Question

_DIGEST = 16  # bytes
_ALL = "all"
_STATING = ("build.py", "defaults.py", "flags.py", "main.py", "push.py")


def keep(asked: Question, root: str, given: dict[str, Any]) -> None:
    """Keep the store's path and the options that a command was given, of a store that is there. That they cannot
    be kept harms nothing."""
    options = {name: _put(value, asked.arguments) for name, value in given.items()}
    with suppress(OSError, ValueError):  # the latter for what is no text, and no word of the command line either
        data = msgspec.json.encode({"program": _program(), "root": _put(root, asked.arguments), "given": options})
        make_room(asked)
        asked.write(_path(asked), xxhash.xxh3_128_digest(data) + data)


def recall(asked: Question) -> tuple[str, dict[str, Any]] | None:
    """What `keep` was told when the same was asked, None if nothing or by another version of this program."""
    try:
        with open(_path(asked), "rb") as file:
            data = file.read()
    except OSError:
        return None
    digest, data = data[:_DIGEST], data[_DIGEST:]
    if digest != xxhash.xxh3_128_digest(data):
        return None
    known = msgspec.json.decode(data)
    if known["program"] != _program():
        return None
    given = {name: _take(value, asked.arguments) for name, value in known["given"].items()}
    return _take(known["root"], asked.arguments), given


def _path(asked: Question) -> str:
    return f"{asked.note}.given"


def _program() -> list[object]:
    """By what is known how this program reads the command line: the modules that state the options and flags."""
    here = os.path.dirname(os.path.abspath(__file__))
    facts = [os.stat(os.path.join(here, name)) for name in _STATING]
    return [__version__, *([status.st_size, status.st_mtime_ns] for status in facts)]


def _put(value: object, arguments: Sequence[str]) -> object:
    """A value as JSON: a text as the argument that ends with it and where it begins there, or as it is if there is
    none; several values below a name."""
    if isinstance(value, tuple):
        return {_ALL: [_put(one, arguments) for one in value]}
    if isinstance(value, str) and value:
        for place, argument in enumerate(arguments):
            if argument.endswith(value):
                return [place, len(argument) - len(value)]
    return value


def _take(kept: Any, arguments: Sequence[str]) -> Any:
    if isinstance(kept, dict):
        return tuple(_take(one, arguments) for one in kept[_ALL])
    if isinstance(kept, list):
        place, begin = kept
        return arguments[place][begin:]
    return kept
