"""The note that a build leaves, so that one that only repeats it can be answered with its words.

What might come out otherwise another time is not noted: whatever came over a network, secrets, several platforms, files
about the build, outputs but for one archive of the image, which is written again, large contexts, and contexts that
changed just now.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from builder.api.inputs import DOCKERFILES, is_stream
from builder.api.options import REGO, SOURCE_POLICY
from builder.api.repeat.leave import leave, make_room, settled_state
from builder.api.repeat.notes import FILE, HERE, INPUT, PROGRAM, TREE, Note
from builder.api.repeat.question import ARCHIVE, IMAGES, Question
from builder.context.ignore import OF_CONTEXT, OF_DOCKERFILE
from builder.context.source import LocalContext, parse_context
from builder.errors import BuilderError
from builder.export.destination import WrittenFile
from builder.oci.layout import Layout
from builder.oci.spec import MANIFESTS, Manifest, decode
from builder.places import configuration_files, docker_file
from builder.store.builds import CACHED, NOT_NEEDED
from builder.store.record_names import RECORD

if TYPE_CHECKING:
    from builder.api.options import BuildOptions, BuildResult

_CACHE = ("cache.db", "cache.db-wal")
_REMOTE = ("builder.registry.transport", "builder.context.http", "builder.context.git")
"""Through these modules comes whatever a build knows of other machines."""
_REPEATABLE = (
    "context", "dockerfile", "tags", "build_args", "target", "platforms", "labels", "annotations", "squash", "network",
    "offline", "rego", "isolation", "allow", "limits", "jobs", "budget", "root", "environ", "outputs",
)  # fmt: skip
"""The options of a build that may be repeated: the result depends on their values alone. Others must not be given."""


def remember(question: Question, options: BuildOptions, result: BuildResult, output: str, errors: str) -> None:
    """Note what a build wrote to standard output and error, if it may be repeated. That it cannot be noted harms
    nothing."""
    if not _is_repeatable(options, result):
        return
    try:
        _note(question, options, result, output, errors)
    except (OSError, ValueError, BuilderError):
        return


def _is_repeatable(options: BuildOptions, result: BuildResult) -> bool:
    plain = type(options)(**{name: getattr(options, name) for name in _REPEATABLE})
    return (
        plain == options
        and not options.environ.get(SOURCE_POLICY)
        and (not options.outputs or _is_archive(options))
        and options.dockerfile != "-"
        and not is_stream(options.dockerfile)
        and isinstance(parse_context(options.context), LocalContext)
        and result.media_type in MANIFESTS
        and all(step.outcome in (CACHED, NOT_NEEDED) for step in result.steps)
        and not any(name in sys.modules for name in _REMOTE)
    )


def _is_archive(options: BuildOptions) -> bool:
    """Whether an archive of the image is all that is to be written, to a file."""
    output = options.outputs[0]
    return len(options.outputs) == 1 and output.type in ("oci", "docker") and output.tar and output.dest != "-"


def _note(question: Question, options: BuildOptions, result: BuildResult, output: str, errors: str) -> None:
    """Raises BuilderError, OSError, and ValueError for what cannot be noted."""
    archive = _absolute(options.outputs[0].dest) if options.outputs else ""
    if archive:
        from builder.api.repeat.archive import encode, is_ordinary, parts_of

        if not is_ordinary(archive):
            raise ValueError("an archive that cannot be written again")
    paths = list(_paths(question, options, result))
    state = settled_state(question, paths)  # first: where people are at work it ends here
    if _takes_time(errors):
        raise ValueError("a text that cannot be noted")
    rest = [os.fsencode(archive), *_pieces(question, result)]
    if archive:
        with open(archive, "rb") as file:
            if WrittenFile.of(file) != result.archives[0]:
                raise ValueError("another build wrote there meanwhile")
            make_room(question)
            question.write(question.note + ARCHIVE, encode(parts_of(file, question.blobs), state))
    leave(question, Note(state, output.encode(), errors.encode(), list(map(os.fsencode, paths)), rest))


def _paths(question: Question, options: BuildOptions, result: BuildResult) -> Iterator[str]:
    """All that the build may have looked at, each with the letter of what it is. First what people edit most: where
    that changed just now, nothing else is looked at."""
    # Below the context these may be links to elsewhere. What -f names is looked for in both places.
    names = (options.dockerfile,) if options.dockerfile else DOCKERFILES
    for path in (
        *((options.dockerfile,) if options.dockerfile else ()),
        *(f"{options.context}/{name}" for name in names),
    ):
        yield INPUT + _absolute(path)
        yield from (INPUT + _absolute(path) + end for end in (*OF_DOCKERFILE, REGO))
    yield from (INPUT + _absolute(f"{options.context}/{name}") for name in OF_CONTEXT)
    yield TREE + _absolute(options.context)
    for path in (*configuration_files(options.environ), docker_file(options.environ)):
        if path:  # Docker's, for its proxies
            yield INPUT + _absolute(path)
    yield PROGRAM + HERE
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


def _takes_time(log: str) -> bool:
    """Whether a build's log has times that another one would not have, or is for machines or terminals."""
    return re.search(r"(?m)^#\d+ DONE (?!0\.0s$)|^\{|[\r\x1b]", log) is not None


def _absolute(path: str) -> str:
    """A path from the root on, with its `..` as they are: before one there may be a link."""
    return os.path.join(os.getcwd(), path)
