"""A build that repeats the one before is answered with what that one said.

To build again what is built already is what people and scripts do most, and nearly all of its time goes into loading
the parts that find out that nothing is to be done. A build that found every step, and changed nothing in the store,
therefore leaves a note (`noting`) of what it was asked, of the state of all that it may have looked at, and of what it
said. The same words are the answer to the same question while that state is the same: this module knows nothing of
Dockerfiles.

ROOT/repeats/KEY            a note; KEY is a digest of the question: the command line, the directory, the environment,
                            the user, the machine's boot
ROOT/repeats/KEY.archive    what the archive consists of that the build wrote, if it wrote one

The state is that of the whole context (what is ignored, too), of the Dockerfile and the files beside it, of the
configuration, of this program, and, in the store, of the list of images, the cache, the list of blobs and the image's
own blobs: names, kinds, sizes, inode numbers and times, as git and make look at files, and no content.

Standard library and xxhash only: loading anything else would take longer than the answer.
"""

from __future__ import annotations

import os
import sys
import time

import xxhash

from builder.boot import UNKNOWN, current_boot
from builder.places import default_root
from builder.store.record_names import KEPT_BUILDS, RECORD, REPEATS, SLACK, record_stem

TYPE_CHECKING = False  # as type checkers know it; loading `typing` takes longer than all the rest here
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FORM = b"builder repeat 1"
"""How a note begins and ends; its fields are separated by NUL."""
ARCHIVE = ".archive"
TREE, INPUT, FILE, PROGRAM = "t", "i", "f", "p"
"""What a noted path is, its first letter: the context, with all that is below it; another file that people write; one
of the store (of a directory its own state alone); this program."""
IMAGES = ("index.json", os.path.join("blobs", "sha256"), "failed", "oci-layout")
"""What a build of cached steps leaves as it was, in the store: if it is otherwise, another process was there."""
_GOOD_FOR = 1800.0
"""Seconds. Then the whole way is gone once more, on which the store's cache learns that it is used."""
_LARGEST = 3_000
"""Files and directories of a context. Looking at so many takes a fifth of the time that loading the parts takes which
know what is needed; it is in vain where something changed."""


class Question:
    """A build that was asked for, of the store `root` at the time `began`: `note` is where its note is, or would be,
    `images` the state of the store's images before it."""

    def __init__(self, root: str, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        """Raises OSError where not even the working directory or the boot is known."""
        self.root = os.path.abspath(root)
        self.began = time.time()
        boot = current_boot()
        if boot == UNKNOWN:
            raise OSError("the machine's boot is not known")
        settings = sorted(item for item in environ.items() if item[0] != "_")
        who = (os.getuid(), os.getgid(), os.getgroups(), os.uname().machine)
        asked = (list(arguments), os.getcwd(), settings, who, boot, sys.version)
        self.note = os.path.join(self.root, REPEATS, xxhash.xxh3_128_hexdigest(repr(asked).encode("utf-8", "replace")))
        self.blobs = os.path.join(self.root, "blobs", "sha256")
        self.images = self.look_at_images()

    def look_at_images(self) -> list[tuple[int, ...]]:
        return [_look(os.path.join(self.root, name)) for name in IMAGES]

    def answer(self) -> tuple[str, str] | None:
        """What the build would write to standard output and error, if it would only repeat the one before; then it is
        recorded as a build. None if that cannot be said."""
        try:
            with open(self.note, "rb") as file:
                if not 0 <= self.began - os.fstat(file.fileno()).st_mtime <= _GOOD_FOR:
                    return None
                form, state, output, errors, archive, count, *rest = file.read().split(b"\0")
            paths, pieces, end = rest[: int(count)], rest[int(count) : -1], rest[-1]
            if form != FORM or end != FORM or state_of(map(os.fsdecode, paths))[0] != state:
                return None
            records = [name for name in os.listdir(os.path.join(self.root, "builds")) if name.endswith(RECORD)]
            if len(records) > KEPT_BUILDS + SLACK:  # the oldest are to be dropped
                return None
            if archive and not self._write_archive(os.fsdecode(archive), state):
                return None
            self._record(pieces)
            return output.decode(), errors.decode()
        except (OSError, ValueError, LookupError):  # a note that is damaged, or the store
            return None

    def _write_archive(self, path: str, state: bytes) -> bool:
        """Write the archive of the noted build once more. Raises OSError, and ValueError for a note that is damaged."""
        from builder.api.repeated_archive import decode, write

        with open(self.note + ARCHIVE, "rb") as file:
            parts = decode(file.read(), state)
        return write(path, parts, self.blobs)

    def _record(self, pieces: Sequence[bytes]) -> None:
        """Write the record of this build: that of the noted one, with this one's name and times."""
        build = os.urandom(4).hex()
        text = [f'{{"build":"{build}","started":{self.began!r},"seconds":{time.time() - self.began!r}'.encode()]
        for piece, offset in zip(pieces[::2], pieces[1::2], strict=False):
            text += piece, repr(self.began + float(offset)).encode()
        text.append(pieces[-1])
        self.write(os.path.join(self.root, "builds", record_stem(self.began, build) + RECORD), b"".join(text))

    def write(self, path: str, data: bytes) -> None:
        """Write a file of the store that appears whole. Raises OSError."""
        temporary = os.path.join(self.root, "tmp", f"repeat.{os.urandom(4).hex()}")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
            os.rename(temporary, path)
        except OSError:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise


def question(arguments: Sequence[str], environ: Mapping[str, str]) -> Question | None:
    """What is asked with a command line, if it is for a build that might repeat another. One that is watched on a
    terminal might not: what it shows there is moving."""
    match list(arguments):
        case ["build", *_]:
            root = default_root(environ)
        case ["--root", root, "build", *_] if root:
            pass
        case [option, "build", *_] if option.startswith("--root=") and option != "--root=":
            root = option.removeprefix("--root=")
        case _:
            return None
    try:
        return None if os.isatty(2) else Question(root, arguments, environ)
    except OSError:
        return None


def state_of(paths: Iterable[str]) -> tuple[bytes, int]:
    """The state of all that `paths` name, as a digest, and when an inode changed last of those that people write, in
    nanoseconds. Raises OSError, and ValueError for too many files."""
    state, last = xxhash.xxh3_128(), 0
    for path in paths:
        kind, path = path[:1], path[1:]
        facts = _look(path) if kind != PROGRAM else ()
        state.update(repr((path, facts)).encode("utf-8", "surrogateescape"))
        if kind in (TREE, INPUT):
            last = max(last, *facts[_CHANGED::_FACTS], 0)
        if kind in (TREE, PROGRAM):
            newest = _add_tree(path, state, program=kind == PROGRAM)
            last = max(last, newest) if kind == TREE else last
    return state.hexdigest().encode(), last


def _add_tree(path: str, state: xxhash.xxh3_128, *, program: bool) -> int:
    """Add all that is below a directory, of a program its modules alone, since Python writes beside them. Returns when
    an inode changed last."""
    last, left, directories = 0, _LARGEST, [path]
    while directories:
        directory = directories.pop()
        found: list[object] = [directory]
        with os.scandir(directory) as entries:
            for entry in entries:
                left -= 1
                if left < 0:
                    raise ValueError("too many files")
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.path)
                if program and not entry.name.endswith(".py"):
                    continue
                facts = _facts(entry.stat(follow_symlinks=False))
                found += entry.name, facts
                if facts[_CHANGED] > last:
                    last = facts[_CHANGED]
        state.update(repr(found).encode("utf-8", "surrogateescape"))
    return last


def _look(path: str) -> tuple[int, ...]:
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
