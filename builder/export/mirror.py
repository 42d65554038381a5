"""`type=local,mode=delete`: a directory holds what the images have, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from builder.errors import StoreError, UsageError
from builder.export.files import Files, entries
from builder.export.output import Output
from builder.filesystem.syscalls import open_beneath, remove_tree
from builder.store.store import Store

ENTITLEMENT = "buildx.local.delete"


def refuse_deleting(outputs: Iterable[Output], allowed: frozenset[str]) -> None:
    """Raises UsageError for a directory that is to be emptied and does not lie below the current one, unless that was
    allowed: as in buildx (ValidateLocalExportDelete)."""
    here = os.path.join(os.path.realpath("."), "")
    for output in outputs:
        if output.delete and ENTITLEMENT not in allowed and not os.path.realpath(output.dest).startswith(here):
            raise UsageError(
                "mode=delete removes what else is in a directory, and this one is not below the current one",
                place=output.dest,
                remedy=f"add --allow={ENTITLEMENT}",
            )


def remove_others(store: Store, images: Sequence[tuple[str, Files]], destination: str) -> None:
    """Remove everything from `destination` that is not in the images, which go there or into directories of these
    names below it. No link is followed. Raises StoreError."""
    kept = {path for directory, files in images for path in _paths(store, directory, files)}
    try:
        root = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"cannot write the files: {error.strerror}", place=destination) from error
    try:
        _remove_others(root, kept)
    except OSError as error:
        raise StoreError(f"cannot remove what else is there: {error.strerror}", place=destination) from error
    finally:
        os.close(root)


def _paths(store: Store, directory: str, files: Files) -> Iterator[str]:
    prefix = f"{directory}/" if directory else ""
    if directory:
        yield directory
    for entry in entries(store, files.layers):
        yield prefix + entry.path
    for name in files.beside:
        yield prefix + name


def _remove_others(root: int, kept: set[str]) -> None:
    pending = [""]
    while pending:
        path = pending.pop()
        directory = open_beneath(root, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(directory) as found:
                inside = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
            for name, is_directory in inside:
                inner = f"{path}/{name}" if path else name
                if inner not in kept:
                    remove_tree(name, dir_fd=directory)
                elif is_directory:
                    pending.append(inner)
        finally:
            os.close(directory)
