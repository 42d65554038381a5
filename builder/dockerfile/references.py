"""Where a Dockerfile names images: FROM, COPY --from and RUN --mount=…,from=, with the place of each name in the text.

What is no image is left out: `scratch`, stages, numbers of stages. The triggers of ONBUILD are left out as well, for a
name in them may be a stage of a Dockerfile that is not written yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

import msgspec

from builder.dockerfile.instructions import Copy, Dockerfile, From, Run
from builder.dockerfile.located import WrittenLine, logical_line, physical_lines
from builder.dockerfile.mounts import mount_source
from builder.dockerfile.text import SPACE
from builder.dockerfile.words import Part, Quoted, Variable, Word, expand
from builder.errors import DockerfileError

_WORD = re.compile(f"[^{re.escape(SPACE)}]+")
_NUMBER = re.compile(r"[+-]?[0-9]+")
_SCRATCH = "scratch"


class ImageUse(msgspec.Struct, frozen=True):
    """One place that names an image.

    `instruction` is `FROM`, `COPY --from` or `RUN --mount`; `written` the name as it stands there, quotes and all;
    `name` what it stands for (with the defaults of global arguments filled in; '' if that cannot be said). `span` are
    the first character and the one behind the last in the Dockerfile's text, None where `obstacle` says why the name
    cannot be replaced in place.
    """

    instruction: str
    written: str
    name: str
    line: int
    span: tuple[int, int] | None = None
    obstacle: str = ""


def find_images(source: str, dockerfile: Dockerfile) -> list[ImageUse]:
    """The images that a Dockerfile names, in the order of its text. `source` is what `dockerfile` was parsed from,
    decoded by `lines.decode`."""
    return list(_Finder(source, dockerfile).uses())


class _Place(msgspec.Struct, frozen=True):
    """A word of an instruction's joined line: the columns of its first character and of the one behind it, from 0."""

    start: int
    end: int


class _Finder:
    def __init__(self, source: str, dockerfile: Dockerfile) -> None:
        self._dockerfile = dockerfile
        self._lines = physical_lines(source)
        ends = accumulate(len(line) + 1 for line in self._lines)
        first = len(source) - len(source.removeprefix("\ufeff"))
        self._starts = [first, *(first + end for end in ends)]
        self._arguments = _defaults(dockerfile)

    def uses(self) -> Iterator[ImageUse]:
        all_stages = {stage.from_.name.lower() for stage in self._dockerfile.stages if stage.from_.name}
        above: set[str] = set()
        for stage in self._dockerfile.stages:
            yield from self._from(stage.from_, above)
            if stage.from_.name:
                above.add(stage.from_.name.lower())
            for instruction in stage.instructions:
                if isinstance(instruction, Copy) and instruction.from_:
                    yield from self._copy(instruction, all_stages)
                elif isinstance(instruction, Run) and instruction.mounts:
                    yield from self._run(instruction, all_stages)

    def _from(self, instruction: From, stages: Iterable[str]) -> Iterator[ImageUse]:
        word = instruction.image
        name, varies = self._read(word)
        if name in stages or name == _SCRATCH:
            return
        line = self._line(instruction.range.start)
        words = _words(line)[1:]
        place = next((at for at, text in words if not text.startswith("--")), None)
        yield self._use("FROM", word.source, name, varies, line, place)

    def _copy(self, instruction: Copy, stages: Iterable[str]) -> Iterator[ImageUse]:
        name = instruction.from_
        if name.lower() in stages or _NUMBER.fullmatch(name) or name == _SCRATCH:
            return
        line = self._line(instruction.range.start)
        flags = [at for at, text in _flags(line) if text == f"--from={name}"]
        place = _Place(flags[0].start + len("--from="), flags[0].end) if flags else None
        yield self._use("COPY --from", name, name, "$" in name, line, place)

    def _run(self, instruction: Run, stages: Iterable[str]) -> Iterator[ImageUse]:
        line = self._line(instruction.range.start)
        flags = [(at, text) for at, text in _flags(line) if text.startswith("--mount=")]
        for position, word in enumerate(instruction.mounts):
            name = mount_source(word.source)
            if not name or name.lower() in stages or name == _SCRATCH:
                continue
            place = None
            if len(flags) == len(instruction.mounts) and flags[position][1] == f"--mount={word.source}":
                place = _field(word.source, flags[position][0].start + len("--mount="))
            yield self._use("RUN --mount", name, name, "$" in name, line, place)

    def _line(self, start: int) -> WrittenLine:
        return logical_line(self._lines, start, self._dockerfile.escape)

    def _read(self, word: Word) -> tuple[str, bool]:
        """What a word stands for, and whether that depends on arguments."""
        try:
            return expand(word, self._arguments).text, _varies(word.parts or ())
        except DockerfileError:
            return "", True

    def _use(
        self, instruction: str, written: str, name: str, varies: bool, line: WrittenLine, place: _Place | None
    ) -> ImageUse:
        (number, _), span, obstacle = line.row.position(1), None, ""
        if place is not None and line.text[place.start : place.end] == written:
            (number, first), (last, end) = line.row.position(place.start + 1), line.row.position(place.end)
            if number == last:
                span = (self._starts[number - 1] + first - 1, self._starts[last - 1] + end)
        if varies:
            obstacle = "the name depends on a build argument"
        elif span is None:
            obstacle = "the name is split over lines, or stands in quotes with something else"
        return ImageUse(instruction, written, name, number, None if obstacle else span, obstacle)


def _defaults(dockerfile: Dockerfile) -> Mapping[str, str]:
    """The global arguments that have a default."""
    found: dict[str, str] = {}
    for argument in dockerfile.global_args:
        for pair in argument.pairs:
            try:
                if pair.given:
                    found[expand(pair.key, found).text] = expand(pair.value, found).text
            except DockerfileError:
                continue
    return found


def _varies(parts: tuple[Part, ...]) -> bool:
    return any(isinstance(part, Variable) or (isinstance(part, Quoted) and _varies(part.parts)) for part in parts)


def _words(line: WrittenLine) -> list[tuple[_Place, str]]:
    return [(_Place(*match.span()), match[0]) for match in _WORD.finditer(line.text)]


def _flags(line: WrittenLine) -> Iterator[tuple[_Place, str]]:
    """The flags behind the keyword. One in quotes may come in several pieces, which then equal no flag."""
    for at, text in _words(line)[1:]:
        if not text.startswith("--") or text == "--":
            return
        yield at, text


def _field(mount: str, start: int) -> _Place | None:
    """The value of `from=` in a mount that begins at `start`; the last one counts."""
    if '"' in mount:
        return None
    found = None
    for field in mount.split(","):
        key, equals, _ = field.partition("=")
        if equals and key.lower() == "from":
            found = _Place(start + len(key) + 1, start + len(field))
        start += len(field) + 1
    return found
