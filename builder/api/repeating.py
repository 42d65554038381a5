"""A build that repeats the one before is answered with what that one said.

To build again what is built already is what people and scripts do most, and nearly all of its time goes into loading
the parts that find out that nothing is to be done. A build that found every step, and changed nothing in the store,
therefore leaves a note of what it was asked, of the state of all that it may have looked at, and of what it said. The
same words are the answer to the same question while that state is the same: this module knows nothing of Dockerfiles.

ROOT/repeats/KEY    a note; KEY is a digest of the question: the command line, the directory, the environment, the user,
                    the machine's boot

The state is that of the whole context (what is ignored, too), of the Dockerfile and the files beside it, of the
configuration, of this program, and, in the store, of the list of images, the cache, the list of blobs and the image's
own blobs: names, kinds, sizes, inode numbers and times, as git and make look at files, and no content. What does not
fit that is not noted: whatever came over a network, secrets, several platforms, outputs, files about the build, large
contexts. Neither is a build whose context changed within the last `_SETTLED` seconds: a file may change twice within
what is one moment to its file system.

Standard library and xxhash only: loading anything else would take longer than the answer.
"""

from __future__ import annotations

import os
import sys
import time

import xxhash

from builder.places import configuration_files, default_root
from builder.store.record_names import KEPT_BUILDS, RECORD, SLACK, record_stem

TYPE_CHECKING = False  # as type checkers know it; loading `typing` takes longer than all the rest here
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from builder.api.options import BuildOptions, BuildResult

_FORM = b"builder repeat 1"
_BOOT = "/proc/sys/kernel/random/boot_id"
_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""Where this program's modules are."""
_NOTES = "repeats"
_KEPT = 64
"""Notes of one store; a note is some kilobytes."""
_LARGEST = 10_000
"""Files and directories of a context: looking at more takes about as long as loading the parts that know which are
needed."""
_SETTLED = 2.0  # seconds: the coarsest times of file systems that contexts lie on (FAT, some servers')

_TREE, _PROGRAM, _FILE = "t", "p", "f"
"""What a noted path is: a directory with all that is below it, that of this program, a file (or only a directory)."""
_IMAGES = ("index.json", os.path.join("blobs", "sha256"), "failed")
"""What a build of cached steps leaves as it was, in the store: if it is otherwise, another process was there."""
_CACHE = ("cache.db", "cache.db-wal")
_REMOTE = ("builder.registry.transport", "builder.context.http", "builder.context.git")
"""Through these modules comes whatever a build knows of other machines."""
_REPEATABLE = (
    "context", "dockerfile", "tags", "build_args", "target", "platforms", "labels", "annotations", "squash", "network",
    "offline", "isolation", "allow", "limits", "jobs", "budget", "root", "environ",
)  # fmt: skip
"""The options of a build that may be repeated: the result depends on their values alone. Others must not be given."""


class Question:
    """A build that was asked for: where its note is, and how the store was before."""

    def __init__(self, root: str, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        """Raises OSError where not even the working directory is known."""
        self.root = os.path.abspath(root)
        self.began = time.time()
        with open(_BOOT, encoding="ascii") as file:
            boot = file.read()
        settings = sorted(item for item in environ.items() if item[0] != "_")
        who = (os.getuid(), os.getgid(), os.getgroups(), os.uname().machine)
        asked = (list(arguments), os.getcwd(), settings, who, boot, sys.version)
        self.note = os.path.join(self.root, _NOTES, xxhash.xxh3_128_hexdigest(repr(asked).encode("utf-8", "replace")))
        self._images = self._look_at_images()

    def _look_at_images(self) -> list[tuple[int, ...]]:
        return [_look(os.path.join(self.root, name)) for name in _IMAGES]

    def answer(self) -> tuple[str, str] | None:
        """What the build would write to standard output and error, if it would only repeat the one before; then it is
        recorded as a build. None if that cannot be said."""
        try:
            with open(self.note, "rb") as file:
                form, state, output, errors, count, *rest = file.read().split(b"\0")
            paths, pieces, end = rest[: int(count)], rest[int(count) : -1], rest[-1]
            if form != _FORM or end != _FORM or _state(map(os.fsdecode, paths)) != state:
                return None
            records = [name for name in os.listdir(os.path.join(self.root, "builds")) if name.endswith(RECORD)]
            if len(records) > KEPT_BUILDS + SLACK:  # the oldest are to be dropped
                return None
            self._record(pieces)
            return output.decode(), errors.decode()
        except (OSError, ValueError):
            return None

    def _record(self, pieces: Sequence[bytes]) -> None:
        """Write the record of this build: that of the noted one, with this one's name and times."""
        build = os.urandom(4).hex()
        text = [f'{{"build":"{build}","started":{self.began!r},"seconds":{time.time() - self.began!r}'.encode()]
        for piece, offset in zip(pieces[::2], pieces[1::2], strict=False):
            text += piece, repr(self.began + float(offset)).encode()
        text.append(pieces[-1])
        _write(
            os.path.join(self.root, "tmp", f"build.{build}"),
            os.path.join(self.root, "builds", record_stem(self.began, build) + RECORD),
            b"".join(text),
        )

    def remember(self, options: BuildOptions, result: BuildResult, output: str, errors: str) -> None:
        """Note what a build said, if it may be repeated. That it cannot be noted harms nothing."""
        from builder.errors import BuilderError

        if self._is_repeatable(options, result):
            try:
                self._note(options, result, output.encode(), errors.encode())
            except (OSError, ValueError, BuilderError):
                return

    def _is_repeatable(self, options: BuildOptions, result: BuildResult) -> bool:
        from builder.context.source import LocalContext, parse_context
        from builder.oci.spec import MANIFESTS
        from builder.store.builds import CACHED, NOT_NEEDED

        plain = type(options)(**{name: getattr(options, name) for name in _REPEATABLE})
        return (
            plain == options
            and options.dockerfile != "-"
            and isinstance(parse_context(options.context), LocalContext)
            and result.media_type in MANIFESTS
            and all(step.outcome in (CACHED, NOT_NEEDED) for step in result.steps)
            and not any(name in sys.modules for name in _REMOTE)
            and self._look_at_images() == self._images
        )

    def _note(self, options: BuildOptions, result: BuildResult, output: bytes, errors: bytes) -> None:
        """Raises OSError, and ValueError for what cannot be noted."""
        inputs = [_TREE + os.path.abspath(options.context), *(_FILE + path for path in _dockerfiles(options))]
        changed: list[int] = []
        _state(inputs, changed)
        if max(changed) > (self.began - _SETTLED) * 1e9:
            return
        store = (os.path.join(self.root, name) for name in _IMAGES + _CACHE)
        files = [*configuration_files(options.environ), *store, *self._blobs(result)]
        paths = [*inputs, _PROGRAM + _HERE, *(_FILE + os.path.abspath(path) for path in files)]
        fields = [_FORM, _state(paths), output, errors, str(len(paths)).encode(), *map(os.fsencode, paths)]
        fields += [*self._pieces(result), _FORM]
        if any(b"\0" in field for field in fields) or _takes_time(errors):
            raise ValueError("a text that cannot be noted")
        os.makedirs(os.path.dirname(self.note), mode=0o700, exist_ok=True)
        self._forget_oldest()
        _write(os.path.join(self.root, "tmp", f"repeat.{os.urandom(4).hex()}"), self.note, b"\0".join(fields))

    def _blobs(self, result: BuildResult) -> Iterator[str]:
        from builder.oci.layout import Layout
        from builder.oci.spec import Manifest, decode

        layout = Layout(self.root)
        manifest = decode(layout.read(result.digest), Manifest, result.digest)
        for digest in (result.digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)):
            yield layout.blob_path(digest)

    def _pieces(self, result: BuildResult) -> list[bytes]:
        """The build's record after its name and its own times, cut at the times of what happened in it: text, seconds
        after the beginning, text, … Within strings quotes are escaped, so that only names of fields are found."""
        import re

        directory = os.path.join(self.root, "builds")
        name = next((name for name in os.listdir(directory) if name.endswith(f"-{result.build}{RECORD}")), "")
        with open(os.path.join(directory, name), "rb") as file:
            whole = file.read()
        head = re.match(rb'\{"build":"[0-9a-f]{8}","started":([^,]+),"seconds":[^,]+', whole)
        if head is None:
            raise ValueError("another form of record")
        pieces = re.split(rb'(?<="started":)([0-9][^,}]*)', whole[head.end() :])
        return [
            repr(float(piece) - float(head[1])).encode() if place % 2 else piece for place, piece in enumerate(pieces)
        ]

    def _forget_oldest(self) -> None:
        with os.scandir(os.path.dirname(self.note)) as entries:
            notes = sorted((entry.stat().st_mtime, entry.path) for entry in entries)
        for _, path in notes[: -_KEPT + 1]:
            os.unlink(path)


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


def _takes_time(log: bytes) -> bool:
    """Whether a build's log has times that another one would not have."""
    import re

    return re.search(rb"(?m)^#\d+ DONE (?!0\.0s$)|^\{", log) is not None


def _dockerfiles(options: BuildOptions) -> Iterator[str]:
    """Wherever the Dockerfile and its ignore file may be, if not in the context."""
    if options.dockerfile:
        for path in (options.dockerfile, os.path.join(options.context, options.dockerfile)):
            yield os.path.abspath(path)
            yield os.path.abspath(path) + ".dockerignore"


def _look(path: str) -> tuple[int, ...]:
    """The state of one file, and of what it leads to if it is a link; nothing if there is none. Raises OSError."""
    try:
        return _facts(os.lstat(path)) + _facts(os.stat(path))
    except FileNotFoundError:
        return ()


def _facts(found: os.stat_result) -> tuple[int, ...]:
    # The time of the last change of the inode tells of owners, modes and attributes, and nobody can set it.
    return found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev


def _state(paths: Iterable[str], changed: list[int] | None = None) -> bytes:
    """The state of all that `paths` name, as a digest; their first letter says what they are. `changed` gets the times
    at which inodes changed, in nanoseconds. Raises OSError, and ValueError for too many files."""
    state = xxhash.xxh3_128()
    for path in paths:
        kind, path = path[:1], path[1:]
        facts = _look(path)
        state.update(repr((path, facts if kind != _PROGRAM else ())).encode("utf-8", "surrogateescape"))
        if changed is not None:
            changed += facts[3::6]
        if kind != _FILE:
            _add_tree(path, state, changed, program=kind == _PROGRAM)
    return state.hexdigest().encode()


def _add_tree(path: str, state: xxhash.xxh3_128, changed: list[int] | None, *, program: bool) -> None:
    """Add all that is below a directory; of a program its modules alone, since Python writes beside them."""
    left, directories = _LARGEST, [path]
    while directories:
        with os.scandir(directories.pop()) as entries:
            for entry in entries:
                left -= 1
                if left < 0:
                    raise ValueError("too many files")
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.path)
                if program and not entry.name.endswith(".py"):
                    continue
                facts = _facts(entry.stat(follow_symlinks=False))
                state.update(repr((entry.path, facts)).encode("utf-8", "surrogateescape"))
                if changed is not None:
                    changed.append(facts[3])


def _write(temporary: str, path: str, data: bytes) -> None:
    """Write a file that appears whole. Raises OSError."""
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        os.rename(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
