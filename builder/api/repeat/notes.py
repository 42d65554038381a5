"""The note that a command leaves: what it said, and the state of all that it may have looked at.

ROOT/repeats/KEY            a note; KEY is a digest of the question: the command line, the directory, the environment,
                            the user, the machine's boot
ROOT/repeats/KEY.archive    what the archive consists of that a build wrote, if it wrote one
ROOT/repeats/KEY.given      what came of a command line, see `cli.given`

The state is, for a build, that of the whole context (what is ignored, too), of the Dockerfile and the files beside it,
of the configuration, of this program, and, in the store, of the list of images, the cache, the list of blobs and the
image's own blobs: names, kinds, sizes, inode numbers and times, as git and make look at files, and no content.

Standard library and xxhash only, see the package.
"""

from __future__ import annotations

import os

import xxhash

TYPE_CHECKING = False  # as type checkers know it; loading `typing` takes longer than all the rest here
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from builder.filesystem.moments import Moment

FORM = b"builder repeat 2"
"""How a note begins and ends; its fields are separated by NUL."""
TREE, INPUT, FILE, PROGRAM = "t", "i", "f", "p"
"""What a noted path is, its first letter: the context, with all that is below it; another file that people write; one
of the store (of a directory its own state alone); this program."""
HERE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""Where this program's modules are."""
_LARGEST = 3_000
"""Files and directories of a context. Looking at so many takes a fifth of the time that loading the parts takes which
know what is needed; it is in vain where something changed."""
_UNSETTLED = "what people write changed just now"


class Note:
    """What a command wrote to standard output and error (`errors`), the `state` of all that `paths` name (with the
    letters of what they are), and what the kind of command knows to do with (`rest`)."""

    def __init__(
        self, state: bytes, output: bytes, errors: bytes, paths: Sequence[bytes], rest: Sequence[bytes]
    ) -> None:
        self.state = state
        self.output = output
        self.errors = errors
        self.paths = paths
        self.rest = rest

    def encode(self) -> bytes:
        """Raises ValueError for what has the byte in it that separates the fields."""
        count = str(len(self.paths)).encode()
        fields = [FORM, self.state, self.output, self.errors, count, *self.paths, *self.rest, FORM]
        if any(b"\0" in field for field in fields):
            raise ValueError("a text that cannot be noted")
        return b"\0".join(fields)

    @staticmethod
    def decode(data: bytes) -> Note:
        """Raises ValueError for what is no note, or not all of one."""
        form, state, output, errors, count, *more, end = data.split(b"\0")
        if form != FORM or end != FORM or int(count) > len(more):
            raise ValueError("no note")
        return Note(state, output, errors, more[: int(count)], more[int(count) :])


def state_of(paths: Iterable[str], moment: Moment | None = None) -> bytes:
    """The state of all that `paths` name, as a digest. Raises OSError, and ValueError for too many files, and for what
    people write when a change of it is not past at the `moment`, as soon as that is seen."""
    state = xxhash.xxh3_128()
    for path in paths:
        kind, path = path[:1], path[1:]
        facts = look(path) if kind != PROGRAM else ()
        since = moment if kind in (TREE, INPUT) else None
        if since is not None and not all(since.is_past(changed, path) for changed in facts[_CHANGED::_FACTS]):
            raise ValueError(_UNSETTLED)
        state.update(repr((path, facts)).encode("utf-8", "surrogateescape"))
        if kind in (TREE, PROGRAM):
            _add_tree(path, state, since, program=kind == PROGRAM)
    return state.hexdigest().encode()


def _add_tree(path: str, state: xxhash.xxh3_128, since: Moment | None, *, program: bool) -> None:
    """Add all that is below a directory, of a program its modules alone, since Python writes beside them. Raises
    ValueError for too many files, and for a change that is not past at the moment `since`."""
    left, directories = _LARGEST, [path]
    while directories:
        directory = directories.pop()
        found: list[object] = [directory]
        with os.scandir(directory) as entries:
            for entry in entries:
                left -= 1
                if left < 0:
                    raise ValueError("too many files")
                if entry.is_dir(follow_symlinks=False) and not (program and entry.name == "__pycache__"):
                    directories.append(entry.path)
                if program and not entry.name.endswith(".py"):
                    continue
                facts = _facts(entry.stat(follow_symlinks=False))
                if since is not None and not since.is_past(facts[_CHANGED], path):
                    raise ValueError(_UNSETTLED)
                found += entry.name, facts
        state.update(repr(found).encode("utf-8", "surrogateescape"))


def look(path: str) -> tuple[int, ...]:
    """The state of one file, and of what it leads to if it is a link; nothing if there is none. Raises OSError."""
    try:
        return _facts(os.lstat(path)) + _facts(os.stat(path))
    except FileNotFoundError:
        return ()


_FACTS, _CHANGED = 6, 3
"""How many facts there are of a file, and which of them is when its inode changed, in nanoseconds."""


def _facts(found: os.stat_result) -> tuple[int, ...]:
    # The time of the last change of the inode tells of owners, modes and attributes, and nobody can set it.
    return found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev
