"""The source policies that buildx would have a build follow: read, or refused where they are written in Rego.

`EXPERIMENTAL_BUILDKIT_SOURCE_POLICY` names a file with rules in JSON (buildx's `ReadSourcePolicy`), which are followed.
A policy in Rego lies beside the Dockerfile and counts without being asked for, as `<Dockerfile>.rego` (`build/opt.go`).
That is no language we read; a build that went on without it would take what somebody forbade.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from builder.api.options import DEFAULT_POLICY, SOURCE_POLICY
from builder.context.source import GitContext, HTTPContext, Origin
from builder.errors import ContextError, Unsupported, UsageError
from builder.plan.source_policy import ATTRIBUTES, Constraint, Rule, SourcePolicy

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_ACTIONS = ("ALLOW", "DENY", "CONVERT")
_MATCHES = ("WILDCARD", "EXACT", "REGEX")
_CONDITIONS = ("EQUAL", "NOTEQUAL", "MATCHES")
_SIGNED = (
    r"^docker-image://docker\.io/(docker/(dockerfile|dockerfile-upstream|buildkit-syft-scanner)|moby/buildkit):[^@]*$"
)


class _Update(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    identifier: str = ""
    attrs: dict[str, str] | None = None


class _Constraint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: str = ""
    value: str = ""
    condition: str | int = 0


class _Selector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    identifier: str = ""
    match_type: str | int = 0
    constraints: tuple[_Constraint, ...] | None = None


class _Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    selector: _Selector
    action: str | int = 0
    updates: _Update | None = None


class _Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int = 0
    rules: tuple[_Rule, ...] | None = None


def source_policy(environ: Mapping[str, str], *, rego: bool = True) -> SourcePolicy | None:
    """The policy that the environment names; None without one. Raises UsageError for one that cannot be followed.

    Where `rego` policies count buildx's own may too, which wants signatures of some images by tag. Those are not looked
    at, and so such an image is denied.
    """
    path = environ.get(SOURCE_POLICY, "")
    found = read_policy(path) if path else None
    if not rego or environ.get(DEFAULT_POLICY, "") not in _TRUE:
        return found
    name = f"buildx's default policy ({DEFAULT_POLICY})"
    rules = found.rules if found is not None else ()
    return SourcePolicy(f"{path} and {name}" if path else name, (*rules, Rule("DENY", _SIGNED, _SIGNED)))


def read_policy(path: str) -> SourcePolicy:
    """The rules of a file. Raises UsageError for what BuildKit, or this builder, does not understand."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise UsageError(
            f"the source policy cannot be read: {error.strerror}",
            place=path,
            remedy=f"correct {SOURCE_POLICY}, or unset it",
        ) from error
    try:
        policy = msgspec.json.decode(data, type=_Policy)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"no source policy: {error}", place=path, remedy="write it as BuildKit's JSON") from None
    rules = []
    for number, rule in enumerate(policy.rules or (), 1):
        try:
            rules.append(_rule(rule))
        except ValueError as error:
            raise UsageError(
                f"rule {number} of the source policy cannot be followed: {error}",
                place=path,
                remedy=f"change the rule, or unset {SOURCE_POLICY} to build without",
            ) from None
    return SourcePolicy(path, tuple(rules))


def policies_count(texts: Iterable[str]) -> bool:
    """Whether policies in Rego count, by what `--policy` gives. Raises UsageError, Unsupported."""
    counted = True
    for text in texts:
        key, _, value = text.partition("=")
        if key.strip().lower() != "disabled":
            raise Unsupported(
                f"--policy {text}: policies in Rego are not evaluated here",
                remedy="write --policy disabled=true to build without them; rules in JSON are followed:"
                f" {SOURCE_POLICY}=FILE",
            )
        if value not in (*_TRUE, *_FALSE):
            raise UsageError(f"--policy disabled={value!r} is neither true nor false")
        counted = value in _FALSE
    return counted


def rego_refused(path: str) -> Unsupported:
    """What is said of a Dockerfile's policy in Rego."""
    return Unsupported(
        "the Dockerfile has a policy in Rego, which is not evaluated here",
        place=path,
        remedy="add --policy disabled=true to build without it; rules in JSON are followed:"
        f" {SOURCE_POLICY}=FILE, see the README",
    )


def take_remote(
    policy: SourcePolicy, source: GitContext | HTTPContext, *, keep_git_dir: bool = False
) -> tuple[GitContext | HTTPContext, str]:
    """The context that is fetched for another, and the digest that the file must have ('' for any). Raises
    PlanError."""
    if isinstance(source, GitContext):
        asked = msgspec.structs.replace(source.ref, keep_git_dir=keep_git_dir or source.ref.keep_git_dir)
        return GitContext(policy.git(asked)), ""
    url, checksum = policy.url(source.url)
    return HTTPContext(url), checksum


def check_origin(origin: Origin, checksum: str) -> None:
    """Raises ContextError for a file that is not the one that a policy wants."""
    if checksum and origin.digest != checksum:
        raise ContextError(
            f"the checksum is {origin.digest}, and the source policy wants {checksum}",
            place=origin.uri,
            remedy="correct http.checksum in the policy, if this is the file that you want",
        )


def _rule(rule: _Rule) -> Rule:
    """Raises ValueError."""
    action = _named(rule.action, _ACTIONS, "action")
    if action == "CONVERT" and rule.updates is None:
        raise ValueError("it converts, and has no updates")
    attrs = rule.updates.attrs if rule.updates is not None else None
    constraints = tuple(
        Constraint(one.key, _expression(one.value, one.condition), _named(one.condition, _CONDITIONS, "condition"))
        for one in rule.selector.constraints or ()
    )
    for name in (*(attrs or {}), *(one.key for one in constraints)):
        if name not in ATTRIBUTES:
            raise ValueError(f"the attribute {name!r} is not known here; known are {', '.join(ATTRIBUTES)}")
    identifier = rule.selector.identifier
    return Rule(
        action,
        identifier,
        _pattern(identifier, _named(rule.selector.match_type, _MATCHES, "match_type")),
        constraints,
        rule.updates.identifier if rule.updates is not None else "",
        attrs,
    )


def _named(given: str | int, names: tuple[str, ...], what: str) -> str:
    """A value as protocol buffers have it in JSON: by its name, or by its number."""
    if isinstance(given, int) and 0 <= given < len(names):
        return names[given]
    if given in names:
        return str(given)
    raise ValueError(f"the {what} {given!r} is not known; known are {', '.join(names)}")


def _pattern(identifier: str, match: str) -> str | None:
    if match == "EXACT":
        return None
    if match == "REGEX":
        return _checked(identifier)
    if "**" in identifier:
        raise ValueError(f"the wildcard {identifier!r} has '**'")
    return rf"\A{re.escape(identifier).replace(re.escape('*'), '(.*)')}\Z"


def _expression(value: str, condition: str | int) -> str:
    return _checked(value) if _named(condition, _CONDITIONS, "condition") == "MATCHES" else value


def _checked(expression: str) -> str:
    """A regular expression of Go's that means the same here. Raises ValueError for others."""
    if "[[:" in expression or r"\z" in expression:
        raise ValueError(f"the regular expression {expression!r} has what is not understood here: [[:…:]] or \\z")
    try:
        re.compile(expression, re.ASCII)
    except re.error as error:
        raise ValueError(f"the regular expression {expression!r} is not understood here: {error}") from None
    return expression
