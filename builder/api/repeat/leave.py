"""Leaving a note, so that the same command can be answered with its words."""

from __future__ import annotations

import os
from collections.abc import Sequence

from builder.api.repeat.notes import Note, state_of
from builder.api.repeat.question import Question
from builder.filesystem.moments import Moment

KEPT = 128
"""Files beside each other in one store: notes, of some kilobytes, and what command lines gave."""


def settled_state(question: Question, paths: Sequence[str]) -> bytes:
    """The state of what a command looked at, which is done. Raises OSError, and ValueError for what cannot be noted:
    files that changed just before, since they may change twice within what is one moment to their file system, and a
    store whose images are others by now."""
    state = state_of(paths, Moment(question.looked))
    if question.look_at_images() != question.images:
        raise ValueError("the store's images changed meanwhile")
    return state


def leave(question: Question, note: Note) -> None:
    """Write a note where the question is answered from it, and drop the oldest of many. Raises OSError, and ValueError
    for what cannot be noted."""
    data = note.encode()
    make_room(question)
    question.write(question.note, data)


def make_room(question: Question) -> None:
    """See to it that another note can be written. Raises OSError."""
    directory = os.path.dirname(question.note)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    with os.scandir(directory) as entries:
        notes = sorted((entry.stat().st_mtime, entry.path) for entry in entries)
    for _, path in notes[: -KEPT + 1]:
        os.unlink(path)
