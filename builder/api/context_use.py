"""Warnings about what a build takes from its context: too much of it, or what is not where it seems to be."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from builder.dockerfile.instructions import Add, Copy, Dockerfile
from builder.plan.locate import Locator
from builder.plan.steps import MAIN_CONTEXT, CopyFiles, CopyNode, FromContext, Plan
from builder.progress import Reporter, Warned, human_size

if TYPE_CHECKING:
    from builder.solver.environment import Copied
    from builder.solver.gather import FilesSource, Source

LARGE = 250_000_000
"""Bytes that one step may take from the context before that is worth a warning: what takes seconds to read, hash and
compress, and rarely all belongs into an image."""

_SHOWN = 3


def warn_of_large_copies(locate: Locator, report: Reporter) -> Copied:
    """What is told of each COPY and ADD that read its sources (not of one that is cached), and warns of a large one.

    Nothing else of a context is read, so that a context may be as large as it likes.
    """

    def copied(node: CopyNode, sources: Sequence[Source], written: int) -> None:
        if written < LARGE:
            return
        from builder.solver.gather import FilesSource

        taken = [
            source
            for planned, source in zip(node.sources, sources, strict=True)
            if _is_of_context(planned) and isinstance(source, FilesSource)
        ]
        total = sum(item.info.size for source in taken for match in source.matches for item in match.items)
        if total < LARGE:
            return
        sizes: dict[str, int] = {}
        for source in taken:
            _add_sizes(sizes, source)
        largest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]
        shown = ", ".join(f"{path or '.'} ({human_size(size)})" for path, size in largest)
        place = locate.place(node.range) if node.range is not None else None
        report(
            Warned(
                f"{human_size(total)} were read from the build context, most of it {shown}; list what is not needed in"
                " .dockerignore ('builder context ls --sizes' shows all)",
                place,
            )
        )

    return copied


def _is_of_context(source: object) -> bool:
    return isinstance(source, CopyFiles) and isinstance(source.tree, FromContext) and source.tree.name == MAIN_CONTEXT


def _add_sizes(sizes: dict[str, int], source: FilesSource) -> None:
    """Add up what a source takes, by the entries of the directory that it names."""
    for match in source.matches:
        prefix = f"{match.path}/" if match.path else ""
        for item in match.items:
            if not item.info.size:
                continue
            first = item.relative.partition("/")[0]
            path = prefix + first if first else match.path
            sizes[path] = sizes.get(path, 0) + item.info.size


def warn_of_climbing(dockerfile: Dockerfile, planned: Plan, locate: Locator) -> Iterator[Warned]:
    """A warning for each source that begins with more `..` than it has directories to leave. As in BuildKit they count
    for nothing: the path is looked up in the context."""
    built = {node.range for node in planned.nodes if isinstance(node, CopyNode)}
    for stage in dockerfile.stages:
        for instruction in stage.instructions:
            if not isinstance(instruction, (Copy, Add)) or instruction.range not in built:
                continue
            if isinstance(instruction, Copy) and instruction.from_:
                continue
            for word in instruction.sources:
                if "://" not in word.source and posixpath.normpath(word.source).startswith("../"):
                    inside = posixpath.normpath(f"/{word.source}").lstrip("/") or "."
                    yield Warned(
                        f"{instruction.keyword.upper()} {word.source}: nothing outside of the build context can be"
                        f" copied; this means {inside} inside it. Build with the directory above as the context, or"
                        " add it with --build-context NAME=PATH and COPY --from=NAME",
                        locate.place(instruction.range),
                    )
