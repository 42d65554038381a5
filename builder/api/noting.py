"""The note that a build leaves, so that one that only repeats it can be answered with its words (`repeating`).

What might come out otherwise another time is not noted: whatever came over a network, secrets, several platforms, files
about the build, outputs but for one archive of the image, which is written again (`repeated_archive`), large contexts.
Neither is a build whose context changed within the last `_SETTLED` seconds: a file may change twice within what is one
moment to its file system.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from builder.api.inputs import DOCKERFILES
from builder.api.repeating import ARCHIVE, FILE, FORM, IMAGES, INPUT, PROGRAM, TREE, Question, state_of
from builder.context.source import LocalContext, parse_context
from builder.errors import BuilderError
from builder.export.destination import WrittenFile
from builder.oci.layout import Layout
from builder.oci.spec import MANIFESTS, Manifest, decode
from builder.places import configuration_files
from builder.store.builds import CACHED, NOT_NEEDED
from builder.store.record_names import RECORD

if TYPE_CHECKING:
    from builder.api.options import BuildOptions, BuildResult

_KEPT = 64
"""Files of notes in one store; a note is some kilobytes."""
_SETTLED = 2.0  # seconds: the coarsest times of file systems that contexts lie on (FAT, some servers')
_CACHE = ("cache.db", "cache.db-wal")
_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""Where this program's modules are."""
_REMOTE = ("builder.registry.transport", "builder.context.http", "builder.context.git")
"""Through these modules comes whatever a build knows of other machines."""
_REPEATABLE = (
    "context", "dockerfile", "tags", "build_args", "target", "platforms", "labels", "annotations", "squash", "network",
    "offline", "isolation", "allow", "limits", "jobs", "budget", "root", "environ", "outputs",
)  # fmt: skip
"""The options of a build that may be repeated: the result depends on their values alone. Others must not be given."""


def remember(question: Question, options: BuildOptions, result: BuildResult, output: str, errors: str) -> None:
    """Note what a build wrote to standard output and error, if it may be repeated. That it cannot be noted harms
    nothing."""
    if not _is_repeatable(options, result):
        return
    try:
        _note(question, options, result, output.encode(), errors.encode())
    except (OSError, ValueError, BuilderError):
        return


def _is_repeatable(options: BuildOptions, result: BuildResult) -> bool:
    plain = type(options)(**{name: getattr(options, name) for name in _REPEATABLE})
    return (
        plain == options
        and (not options.outputs or _is_archive(options))
        and options.dockerfile != "-"
        and isinstance(parse_context(options.context), LocalContext)
        and result.media_type in MANIFESTS
        and all(step.outcome in (CACHED, NOT_NEEDED) for step in result.steps)
        and not any(name in sys.modules for name in _REMOTE)
    )


def _is_archive(options: BuildOptions) -> bool:
    """Whether an archive of the image is all that is to be written, to a file."""
    output = options.outputs[0]
    return len(options.outputs) == 1 and output.type in ("oci", "docker") and output.tar and output.dest != "-"


def _note(question: Question, options: BuildOptions, result: BuildResult, output: bytes, errors: bytes) -> None:
    """Raises BuilderError, OSError, and ValueError for what cannot be noted."""
    paths = list(_paths(question, options, result))
    state, changed = state_of(paths)
    if changed > (question.began - _SETTLED) * 1e9:
        raise ValueError("the context changed just now")
    if question.look_at_images() != question.images:
        raise ValueError("the store's images changed meanwhile")
    archive = _absolute(options.outputs[0].dest) if options.outputs else ""
    fields = [FORM, state, output, errors, os.fsencode(archive), str(len(paths)).encode()]
    fields += [*map(os.fsencode, paths), *_pieces(question, result), FORM]
    if any(b"\0" in field for field in fields) or _takes_time(errors):
        raise ValueError("a text that cannot be noted")
    directory = os.path.dirname(question.note)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    _forget_oldest(directory)
    if archive:
        from builder.api.repeated_archive import encode, parts_of

        with open(archive, "rb") as file:
            if WrittenFile.of(file) != result.archives[0]:
                raise ValueError("another build wrote there meanwhile")
            question.write(question.note + ARCHIVE, encode(parts_of(file, question.blobs), state))
    question.write(question.note, b"\0".join(fields))


def _paths(question: Question, options: BuildOptions, result: BuildResult) -> Iterator[str]:
    """All that the build may have looked at, each with the letter of what it is."""
    yield TREE + _absolute(options.context)
    # Below the context these may be links to elsewhere. What -f names is looked for in both places.
    names = (options.dockerfile,) if options.dockerfile else DOCKERFILES
    for path in (
        *((options.dockerfile,) if options.dockerfile else ()),
        *(f"{options.context}/{name}" for name in names),
    ):
        yield INPUT + _absolute(path)
        yield INPUT + _absolute(path) + ".dockerignore"
    for path in configuration_files(options.environ):
        yield INPUT + _absolute(path)
    yield PROGRAM + _HERE
    for name in IMAGES + _CACHE:
        yield FILE + os.path.join(question.root, name)
    layout = Layout(question.root)
    manifest = decode(layout.read(result.digest), Manifest, result.digest)
    for digest in (result.digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)):
        yield FILE + layout.blob_path(digest)


def _pieces(question: Question, result: BuildResult) -> list[bytes]:
    """The build's record after its name and its own times, cut at the times of what happened in it: text, seconds after
    the beginning, text, … Within strings quotes are escaped, so that only names of fields are found."""
    directory = os.path.join(question.root, "builds")
    name = next((name for name in os.listdir(directory) if name.endswith(f"-{result.build}{RECORD}")), "")
    with open(os.path.join(directory, name), "rb") as file:
        whole = file.read()
    head = re.match(rb'\{"build":"[0-9a-f]{8}","started":([^,]+),"seconds":[^,]+', whole)
    if head is None:
        raise ValueError("another form of record")
    pieces = re.split(rb'(?<="started":)([0-9][^,}]*)', whole[head.end() :])
    return [repr(float(piece) - float(head[1])).encode() if place % 2 else piece for place, piece in enumerate(pieces)]


def _takes_time(log: bytes) -> bool:
    """Whether a build's log has times that another one would not have, or is for machines or terminals."""
    return re.search(rb"(?m)^#\d+ DONE (?!0\.0s$)|^\{|[\r\x1b]", log) is not None


def _absolute(path: str) -> str:
    """A path from the root on, with its `..` as they are: before one there may be a link."""
    return os.path.join(os.getcwd(), path)


def _forget_oldest(directory: str) -> None:
    with os.scandir(directory) as entries:
        notes = sorted((entry.stat().st_mtime, entry.path) for entry in entries)
    for _, path in notes[: -_KEPT + 1]:
        os.unlink(path)
