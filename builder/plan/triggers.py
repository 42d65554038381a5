"""The ONBUILD triggers of a stage's base, which come before the stage's own instructions."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from builder.dockerfile.parser import parse_trigger
from builder.plan.stage_reader import StageReader
from builder.plan.stages import StageEntry, link


def put_in_front(triggers: Sequence[str], entry: StageEntry, reader: StageReader) -> bool:
    """Put the instructions of these triggers in front of a stage's, at the place of its FROM. Returns whether it needs
    further stages with them. Raises DockerfileError."""
    assert entry.stage is not None
    from_ = entry.stage.from_
    with reader.locate(from_):
        parsed = [
            msgspec.structs.replace(parse_trigger(text, reader.dockerfile.escape), range=from_.range)
            for text in triggers
        ]
    entry.instructions[:0] = [(instruction, True) for instruction in parsed]
    before = len(entry.needs)
    link(entry, parsed, reader.table, reader.locate)
    return len(entry.needs) > before
