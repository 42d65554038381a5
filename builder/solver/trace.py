"""What one step tells of itself while it is looked up and made: for the reason of a miss, and the build's record."""

from __future__ import annotations

from collections.abc import Callable

from builder.progress import Reason

Explain = Callable[["Trace", bytes], Reason | None]
"""Finds out why a step with this recipe, or with the recipe that says the same by content, was not found. Recipes are
given as `keys.encode` writes them: of many files that is half of what they take as data."""

Origin = Callable[[str], str | None]
"""The layer that a file of the stage comes from which a step copies from: its path without slashes at the ends."""


class Trace:
    """`place` names the step's place among all Dockerfiles. `key` is that of the recipe it was first looked up by,
    `content` that of the recipe by content where there is one; `recipe` the fullest, known once the step was not
    found and until it is made; `origin` then tells where files come from that it copies from a stage. `inexact` says
    that it was found by content with other times than its sources have, which is good at this place only. `parts` are
    the keys of what its mounts show of contexts, by `content_name`. `previous_build` and `previous_step` name what it
    was compared with for its `reason`."""

    __slots__ = (
        "content", "explain", "inexact", "key", "origin", "parts", "place", "previous_build", "previous_step", "reason",
        "recipe", "step",
    )  # fmt: skip

    def __init__(self, step: str, place: str, explain: Explain | None = None) -> None:
        self.step = step
        self.place = place
        self.explain = explain
        self.key = ""
        self.content = ""
        self.inexact = False
        self.parts: dict[str, str] = {}
        self.recipe: bytes | None = None
        self.origin: Origin | None = None
        self.reason: Reason | None = None
        self.previous_build = ""
        self.previous_step = ""

    def part(self, name: str) -> Trace:
        """The trace of a layer that is made for one of this step's mounts."""
        return Trace(self.step, f"{self.place}|{name}")

    def missed(self, recipe: bytes) -> None:
        """The step was not found and is made now; `recipe` says by what it was looked for."""
        self.recipe = recipe
        if self.explain is not None:
            self.reason = self.explain(self, recipe)
