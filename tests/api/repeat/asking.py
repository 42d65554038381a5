"""A build that is asked for again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builder.api.options import BuildOptions, BuildResult
from builder.api.repeat.build import remember
from builder.api.repeat.question import Question, question
from tests.support.builds import context

DOCKERFILE = "FROM scratch AS one\nCOPY a /\nFROM scratch\nCOPY --from=one a /b\nCOPY dir /dir\nLABEL x=y\n"
LOG = "#1 [stage-1 1/2] COPY\n#1 CACHED\n"


class Asking:
    """A build that is asked for again and again, with a context that is thought to have settled."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "store"
        self.context = context(
            directory / "context", DOCKERFILE, a="a", dir__b="b", ignored="", **{".dockerignore": "ignored"}
        )
        self.environ = {"HOME": str(directory), "BUILDER_CONFIG": str(directory / "builder.toml")}
        (directory / "builder.toml").touch()
        self.archive = directory / "image.tar"
        self.options = BuildOptions(context=str(self.context), tags=("x",), root=str(self.root), environ=self.environ)

    def ask(self, *more: str, **environ: str) -> Question:
        arguments = ["--root", str(self.root), "build", "-t", "x", *more, str(self.context)]
        found = question(arguments, self.environ | environ)
        assert found is not None
        return found

    def build(self, log: str = LOG, **options: Any) -> BuildResult:
        """Build the whole way, and note it if it may be repeated."""
        asked = self.ask()
        result = build_with(self.options, **options)
        remember(asked, options_with(self.options, **options), result, "", log)
        return result

    def answered(self) -> bool:
        return self.ask().answer() is not None


def options_with(options: BuildOptions, **changes: Any) -> BuildOptions:
    from msgspec.structs import replace

    return replace(options, **changes)


def build_with(options: BuildOptions, **changes: Any) -> BuildResult:
    from builder.api.build import build as build_options

    return build_options(options_with(options, **changes))
