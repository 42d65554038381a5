"""Source policies: which rule counts, what it makes of a source, and what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from builder.api.policies import read_policy
from builder.context.git_url import GitRef, parse_git_url, write_git_url
from builder.errors import PlanError, UsageError
from builder.plan.source_policy import SourcePolicy

ALPINE = "docker.io/library/alpine:3"
DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def policy(tmp_path: Path) -> Any:
    def read(*rules: dict[str, Any]) -> SourcePolicy:
        path = tmp_path / "policy.json"
        path.write_text(json.dumps({"rules": rules}))
        return read_policy(str(path))

    return read


def rule(action: str | int, what: str, match: str | None = None, **updates: Any) -> dict[str, Any]:
    selector: dict[str, Any] = {"identifier": what}
    if match is not None:
        selector["match_type"] = match
    return {"action": action, "selector": selector, **({"updates": updates} if updates else {})}


ALL, IMAGES = "*", "docker-image://*"


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        ([], True),
        ([rule("DENY", ALL)], False),
        ([rule(1, ALL)], False),
        ([rule("DENY", "https://*")], True),
        ([rule("DENY", ALL), rule("ALLOW", IMAGES)], True),
        ([rule("ALLOW", IMAGES), rule("DENY", ALL)], False),
        ([rule("DENY", f"docker-image://{ALPINE}", "EXACT")], False),
        ([rule("DENY", "docker-image://docker.io/library/alpine:*", "EXACT")], True),
        ([rule("DENY", "docker-image://docker.io/library/alpine.3")], True),
        ([rule("DENY", r"library/(alpine|busybox):[0-9]+$", "REGEX")], False),
        ([rule("DENY", r"^library", "REGEX")], True),
    ],
)
def test_the_last_rule_that_matches_wins(policy: Any, rules: list[dict[str, Any]], allowed: bool) -> None:
    """BuildKit's sourcepolicy/engine.go."""
    if allowed:
        assert policy(*rules).image(ALPINE) == ALPINE
        return
    with pytest.raises(PlanError, match=f"denies docker-image://{ALPINE}") as caught:
        policy(*rules).image(ALPINE)
    assert "rule " in caught.value.details[0]


@pytest.mark.parametrize(
    ("rules", "image"),
    [
        (
            [rule("CONVERT", f"docker-image://{ALPINE}", identifier=f"docker-image://{ALPINE}@{DIGEST}")],
            f"{ALPINE}@{DIGEST}",
        ),
        (
            [rule("CONVERT", "docker-image://docker.io/*", identifier="docker-image://mirror.example/hub/$1")],
            "mirror.example/hub/library/alpine:3",
        ),
        (
            [rule("CONVERT", r"(?P<name>alpine):(\d)$", "REGEX", identifier="${name}:$2.${2}")],
            "docker.io/library/alpine:3.3",
        ),
        (
            [
                rule("CONVERT", f"docker-image://{ALPINE}", identifier="docker-image://docker.io/library/busybox:1"),
                rule("CONVERT", "docker-image://*busybox:1", identifier="docker-image://docker.io/library/other:2"),
                rule("DENY", "*alpine*"),
            ],
            "docker.io/library/other:2",
        ),
        ([rule("CONVERT", ALL, "EXACT", identifier="docker-image://x")], ALPINE),
    ],
)
def test_what_images_are_converted_to(policy: Any, rules: list[dict[str, Any]], image: str) -> None:
    assert policy(*rules).image(ALPINE) == image


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        (
            [
                rule("CONVERT", IMAGES, identifier="docker-image://docker.io/library/other:2"),
                rule("DENY", "*other*"),
            ],
            "denies docker-image://docker.io/library/other:2",
        ),
        ([rule("CONVERT", "docker-image://*:3", identifier="docker-image://x/$1:3")], "again and again"),
        ([rule("CONVERT", IMAGES, identifier="https://example.com/x")], "cannot be taken in its place"),
        ([rule("CONVERT", IMAGES, identifier="docker-image://UPPER")], "cannot be taken in its place"),
        ([rule("CONVERT", IMAGES, attrs={"http.checksum": DIGEST})], "cannot be taken in its place"),
    ],
)
def test_conversions_that_cannot_be(policy: Any, rules: list[dict[str, Any]], text: str) -> None:
    with pytest.raises(PlanError, match=text):
        policy(*rules).image(ALPINE)


def test_urls(policy: Any) -> None:
    url = "https://example.com/a/b.tar"
    pinned = policy(rule("CONVERT", url, attrs={"http.checksum": DIGEST}))
    assert pinned.url(url) == (url, DIGEST)
    assert pinned.url(url, "sha256:" + "b" * 64) == (url, DIGEST)
    assert pinned.url("https://example.com/other") == ("https://example.com/other", "")
    moved = policy(rule("CONVERT", "https://example.com/*", identifier="http://mirror/$1"))
    assert moved.url(url) == ("http://mirror/a/b.tar", "")
    with pytest.raises(PlanError, match="denies https://xxxxx"):
        policy(rule("DENY", "https://*")).url("https://user:secret@example.com/")


def test_constraints_on_attributes(policy: Any) -> None:
    def with_constraint(**constraint: str) -> SourcePolicy:
        denied = rule("DENY", "https://*")
        denied["selector"]["constraints"] = [{"key": "http.checksum", **constraint}]
        found: SourcePolicy = policy(denied)
        return found

    unpinned = with_constraint(value="")
    assert unpinned.url("https://h/", DIGEST)
    for denying in (
        unpinned,
        with_constraint(value=DIGEST, condition="NOTEQUAL"),
        with_constraint(value="^$", condition="MATCHES"),
    ):
        with pytest.raises(PlanError):
            denying.url("https://h/")


def git(text: str) -> GitRef:
    found = parse_git_url(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("updates", "taken"),
    [
        ({"identifier": "git://github.com/o/name.git#v2:sub"}, "https://user@github.com/o/name.git#v2:sub"),
        ({"identifier": "git://mirror.example/name.git#v1"}, "https://mirror.example/name.git#v1"),
        ({"attrs": {"git.fullurl": "git@mirror:o/name"}}, "git@mirror:o/name#v1"),
        ({"attrs": {"git.checksum": "c" * 40}}, f"https://user@github.com/o/name.git?checksum={'c' * 40}#v1"),
    ],
)
def test_repositories(policy: Any, updates: dict[str, Any], taken: str) -> None:
    ref = git("https://user@github.com/o/name.git#v1")
    found = policy(rule("CONVERT", "git://github.com/o/name.git#v1", **updates)).git(ref)
    assert write_git_url(replace(found, keep_git_dir=None)) == taken
    with pytest.raises(PlanError, match=r"denies git://github.com/o/name.git#v1"):
        policy(rule("DENY", "git://github.com/*")).git(ref)
    other = git("git@github.com:o/other.git")
    assert policy(rule("CONVERT", "git://github.com/o/name.git#v1", **updates)).git(other) == other


@pytest.mark.parametrize(
    "text",
    [
        "https://h/a.git", "https://h/a.git#refs/heads/a b:sub dir", "git@h:a#v1", "ssh://u@h:22/a?submodules=false#v1",
        "https://h/a.git?mtime=commit&fetch-by-commit=true&keep-git-dir=true&checksum=abcdef0#v1:d",
    ],
)  # fmt: skip
def test_written_references_are_read_again(text: str) -> None:
    assert git(write_git_url(git(text))) == git(text)


def test_directories_and_layouts(policy: Any) -> None:
    found = policy(rule("DENY", ALL), rule("ALLOW", "local://context"), rule("ALLOW", f"oci-layout://*@{DIGEST}"))
    found.local("context")
    found.layout("base", DIGEST)
    with pytest.raises(PlanError, match="denies local://other"):
        found.local("other")
    with pytest.raises(PlanError, match=r"denies oci-layout://docker.io/library/base:latest@sha256:b"):
        found.layout("base", "sha256:" + "b" * 64)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("{", "no source policy"),
        ('{"rules": [{"action": "DENY"}]}', "selector"),
        ('{"rules": [{"action": "DENY", "selector": {"identifier": "*", "matchType": "EXACT"}}]}', "matchType"),
        ('{"rules": [{"action": "REFUSE", "selector": {"identifier": "*"}}]}', "REFUSE"),
        ('{"rules": [{"action": 3, "selector": {"identifier": "*"}}]}', "rule 1 .* 3 is not known"),
        ('{"rules": [{"action": "CONVERT", "selector": {"identifier": "*"}}]}', "no updates"),
        ('{"rules": [{"selector": {"identifier": "a**"}}]}', "has '\\*\\*'"),
        ('{"rules": [{"selector": {"identifier": "(", "match_type": "REGEX"}}]}', "not understood"),
        ('{"rules": [{"selector": {"identifier": "[[:alpha:]]", "match_type": "REGEX"}}]}', "not understood"),
        ('{"rules": [{"selector": {"identifier": "*", "constraints": [{"key": "x"}]}}]}', "attribute 'x'"),
        ('{"rules": [{"action": 2, "selector": {}, "updates": {"attrs": {"y": "z"}}}]}', "attribute 'y'"),
    ],
)
def test_policies_that_cannot_be_followed(tmp_path: Path, text: str, cause: str) -> None:
    path = tmp_path / "policy.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=cause) as caught:
        read_policy(str(path))
    assert caught.value.place == str(path)
