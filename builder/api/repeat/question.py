"""What is asked with a command line, and the answer, if it repeats the command before.

To build again what is built already, and to push again what was pushed, is what people and scripts do most, and nearly
all of its time goes into loading the parts that find out that nothing is to be done. A build that found every step, and
changed nothing in the store, therefore leaves a note of what it was asked, of the state of all that it may have looked
at, and of what it said; a push that is done leaves one of what it would say now, and of what the registry then has. The
same words are the answer to the same question while that state is the same: this module knows nothing of Dockerfiles.

Standard library and xxhash only, see the package.
"""

from __future__ import annotations

import os
import sys
import time

import xxhash

from builder.api.repeat.notes import Note, look, state_of
from builder.boot import UNKNOWN, current_boot
from builder.places import find_root
from builder.store.record_names import KEPT_BUILDS, RECORD, REPEATS, SLACK, record_stem

TYPE_CHECKING = False  # as type checkers know it; loading `typing` takes longer than all the rest here
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ARCHIVE = ".archive"
IMAGES = ("index.json", os.path.join("blobs", "sha256"), "failed", "oci-layout")
"""What a build of cached steps leaves as it was, in the store: if it is otherwise, another process was there."""
_FILE_CLOCK = 5  # as `filesystem.moments.now` reads it, which an answer need not load
_GOOD_FOR = 1800.0
"""Seconds. Then the whole way is gone once more, on which the store's cache learns that it is used."""


class Question:
    """A `command` that was asked for with `arguments`, `build` or `push`, of the store `root` at the time `began`,
    by the clock of files at `looked`: `note` is where its note is, or would be, `images` the state of the store's
    images before it. What is shown of one that is `watched` on a terminal is moving: it is neither noted nor
    answered."""

    def __init__(self, root: str, command: str, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        """`arguments` are the whole command line. Raises OSError where not even the working directory or the boot is
        known."""
        self.root = os.path.abspath(root)
        self.command = command
        self.arguments = arguments
        self.watched = command == "build" and os.isatty(2)
        self.began = time.time()
        self.looked = time.clock_gettime_ns(_FILE_CLOCK)
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
        return [look(os.path.join(self.root, name)) for name in IMAGES]

    def answer(self) -> tuple[str, str] | None:
        """What the command would write to standard output and error, if it would only repeat the one before. None if
        that cannot be said."""
        if self.watched:
            return None
        try:
            note = self._note()
            if note is None or not (self._build(note) if self.command == "build" else self._push(note)):
                return None
            return note.output.decode(), note.errors.decode()
        except (OSError, ValueError, LookupError):  # a note that is damaged, or the store
            return None

    def _note(self) -> Note | None:
        """The note, if what it tells of is as it was."""
        with open(self.note, "rb") as file:
            if not 0 <= self.began - os.fstat(file.fileno()).st_mtime <= _GOOD_FOR:
                return None
            note = Note.decode(file.read())
        return note if state_of(map(os.fsdecode, note.paths)) == note.state else None

    def _push(self, note: Note) -> bool:
        """Whether the registry has all that the noted push left there."""
        from builder.api.repeat.registry import has_manifests

        return has_manifests(note.rest)

    def _build(self, note: Note) -> bool:
        """Do again what the noted build did beside finding its steps: its archive, and its record. False if that is to
        be left to the whole way."""
        archive, *pieces = note.rest
        records = [name for name in os.listdir(os.path.join(self.root, "builds")) if name.endswith(RECORD)]
        if len(records) > KEPT_BUILDS + SLACK:  # the oldest are to be dropped
            return False
        if archive and not self._write_archive(os.fsdecode(archive), note.state):
            return False
        self._record(pieces)
        return True

    def _write_archive(self, path: str, state: bytes) -> bool:
        """Write the archive of the noted build once more. Raises OSError, and ValueError for a note that is damaged."""
        from builder.api.repeat.archive import decode, write

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
    """What is asked with a command line, if it is for a command that might repeat another."""
    match list(arguments):
        case ["build" | "push" as command, *_]:
            root = find_root(environ)
        case ["--root", root, "build" | "push" as command, *_] if root:
            pass
        case [option, "build" | "push" as command, *_] if option.startswith("--root=") and option != "--root=":
            root = option.removeprefix("--root=")
        case _:
            return None
    if root is None:
        return None
    try:
        return Question(root, command, arguments, environ)
    except OSError:
        return None
