"""What is kept of past builds: a record each, the whole logs of its steps, and how they are found again.

ROOT/builds/TIME-BUILD.json     the record (`Build`), written when the build ends
ROOT/builds/TIME-BUILD/N.log    what step N wrote, all of it, as it came; written while it runs

TIME is when the build began, in milliseconds as 12 hexadecimal digits, so that names sort by it. A build without a
record was killed or still runs. Kept are the newest `KEPT_BUILDS` builds (or a few more), fewer if their logs are
larger than `KEPT_LOGS` together; the newest is always kept whole, and so are those that still run. A record that cannot
be read (power was lost) counts as none.
"""

# No postponed annotations: msgspec would compile each of them before it first decodes one of the classes here.
import contextlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from builder.dockerfile.stage_graph import StageGraph
from builder.errors import StoreError, UsageError
from builder.oci.spec import ImageConfig
from builder.progress import Reason, Warned
from builder.store.record_names import KEPT_BUILDS, LOG, NEWEST, POSITION, RECORD, SLACK, record_stem
from builder.store.records import storable

if TYPE_CHECKING:
    from builder.store.recorder import Recorder

KEPT_LOGS = 256 << 20
"""Bytes of all logs together."""

_DROPPED = "dropped"

DONE, FAILED, INTERRUPTED = "done", "failed", "interrupted"
"""How a build may end."""

ELSEWHERE = "cache-"
"""How the name begins of what stands for a build on another machine, which wrote a cache."""

CACHED, RAN, STOPPED, NOT_STARTED, NOT_NEEDED = "cached", "ran", "stopped", "not started", "not needed"
"""What may become of a step, beside FAILED: its result was there; it ran; it ran when the build ended early; the build
ended before it; no image needs it."""

BASES = ("image", "scratch", "context")
"""Kinds of what steps start from, which are recorded as steps and counted and shown as none."""


class BuiltStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node of a build's graph, or (`step` is '') an instruction that nothing needed.

    `step` is its number, as events have it; `kind` is image, scratch, context, run, copy, workdir or '' (not needed);
    `name` what the build showed (`[build 2/5] RUN make`), `instruction` the same without the stage; `line` that of the
    Dockerfile. `needs` are the steps that it is made from, the parent first. `reference` and `digest` tell of an image
    what it was and the digest of its manifest.

    `sources` are the paths that a copy takes, `STAGE:/path` where they are not of the main context.

    `external` says that it was cached in what --cache-from names, and not here.

    `key` is the cache key that the step was first looked up by, `content` that of the recipe by content, where there is
    one; `parts` are those of what its mounts show of contexts. `layers` are diff IDs: an image's, or the one made.
    `variables` are those that its words used, as (ARG or ENV, name, value), `arguments` the names that ARG gave to a
    command. Values that look like secrets are digests.

    `previous_build` and `previous_step` name what it was compared with, `reason` says why it was not cached. `started`
    is in seconds since the epoch, `queued` how long before that it could have run and waited for a free job, `seconds`
    how long it took, `log` the bytes that it wrote.
    """

    step: str = ""
    kind: str = ""
    name: str
    stage: str
    instruction: str
    platform: str = ""
    line: int = 0
    needs: tuple[str, ...] = ()
    outcome: str
    external: bool = False
    reference: str = ""
    digest: str = ""
    sources: tuple[str, ...] = ()
    key: str = ""
    content: str = ""
    parts: dict[str, str] = {}
    layers: tuple[str, ...] = ()
    variables: tuple[tuple[str, str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    previous_build: str = ""
    previous_step: str = ""
    reason: Reason | None = None
    started: float = 0.0
    queued: float = 0.0
    seconds: float = 0.0
    error: str = ""
    log: int = 0

    @property
    def position(self) -> str:
        """How people name the step: `build 2/5`."""
        return self.name[1:].partition("]")[0] if self.name.startswith("[") else self.stage


class BuiltImage(msgspec.Struct, frozen=True):
    """What the configuration of an image was after each of its steps: an image keeps only that of its last one.

    `moments` are the chain IDs of its layers up to a step ('' for none), each with the position in `configurations` of
    what was said until the next layer. Those have neither history nor layers nor times."""

    image_id: str
    moments: tuple[tuple[str, int], ...]
    configurations: tuple[ImageConfig, ...]

    def after(self, chain: str) -> ImageConfig | None:
        """The configuration after the layers with a chain ID; None if no step ended there."""
        return next((self.configurations[position] for known, position in self.moments if known == chain), None)


class Span(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something beside the steps that took time: a transfer, with its `size` in bytes (-1 where it is not known) and
    `outcome`, or work such as writing an output. `started` is in seconds since the epoch, `seconds` how long it took.
    """

    name: str
    started: float
    seconds: float
    transfer: bool = False
    size: int = -1
    outcome: str = ""


class Build(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A build. `build` is its name, 8 hexadecimal digits; `project` what makes it another build of the same (its
    Dockerfile and context); `keys` the version of the cache keys. `started` is in seconds since the epoch, `seconds`
    how long it took; `names` are those of the image, `image_id` and `digest` those of BuildResult; `images` has one for
    each platform. `text` is what the Dockerfile said, `stages` how its stages depend on each other."""

    build: str
    started: float
    seconds: float
    outcome: str
    error: str = ""
    project: str
    context: str
    dockerfile: str
    names: tuple[str, ...] = ()
    target: str = ""
    platforms: tuple[str, ...] = ()
    image_id: str = ""
    digest: str = ""
    version: str = ""
    keys: str = ""
    warnings: tuple[Warned, ...] = ()
    steps: tuple[BuiltStep, ...] = ()
    spans: tuple[Span, ...] = ()
    text: str = ""
    stages: StageGraph = StageGraph()
    images: tuple[BuiltImage, ...] = ()

    def step(self, number: str) -> BuiltStep | None:
        """The step with a number."""
        return next((step for step in self.steps if step.step == number), None)


class Builds:
    """The past builds of the store below `root`; `temporary` is its directory for unfinished files."""

    def __init__(self, root: str, temporary: str) -> None:
        self.path = os.path.join(root, "builds")
        self._temporary = temporary

    # --- reading

    def all(self) -> Iterator[Build]:
        """Every record, the newest first."""
        for stem in reversed(self._stems()):
            found = self._read(stem)
            if found is not None:
                yield found

    def of(self, project: str) -> Iterator[Build]:
        """The builds of one Dockerfile and context, the newest first."""
        said = msgspec.json.encode(storable(project))
        for stem in reversed(self._stems()):
            found = self._read(stem, said)
            if found is not None and found.project == project:
                yield found

    def find(self, name: str = "") -> Build:
        """A build by its name, the newest of an image's name, or a build by the beginning of its name; by how new it is
        (`-1`); '' and `latest` are the newest of all. Raises StoreError, UsageError."""
        if name in ("", NEWEST):
            newest = next(self.all(), None)
            if newest is None:
                raise StoreError("no build is recorded yet", place=self.path, remedy="run 'builder build' first")
            return newest
        if match := re.fullmatch(POSITION, name):
            build = next(itertools.islice(self.all(), int(match[1]) - 1, None), None)
            if build is None:
                raise StoreError(f"there is no build {name}", remedy="'builder builds' lists those that are recorded")
            return build
        stems = [stem for stem in self._stems() if stem.partition("-")[2].startswith(name)]
        found = [build for stem in stems if (build := self._read(stem)) is not None]
        if len(found) == 1 and found[0].build == name:
            return found[0]
        if build := self.of_image(name):  # first, as it does not change with what other builds happen to be called
            return build
        if len(found) > 1:
            names = ", ".join(build.build for build in found)
            raise UsageError(f"{name!r} means several builds: {names}", remedy="give more digits")
        if not found:
            raise StoreError(
                f"there is no build {name!r}",
                place=self.path,
                remedy=f"the last {KEPT_BUILDS} builds are kept; name one by its digits or by its image",
            )
        return found[0]

    def of_image(self, name: str) -> Build | None:
        """The newest build of an image's name."""
        said = msgspec.json.encode(storable(name))[1:-1]
        records = (self._read(stem, said) for stem in reversed(self._stems()))
        return next((build for build in records if build is not None and _has_name(build, name)), None)

    def open_log(self, build: Build, step: str) -> BinaryIO | None:
        """What a step wrote, as it came; None if it wrote nothing."""
        try:
            return open(os.path.join(self.path, record_stem(build.started, build.build), f"{step}{LOG}"), "rb")
        except FileNotFoundError:
            return None

    def remove(self, build: Build) -> None:
        """Remove the record of a build and its logs. Raises StoreError."""
        try:
            self._drop([record_stem(build.started, build.build)])
        except OSError as error:
            raise StoreError(f"build {build.build} cannot be removed: {error.strerror}", place=self.path) from error

    def keys(self) -> Iterator[str]:
        """The cache keys that the records name, whose recipes are kept for them."""
        for build in self.all():
            for step in build.steps:
                yield from filter(None, (step.key, step.content, *step.parts.values()))

    def is_complete(self) -> bool:
        """Whether every build of this store is here: none was dropped."""
        return not os.path.exists(os.path.join(self.path, _DROPPED))

    def _stems(self) -> list[str]:
        """The names of all builds, also of those without a record, the oldest first."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return []
        return sorted({name.removesuffix(RECORD) for name in names if name != _DROPPED})

    def _read(self, stem: str, said: bytes = b"") -> Build | None:
        """The record, if there is one that says this: to decode it takes far longer than to read it."""
        try:
            with open(os.path.join(self.path, stem + RECORD), "rb") as file:
                data = file.read()
            return _decoder().decode(data) if said in data else None
        except (OSError, msgspec.MsgspecError):
            return None

    # --- writing

    def begin(self) -> "Recorder":
        """Begin the record of a build. Raises StoreError."""
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot be made: {error.strerror}", place=self.path) from error
        from builder.store.recorder import Recorder

        return Recorder(self.path, self._temporary)

    def trim(self, *, logs: bool) -> None:
        """Drop the oldest builds; with `logs` also look at how large the logs are. What cannot be removed stays."""
        stems = self._stems()
        dropped = stems[:-KEPT_BUILDS] if len(stems) > KEPT_BUILDS + SLACK else []
        if logs:
            total = 0
            for number, stem in enumerate(reversed(stems)):
                total += _size(os.path.join(self.path, stem))
                if total > KEPT_LOGS and number:
                    dropped = stems[: len(stems) - number]
                    break
        with contextlib.suppress(OSError):
            self._drop(stem for stem in dropped if not self._is_running(stem))

    def _is_running(self, stem: str) -> bool:
        """Whether a living process still writes the logs of a build: it holds their directory. Raises OSError."""
        import fcntl

        path = os.path.join(self.path, stem)
        if os.path.exists(path + RECORD) or not os.path.isdir(path):
            return False
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _drop(self, stems: Iterable[str]) -> None:
        """Remove builds, and remember that some are no longer here. Raises OSError."""
        for stem in stems:
            with open(os.path.join(self.path, _DROPPED), "ab"):
                pass
            path = os.path.join(self.path, stem)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path + RECORD)
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(path):
                    os.unlink(os.path.join(path, name))
                os.rmdir(path)


@cache
def _decoder() -> msgspec.json.Decoder[Build]:
    return msgspec.json.Decoder(Build)  # made when a record is read: a rebuild that finds everything only writes one


def _has_name(build: Build, name: str) -> bool:
    return any(name in (known, known.removesuffix(":latest")) for known in build.names)


def _size(path: str) -> int:
    try:
        with os.scandir(path) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    except OSError:
        return 0
