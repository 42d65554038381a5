"""Options that variables of the environment give where the command line does not, as with Docker.

DOCKER_DEFAULT_PLATFORM is the `--platform` of what makes, fetches or starts an image for one; of what only picks a
variant that is there (`push`, `save`, `inspect`) it is not, in Docker neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from builder.cli.progress import MODES, unknown_mode
from builder.errors import UsageError

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


class _VariableOption(click.Option):
    """`check` raises UsageError for a value that the variable must not have; the error names the variable."""

    def __init__(self, *given: Any, check: Callable[[str], object], **extra: Any) -> None:
        super().__init__(*given, **extra)
        self._check = check

    def value_from_envvar(self, ctx: click.Context) -> Any:
        text = self.resolve_envvar_value(ctx)
        if text is None or ctx.resilient_parsing:  # a shell asks for completions
            return None
        try:
            self._check(text)
        except UsageError as error:
            raise UsageError(error.cause, place=f"${self.envvar}", remedy=error.remedy) from error
        return (text,) if self.multiple else text


def platform_option(*names: str, **extra: Any) -> Callable[[_Decorated], _Decorated]:
    """`--platform`; with `multiple` several ones, with commas between."""
    return click.option(
        "--platform", *names, cls=_VariableOption, envvar="DOCKER_DEFAULT_PLATFORM", metavar="OS/ARCH",
        check=_check_platforms if extra.get("multiple") else _check_platform, **extra,
    )  # fmt: skip


def progress_option(**extra: Any) -> Callable[[_Decorated], _Decorated]:
    """`--progress`."""
    return click.option(
        "--progress", cls=_VariableOption, envvar="BUILDKIT_PROGRESS", type=click.Choice(MODES), default="auto",
        check=_check_progress, **extra,
    )  # fmt: skip


def _check_platform(text: str) -> None:
    from builder.oci.platform import parse_platform

    parse_platform(text)


def _check_platforms(text: str) -> None:
    from builder.oci.platform import parse_target

    for name in text.split(","):
        if name:
            parse_target(name)


def _check_progress(text: str) -> None:
    if text not in MODES:
        raise unknown_mode(text)
