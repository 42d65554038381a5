"""Which sources a build may take, and what it takes instead: the rules of BuildKit's source policies.

A source is told by an identifier and attributes, as BuildKit's operations tell it: `docker-image://docker.io/library/
alpine:3`, `git://github.com/owner/name.git#ref:subdir`, `https://…`, `local://context`, `oci-layout://…@sha256:…`. The
rules are gone through in their order. Of those that allow or deny the last one that matches wins; one that converts is
done at once, and then all are gone through again (`sourcepolicy/engine.go`).
"""

from __future__ import annotations

import re

import msgspec

from builder.context.git_url import GitRef, parse_git_url
from builder.errors import ContextError, InvalidReference, PlanError
from builder.oci import reference as references

CHECKSUM = "http.checksum"
GIT_REMOTE = "git.fullurl"
GIT_CHECKSUM = "git.checksum"
GIT_KEEP = "git.keepgitdir"
ATTRIBUTES = (CHECKSUM, GIT_REMOTE, GIT_CHECKSUM, GIT_KEEP)
"""What rules may look at and set here."""

_IMAGE, _GIT, _LOCAL, _LAYOUT = "docker-image://", "git://", "local://", "oci-layout://"
_URLS = ("http://", "https://")
_MOST_CONVERSIONS = 20


class Constraint(msgspec.Struct, frozen=True):
    """What an attribute must be: `condition` is EQUAL, NOTEQUAL or MATCHES (a regular expression)."""

    key: str
    value: str
    condition: str


class Rule(msgspec.Struct, frozen=True):
    """`action` is ALLOW, DENY or CONVERT. `pattern` is what `identifier` means by its kind of match, None for one that
    is compared as it is. `becomes` is the identifier that a source is converted to ('' for that of the rule), `attrs`
    are the attributes that it then gets."""

    action: str
    identifier: str
    pattern: str | None = None
    constraints: tuple[Constraint, ...] = ()
    becomes: str = ""
    attrs: dict[str, str] | None = None


class SourcePolicy(msgspec.Struct, frozen=True):
    """The rules of a policy, whose file is called `name`."""

    name: str
    rules: tuple[Rule, ...] = ()

    def image(self, reference: str) -> str:
        """The full reference of the image that is taken for one. Raises PlanError."""
        found = self._evaluate(_Source(_IMAGE + reference))
        try:
            if found.identifier.startswith(_IMAGE) and not found.attrs:
                return str(references.parse(found.identifier.removeprefix(_IMAGE)))
        except InvalidReference:
            pass
        raise self._impossible(_IMAGE + reference, found)

    def url(self, url: str, checksum: str = "") -> tuple[str, str]:
        """The URL that is taken for one, and the checksum that its file must have ('' for any). Raises PlanError."""
        found = self._evaluate(_Source(url, {CHECKSUM: checksum} if checksum else {}))
        wanted = found.attrs.get(CHECKSUM, "")
        fits = found.identifier.startswith(_URLS) and found.attrs.keys() <= {CHECKSUM}
        if not fits or not re.fullmatch("(?:sha256:[0-9a-f]{64})?", wanted):
            raise self._impossible(url, found)
        return found.identifier, wanted

    def git(self, ref: GitRef) -> GitRef:
        """What is taken for a repository. Raises PlanError.

        As in BuildKit the remote is that of `git.fullurl`. Where a rule converts the identifier to another repository
        and does not set that, it is this one by https: the old one is not what such a rule wants.
        """
        given = {GIT_REMOTE: ref.remote}
        given |= {GIT_CHECKSUM: ref.checksum} if ref.checksum else {}
        given |= {GIT_KEEP: "true"} if ref.keep_git_dir else {}
        source = _Source(_git_identifier(ref), given)
        found = self._evaluate(source)
        if found == source:
            return ref
        where, _, fragment = found.identifier.removeprefix(_GIT).partition("#")
        remote = found.attrs.get(GIT_REMOTE, "")
        if remote == ref.remote and where != source.identifier.removeprefix(_GIT).partition("#")[0]:
            remote = f"https://{where}"
        try:
            there = parse_git_url(remote)
        except ContextError:
            there = None
        fits = found.identifier.startswith(_GIT) and found.attrs.keys() <= {GIT_REMOTE, GIT_CHECKSUM, GIT_KEEP}
        if not fits or there is None:
            raise self._impossible(source.identifier, found)
        name, _, subdir = fragment.partition(":")
        return msgspec.structs.replace(
            ref,
            remote=there.remote,
            short_name=there.short_name,
            ref=name,
            subdir=subdir,
            checksum=found.attrs.get(GIT_CHECKSUM, ""),
            keep_git_dir=found.attrs.get(GIT_KEEP) == "true",
        )

    def local(self, name: str) -> None:
        """Take a directory of the host. Raises PlanError."""
        self._unchanged(_LOCAL + name)

    def layout(self, name: str, digest: str) -> None:
        """Take an image of an OCI layout for the context or stage `name`. Raises PlanError."""
        self._unchanged(f"{_LAYOUT}{references.parse(name)}@{digest}")

    def _unchanged(self, identifier: str) -> None:
        found = self._evaluate(_Source(identifier))
        if found != _Source(identifier):
            raise self._impossible(identifier, found)

    def _evaluate(self, source: _Source) -> _Source:
        """What a source is once all rules were followed. Raises PlanError for one that is denied."""
        for _ in range(_MOST_CONVERSIONS + 1):
            converted = self._once(source)
            if converted is None:
                return source
            source = converted
        raise PlanError(
            f"the source policy converts {_shown(source.identifier)} again and again",
            remedy=f"let what the rule of {self.name} matches not match what it converts to",
        )

    def _once(self, source: _Source) -> _Source | None:
        """What the first rule makes of a source that converts it; None if none does."""
        denied = 0
        for number, rule in enumerate(self.rules, 1):
            if not _matches(rule, source):
                continue
            if rule.action == "CONVERT":
                converted = _converted(rule, source)
                if converted != source:
                    return converted
            else:
                denied = number if rule.action == "DENY" else 0
        if denied:
            raise PlanError(
                f"the source policy denies {_shown(source.identifier)}",
                remedy="take a source that the policy allows, or change the policy",
                details=(f"  rule {denied} of {self.name}: DENY {self.rules[denied - 1].identifier}",),
            )
        return None

    def _impossible(self, identifier: str, found: _Source) -> PlanError:
        attrs = "".join(f", {key}={value}" for key, value in sorted(found.attrs.items()))
        return PlanError(
            f"the source policy {self.name} converts {_shown(identifier)} to {_shown(found.identifier)}{attrs},"
            " which cannot be taken in its place",
            remedy="convert an image to an image, a URL to a URL, and a git repository to another",
        )


class _Source(msgspec.Struct, frozen=True):
    identifier: str
    attrs: dict[str, str] = {}


def _matches(rule: Rule, source: _Source) -> bool:
    for one in rule.constraints:
        value = source.attrs.get(one.key, "")
        fits = re.search(one.value, value, re.ASCII) is not None if one.condition == "MATCHES" else value == one.value
        if fits is (one.condition == "NOTEQUAL"):
            return False
    if rule.identifier == source.identifier:
        return True
    return rule.pattern is not None and re.search(rule.pattern, source.identifier, re.ASCII) is not None


def _converted(rule: Rule, source: _Source) -> _Source:
    """`$1`, `${name}` in the new identifier stand for groups of the old one, as in Go's regular expressions."""
    identifier = rule.becomes or rule.identifier
    if rule.pattern is not None:
        identifier = _replaced(rule.pattern, source.identifier, identifier)
    return _Source(identifier or source.identifier, source.attrs | (rule.attrs or {}))


def _replaced(pattern: str, text: str, template: str) -> str:
    """`text` with the template for all matches. As in Go none that is empty follows another one at once."""
    pieces, end = [], 0
    for match in re.finditer(pattern, text, re.ASCII):
        if match.end() == match.start() == end > 0:
            continue
        pieces += [text[end : match.start()], _filled(template, match)]
        end = match.end()
    return "".join([*pieces, text[end:]])


def _filled(template: str, match: re.Match[str]) -> str:
    return re.sub(r"\$(?:(\$)|(\w+)|\{(\w+)\})", lambda found: _group(match, found[2] or found[3]), template)


def _group(match: re.Match[str], name: str | None) -> str:
    if name is None:
        return "$"
    try:
        return match[int(name) if name.isdecimal() else name] or ""
    except IndexError:
        return ""


def _git_identifier(ref: GitRef) -> str:
    """Host and path, whatever the protocol is (`source/git/identifier.go`)."""
    from urllib.parse import urlsplit

    if "://" in ref.remote:
        parts = urlsplit(ref.remote)
        where = f"{parts.netloc.rpartition('@')[2]}/{parts.path.lstrip('/')}"
    else:
        host, _, path = ref.remote.partition(":")
        where = f"{host.rpartition('@')[2]}/{path.lstrip('/')}"
    fragment = f"#{ref.ref}" + (f":{ref.subdir}" if ref.subdir else "")
    return _GIT + where + (fragment if fragment != "#" else "")


def _shown(identifier: str) -> str:
    if not identifier.startswith(_URLS):
        return identifier
    from builder.context.http import redacted

    return redacted(identifier)
