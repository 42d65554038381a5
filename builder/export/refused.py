"""Outputs that no build can write. A build refuses them before its first step, `deliver` for callers of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from builder.errors import UsageError
from builder.export.output import Output
from builder.filesystem.compression import ZSTD
from builder.oci.spec import Platform
from builder.solver.annotations import Annotation


def refuse_outputs(outputs: Sequence[Output], *, named: bool) -> None:
    """Raises UsageError, with `named` for a build that has tags.

    That only one output may have standard output is buildx's rule, too."""
    for output in outputs:
        if output.push and not (named or output.names):
            raise UsageError(
                "an image without a name cannot be pushed", remedy="name it with -t, or with name= in --output"
            )
        if output.oci_media_types is False and output.compression and output.compression.kind == ZSTD:
            from builder.solver.commit import docker_zstd

            raise docker_zstd()
    if [output.dest for output in outputs].count("-") > 1:
        raise UsageError("several outputs go to standard output", remedy="add dest=FILE to all but one of them")


def refuse_undated(outputs: Sequence[Output], epoch: int | None) -> None:
    """Raises UsageError for outputs that need the time of the build, if it has none."""
    if epoch is None and any(output.rewrite_timestamp for output in outputs):
        raise UsageError(
            "rewrite-timestamp needs a time", remedy="set SOURCE_DATE_EPOCH; what is built gets no later time"
        )


def refuse_annotations(
    annotations: Iterable[Annotation], outputs: Iterable[Output], platforms: Sequence[Platform]
) -> None:
    """Raises UsageError for one that is for a platform which is not built, as BuildKit's image writer does."""
    for annotation in (*annotations, *(one for output in outputs for one in output.annotations)):
        if annotation.platform is not None and annotation.platform not in platforms:
            raise UsageError(
                f"the annotation {annotation.key!r} is for {annotation.platform}, which is not built",
                remedy=f"built: {', '.join(map(str, platforms))}",
            )
