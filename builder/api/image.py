"""The store and its images as Python objects.

An object is what was true when it was asked for: plain frozen data, and methods that open the store for the moment that
they need it. So there is nothing to close, and threads and other processes may use the same store.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar

import msgspec

from builder.config import limits_of
from builder.errors import StoreError, UsageError
from builder.oci import reference as references
from builder.oci.platform import parse_platform
from builder.oci.spec import Descriptor, ImageConfig, paired_layers, without_names
from builder.places import default_root
from builder.store.store import Store as Opened

if TYPE_CHECKING:
    import subprocess

    from builder.store.builds import Build
    from builder.store.describe import Describer, PlatformImage, Summary

Path = str | os.PathLike[str]
_T = TypeVar("_T")


class Layer(msgspec.Struct, frozen=True):
    """A layer. `digest` and `stored` (bytes) are of the blob as it is kept, `diff_id` and `size` of the uncompressed
    tar; where the latter size is not known it is that of the blob."""

    digest: str
    diff_id: str
    size: int
    stored: int
    media_type: str


class HistoryLine(msgspec.Struct, frozen=True):
    """How a layer, or a change to the configuration, was made. `created` is None where the image does not say; `size`
    is that of the layer in bytes, 0 for a line without one (`empty`)."""

    created: datetime | None
    created_by: str
    comment: str
    size: int
    empty: bool


class Store:
    """The store at `root` (by default that of the command line, $BUILDER_ROOT), which is made on first use.

    for image in builder.Store().images():
        print(image.tags, image.size)
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = os.path.abspath(os.fspath(root) if root is not None else default_root(os.environ))

    def __repr__(self) -> str:
        return f"Store({self.root!r})"

    def images(self) -> list[Image]:
        """All images, newest first, each once with all of its tags. Raises StoreError."""
        from builder.store.describe import Describer

        with self._open() as opened:
            describer = Describer(opened)
            found: dict[str, list[Summary]] = {}
            for summary in describer.summaries():
                found.setdefault(summary.descriptor.digest, []).append(summary)
            return [self._image(opened, describer, rows) for rows in found.values()]

    def image(self, name: str) -> Image:
        """The image with a name, a digest, or an ID (its first digits do). Raises StoreError."""
        from builder.store.describe import Describer

        with self._open() as opened:
            descriptor = opened.images.find(name).descriptor
            describer = Describer(opened)
            rows = [describer.summary(one) for one in opened.images.all() if one.descriptor.digest == descriptor.digest]
            return self._image(opened, describer, rows)

    def load(self, archive: Path | BinaryIO) -> list[Image]:
        """Read the images of an archive (Docker's or OCI's, compressed or not): a path, or a binary stream.

        Raises LayerError, StoreError; then nothing was loaded."""
        from builder.store.load import load

        if not isinstance(archive, (str, os.PathLike)):
            with self._open() as opened:
                loaded = load(opened, archive, place="the stream")
        else:
            path = os.fspath(archive)
            try:
                file = open(path, "rb")  # noqa: SIM115
            except OSError as error:
                raise StoreError(f"cannot be read: {error.strerror}", place=path) from error
            with file, self._open() as opened:
                loaded = load(opened, file, place=path)
        return [self.image(one.descriptor.digest) for one in loaded]

    def builds(self) -> list[Build]:
        """The records of past builds, newest first."""
        with self._open() as opened:
            return list(opened.builds.all())

    @contextmanager
    def _open(self) -> Iterator[Opened]:
        with closing(_open(self.root)) as opened:
            yield opened

    def _image(self, opened: Opened, describer: Describer, rows: Sequence[Summary]) -> Image:
        summary = rows[0]
        return Image(
            root=self.root,
            descriptor=without_names(summary.descriptor),
            tags=tuple(sorted(row.reference.familiar for row in rows if row.reference is not None)),
            id=summary.image_id,
            created=summary.created,
            size=summary.size,
            labels=summary.labels,
            platforms=tuple(str(image.platform) for image in summary.platforms if image.platform is not None),
        )


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image of a store, as it was when it was asked for.

    `id` is the digest of the configuration (Docker's image ID; of an index its own digest), `tags` the names as people
    write them, `size` the bytes of all layers without compression where they are known, `platforms` those that are
    here. Where an image has several platforms, `config`, `layers` and `history` are of this machine's, or the first;
    `variant` gives another.
    """

    root: str
    descriptor: Descriptor
    tags: tuple[str, ...]
    id: str
    created: datetime | None
    size: int
    labels: dict[str, str]
    platforms: tuple[str, ...]
    platform: str = ""

    @property
    def digest(self) -> str:
        """The digest of the manifest or index, by which registries know the image."""
        return self.descriptor.digest

    @property
    def config(self) -> ImageConfig:
        """The configuration: `config.config.env`, `.cmd`, `.entrypoint`… as the specification has them."""
        return self._read(lambda _, image: _config(image))

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Lowest first."""

        def read(describer: Describer, image: PlatformImage) -> tuple[Layer, ...]:
            assert image.manifest is not None
            pairs = zip(image.manifest.layers, _config(image).rootfs.diff_ids or (), strict=False)
            return tuple(
                Layer(layer.digest, diff_id, describer.layer_size(layer), layer.size, layer.media_type)
                for layer, diff_id in pairs
            )

        return self._read(read)

    @property
    def history(self) -> tuple[HistoryLine, ...]:
        """Newest first, as `builder history` shows it."""
        from builder.store.describe import parse_time

        def read(describer: Describer, image: PlatformImage) -> tuple[HistoryLine, ...]:
            return tuple(
                HistoryLine(
                    parse_time(row.line.created), row.line.created_by, row.line.comment, row.size, row.line.empty_layer
                )
                for row in describer.history(image)
            )

        return self._read(read)

    def variant(self, platform: str) -> Image:
        """The same image, seen as one for a platform such as `linux/arm64`. Raises StoreError if that is not here."""
        chosen = msgspec.structs.replace(self, platform=str(parse_platform(platform)))
        _ = chosen.config
        return chosen

    def tag(self, *names: str) -> Image:
        """Give the image more names; the image with them. Raises InvalidReference, UsageError."""
        parsed = [references.parse(name) for name in names]
        for name in parsed:
            if name.digest is not None:
                raise UsageError("a new name cannot have a digest", place=str(name), remedy="write NAME[:TAG]")
        with closing(_open(self.root)) as opened, opened.lease():
            opened.images.tag(self.descriptor, parsed)
        return msgspec.structs.replace(self, tags=tuple(sorted({*self.tags, *(one.familiar for one in parsed)})))

    def remove(self, *, force: bool = False) -> None:
        """Remove the image with all of its tags, and the layers that nothing else needs. With names in several
        repositories it must be forced. Raises StoreError."""
        _as_root(_remove, self.root, self.digest, force)

    def save(self, path: Path, *, format: Literal["docker-archive", "oci"] = "docker-archive") -> None:
        """Write an archive of the image with its tags, of a `variant` that alone; Docker, podman and skopeo read both
        forms. Raises StoreError."""
        from builder.export.archive import ArchivedImage, write_archive
        from builder.export.destination import destination
        from builder.store.describe import Describer

        if format not in ("docker-archive", "oci"):
            raise UsageError(f"unknown format {format!r}", remedy="the formats are docker-archive and oci")
        with closing(_open(self.root)) as opened, opened.lease(), destination(os.fspath(path)) as file:
            descriptor = self.descriptor
            if self.platform:
                descriptor = _choose(opened, Describer(opened), self.digest, self.platform).descriptor
            names = (references.parse(tag) for tag in self.tags)
            named = tuple(name for name in names if name.digest in (None, descriptor.digest))
            write_archive(opened, [ArchivedImage(descriptor, named)], file, docker=format == "docker-archive")

    def export(self, path: Path) -> None:
        """Write the image's files: as a tar archive if `path` ends with `.tar`, else into a directory. Raises
        StoreError."""
        _as_root(_export, self.root, self.digest, self.platform, os.path.abspath(path))

    def run(
        self,
        command: Sequence[str] = (),
        *,
        entrypoint: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str = "",
        workdir: str = "",
        volumes: Mapping[str, Path] | None = None,
        network: Literal["default", "none", "host"] = "default",
        input: bytes | str = b"",
        text: bool = True,
        check: bool = False,
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[Any]:
        """Run a program of the image in a sandbox, and wait for it; what it writes to files is thrown away.

        `command` are the arguments after the image's name of `builder run`, `volumes` files and directories of the host
        by their path in the image. The result's `returncode` is 128 and the number if a signal ended it; `stdout` and
        `stderr` are texts, or bytes without `text`.

        Raises UsageError for a network that is not known, StepFailed if nothing could be started, and
        subprocess.TimeoutExpired after `timeout` seconds; with `check` subprocess.CalledProcessError for a status other
        than 0.
        """
        import subprocess

        from builder.api.choices import NETWORKS, check_choice
        from builder.api.running import RunOptions, Volume
        from builder.api.worker import run_apart

        check_choice("network", network, NETWORKS)
        options = RunOptions(
            image=self.digest,
            command=tuple(command),
            entrypoint=entrypoint,
            environment=dict(env or {}),
            user=user,
            workdir=workdir,
            volumes=tuple(Volume(os.path.abspath(source), target) for target, source in (volumes or {}).items()),
            network=network,
            platform=parse_platform(self.platform) if self.platform else None,
        )
        data = input.encode() if isinstance(input, str) else input
        status, out, err = run_apart(_run, self.root, options, data=data, timeout=timeout)
        written: list[Any] = [one.decode("utf-8", "replace") if text else one for one in (out, err)]
        done = subprocess.CompletedProcess([*self.tags[:1], *command], status, *written)
        if check:
            done.check_returncode()
        return done

    def _read(self, read: Callable[[Describer, PlatformImage], _T]) -> _T:
        from builder.store.describe import Describer

        with closing(_open(self.root)) as opened:
            describer = Describer(opened)
            return read(describer, _choose(opened, describer, self.digest, self.platform))


def images(root: Path | None = None) -> list[Image]:
    """All images of the store at `root` (by default the command line's), newest first. Raises StoreError."""
    return Store(root).images()


def _open(root: str) -> Opened:
    return Opened(root, limits_of(os.environ))


def _choose(opened: Opened, describer: Describer, digest: str, platform: str) -> PlatformImage:
    return describer.choose(opened.images.find(digest), parse_platform(platform) if platform else None)


def _config(image: PlatformImage) -> ImageConfig:
    assert image.config is not None
    return image.config


# --- what touches unpacked layers, and so must be root, at least of a user namespace


def _as_root(function: Callable[..., None], *arguments: Any) -> None:
    if os.geteuid() == 0:
        function(*arguments)
        return
    from builder.api.worker import call_apart

    call_apart(function, *arguments)


def _remove(root: str, digest: str, force: bool) -> None:
    from builder.store.collect import collect
    from builder.store.remove import remove

    with closing(_open(root)) as opened:
        if remove(opened, digest, force=force).deleted:
            collect(opened)


def _export(root: str, digest: str, platform: str, path: str) -> None:
    from builder.export.destination import destination
    from builder.export.files import Files, write_directory, write_tar
    from builder.store.describe import Describer

    with closing(_open(root)) as opened, opened.lease():
        image = _choose(opened, Describer(opened), digest, platform)
        assert image.manifest is not None
        layers = paired_layers(image.manifest, _config(image), digest)
        for diff_id, layer in layers:
            opened.layers.know(diff_id, layer)
        diff_ids = [diff_id for diff_id, _ in layers]
        if path.endswith(".tar"):
            with destination(path) as file:
                write_tar(opened, [Files(layers=diff_ids)], file.write)
        else:
            write_directory(opened, Files(layers=diff_ids), path)


def _run(root: str, options: Any) -> int:
    from builder.api.running import run_image
    from builder.sandbox.session import Session

    with closing(_open(root)) as opened:
        return run_image(opened, options, Session(stdin=0))
