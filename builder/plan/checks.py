"""The build checks that need a scope, a target or a base image; the parser notes the others (`dockerfile/notices.py`).

Names, messages and the moment at which a check looks are BuildKit's (`dockerfile2llb/validations.go` and `convert.go`).
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from builder.dockerfile import instructions as df
from builder.dockerfile.text import nearest, quoted
from builder.dockerfile.words import Expansion, expand
from builder.errors import BuilderError, DockerfileError, InvalidReference
from builder.oci import reference
from builder.oci.platform import parse_platform
from builder.oci.spec import Platform
from builder.plan.findings import Checks
from builder.plan.scope import NEVER_VARIABLES, global_scope

if TYPE_CHECKING:
    from builder.context.ignore import Rules
    from builder.plan.state import StageState

_BY_COMMENT = frozenset(("StageNameCasing", "FromAsCasing", "MaintainerDeprecated", "InvalidDefinitionDescription"))
"""Rules of the parser that a comment above the instruction can skip."""

_SECRET_WORDS = frozenset(
    ("apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token")
)
_HARMLESS_WORDS = frozenset(("public", "file", "version"))


# --- the whole file


def check_notices(checks: Checks, dockerfile: df.Dockerfile) -> None:
    """What the parser saw."""
    if not dockerfile.notices:
        return
    comments: dict[df.Range, tuple[str, ...]] = {}
    for stage in dockerfile.stages:
        for instruction in (stage.from_, *stage.instructions):
            comments[instruction.range] = instruction.comments
    for argument in dockerfile.global_args:
        comments[argument.range] = argument.comments
    for notice in dockerfile.notices:
        above = comments.get(notice.range, ()) if notice.rule in _BY_COMMENT else ()
        checks.report(notice.rule, notice.message, notice.range, above)


def check_default_arguments(checks: Checks, dockerfile: df.Dockerfile, predefined: Mapping[str, str]) -> None:
    """InvalidDefaultArgInFrom: whether every FROM names an image if no build argument is given.

    `predefined` are the platform arguments. A FROM that cannot be expanded ends the check: the build fails there.
    """
    try:
        defaults = global_scope(dockerfile.global_args, dict(predefined), {}, set())
        for stage in dockerfile.stages:
            name = expand(stage.from_.image, defaults).text
            try:
                reference.parse(name)
            except InvalidReference:
                written = stage.from_.image.source
                checks.report(
                    "InvalidDefaultArgInFrom",
                    f"Default value for ARG {written} results in empty or invalid base image name",
                    stage.from_.range,
                )
    except DockerfileError:
        return


# --- FROM


def check_from_arguments(
    checks: Checks, from_: df.From, unmatched: Iterable[str], arguments: Mapping[str, str], declared: Iterable[str]
) -> None:
    """UndefinedArgInFrom: `unmatched` are the names that had no value; one that was declared without is fine."""
    known = {*arguments, *declared}
    for name in unmatched:
        if name in known:
            continue
        close = nearest(name, known)
        hint = f" (did you mean {close}?)" if close else ""
        checks.report(
            "UndefinedArgInFrom", f"FROM argument '{name}' is not declared{hint}", from_.range, from_.comments
        )


def check_platform_flag(checks: Checks, from_: df.From, platform: Expansion, target: str) -> None:
    """RedundantTargetPlatform and FromPlatformFlagConstDisallowed. `target` is the value of TARGETPLATFORM."""
    if platform.used == ("TARGETPLATFORM",) and not platform.unmatched and platform.text == target:
        written = from_.platform.source if from_.platform else ""
        checks.report(
            "RedundantTargetPlatform",
            f"Setting platform to predefined {written} in FROM is redundant as this is the default behavior",
            from_.range,
            from_.comments,
        )
    if platform.used or platform.unmatched:
        return
    try:
        found = parse_platform(platform.text)
    except BuilderError:
        return  # refused where it is planned
    name = from_.name.lower()
    if found.os in name or found.architecture in name:
        return
    checks.report(
        "FromPlatformFlagConstDisallowed",
        f"FROM --platform flag should not use constant value {quoted(platform.text)}",
        from_.range,
        from_.comments,
    )


def check_base_platform(checks: Checks, name: str, expected: Platform, found: Platform, where: df.Range | None) -> None:
    """InvalidBaseImagePlatform: the image that was found is for another platform than the one asked for."""
    if (expected.os, expected.architecture) != (found.os, found.architecture):
        checks.report(
            "InvalidBaseImagePlatform",
            f'Base image {name} was pulled with platform "{found}", expected "{expected}" for current build',
            where,
        )


# --- instructions


def _report(state: StageState, instruction: df.Instruction, rule: str, message: str) -> None:
    state.checks.report(rule, message, instruction.range, instruction.comments)


def check_undefined(state: StageState, instruction: df.Instruction, names: Iterable[str]) -> None:
    """UndefinedVar: `names` are the variables of one word that had no value."""
    for name in names:
        if name in state.scope.declared or name in NEVER_VARIABLES:
            continue
        close = nearest(name, state.scope.env)
        hint = f" (did you mean ${close}?)" if close else ""
        _report(state, instruction, "UndefinedVar", f"Usage of undefined variable '${name}'{hint}")


def is_sensitive(name: str) -> bool:
    """Whether a variable's name says that its value is a secret: a word such as `token`, and none such as `public`."""
    words = set(name.lower().split("_"))
    return bool(words & _SECRET_WORDS) and not words & _HARMLESS_WORDS


def check_secret(state: StageState, instruction: df.Instruction, kind: str, name: str) -> None:
    """SecretsUsedInArgOrEnv. `kind` is ARG or ENV."""
    if is_sensitive(name):
        message = f"Do not use ARG or ENV instructions for sensitive data ({kind} {quoted(name)})"
        _report(state, instruction, "SecretsUsedInArgOrEnv", message)


def check_legacy(state: StageState, instruction: df.Env | df.Label, pair: df.KeyValue) -> None:
    """LegacyKeyValueFormat."""
    if pair.legacy:
        word = instruction.keyword
        message = f'"{word} key=value" should be used instead of legacy "{word} key value" format'
        _report(state, instruction, "LegacyKeyValueFormat", message)


def check_workdir(state: StageState, instruction: df.Workdir, path: str) -> None:
    """WorkdirRelativePath: only the first WORKDIR counts, in this stage or one that it stands on."""
    if not state.workdir_set and not path.startswith("/"):
        message = f"Relative workdir {quoted(path)} can have unexpected results if the base image changes"
        _report(state, instruction, "WorkdirRelativePath", message)
    state.workdir_set = True


def check_used_once(state: StageState, instruction: df.Cmd | df.Entrypoint | df.HealthCheck) -> None:
    """MultipleInstructionsDisallowed: reported at the earlier one, which has no effect."""
    earlier = state.last.get(type(instruction))
    if earlier is not None:
        state.checks.report(
            "MultipleInstructionsDisallowed",
            f"Multiple {instruction.keyword} instructions should not be used in the same stage"
            " because only the last one will be used",
            earlier,
            instruction.comments,
        )
    state.last[type(instruction)] = instruction.range


def check_json_form(state: StageState, instruction: df.Cmd | df.Entrypoint) -> None:
    """JSONArgsRecommended, unless a SHELL was chosen."""
    if instruction.command.shell and not state.image.config.shell:
        message = (
            f"JSON arguments recommended for {instruction.keyword} to prevent unintended behavior related to OS signals"
        )
        _report(state, instruction, "JSONArgsRecommended", message)


def check_port(state: StageState, instruction: df.Expose, text: str) -> None:
    """ExposeProtoCasing and ExposeInvalidFormat."""
    protocol = text.partition("/")[2]
    if protocol != protocol.lower():
        message = f"Defined protocol '{text}' in EXPOSE instruction should be lowercase"
        _report(state, instruction, "ExposeProtoCasing", message)
    if any(text.split(":")[:-1]):
        message = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'"
        _report(state, instruction, "ExposeInvalidFormat", message)


def check_source(state: StageState, instruction: df.Copy | df.Add, path: str) -> None:
    """CopyIgnoredFile: a source in the build context that the ignore file hides."""
    path = posixpath.normpath(path) if path else "."
    if path.startswith("//"):
        path = path[1:]
    if state.checks.hides(path):
        verb = "Copy" if isinstance(instruction, df.Copy) else "Add"
        message = f"Attempting to {verb} file {quoted(path)} that is excluded by .dockerignore"
        _report(state, instruction, "CopyIgnoredFile", message)


def hides_source(rules: Rules | None) -> Callable[[str], bool] | None:
    """Tells whether an ignore file hides a source of COPY or ADD; None where that cannot be told from rules alone: a
    `!` rule may keep something below a directory that is hidden."""
    if rules is None or not rules.rules or any(rule.negated for rule in rules.rules):
        return None
    from builder.context.ignore import Matcher

    everything = any(rule.text.strip().removeprefix("/") in ("*", "**", "**/*") for rule in rules.rules)
    matcher = Matcher(rules)

    def hides(path: str) -> bool:
        if path == "." or path.startswith("/"):
            # the context itself is hidden only where all that is in it is
            return everything or (path not in (".", "/") and matcher.ignored(path))
        return matcher.ignored(path)

    return hides
