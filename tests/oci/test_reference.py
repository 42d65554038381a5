"""References: the table of testdata/references.toml, and what must hold for any text."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from builder.errors import InvalidReference
from builder.oci.reference import Reference, parse

CASES: list[dict[str, str]] = tomllib.loads(
    (Path(__file__).parents[2] / "testdata" / "references.toml").read_text(encoding="utf-8")
)["case"]
DIGEST = "sha256:" + "ab" * 32

# texts made of what means something in a reference, so that many of them are well-formed
PIECES = st.lists(
    st.sampled_from((
        "a", "b1", "library", "docker.io", "index.docker.io", "localhost", "reg.example", "[::1]", "A", "/", "/", ":",
        ":5000", ":latest", ".", "-", "--", "_", "__", "@", DIGEST, "@" + DIGEST, "\n", " ", "é",
    )),
    max_size=8,
).map("".join)  # fmt: skip

# The grammar of distribution/reference.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"(?:sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128})"


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case["text"])[:40])
def test_table(case: dict[str, str]) -> None:
    if "error" in case:
        with pytest.raises(InvalidReference) as caught:
            parse(case["text"])
        assert case["error"] in caught.value.cause
        assert caught.value.remedy
        return
    reference = parse(case["text"])
    assert str(reference) == case["full"]
    assert reference.familiar == case["familiar"]
    assert parse(reference.familiar) == reference


@example("docker.io/docker.io/a")
@example("docker.io/localhost/a/b")
@given(st.one_of(PIECES, st.text(max_size=40)))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        reference = parse(text)
    except InvalidReference:
        return
    assert parse(str(reference)) == reference
    assert parse(reference.familiar) == reference
    assert reference.tag or reference.digest
    assert str(reference).isascii()


@given(PIECES)
def test_without_a_default_tag(text: str) -> None:
    try:
        reference = parse(text, default_tag=False)
    except InvalidReference:
        return
    assert parse(str(reference), default_tag=False) == reference
    assert parse(text).name == reference.name


@given(st.text("aZ09._-:/@ é\n²", max_size=8), st.sampled_from(["", ":1", f"@{DIGEST}", f"@{DIGEST}0"]))
def test_paths_tags_and_digests_follow_the_grammar(part: str, end: str) -> None:
    text = f"reg.example/{part}{end}"
    assert _is_accepted(text) == bool(re.fullmatch(rf"reg\.example/{_PATH}(?::{_TAG})?(?:@{_DIGEST})?", text))


@given(st.text("aZ09.-:[] é\n", max_size=8), st.sampled_from(["x.", "[", ""]))
def test_hosts_follow_the_grammar(part: str, start: str) -> None:
    host = start + part
    if "." in host or ":" in host or "[" in host[:1]:  # or else it is a path's first component
        assert _is_accepted(f"{host}/app") == bool(re.fullmatch(_DOMAIN, host))


def _is_accepted(text: str) -> bool:
    try:
        parse(text)
    except InvalidReference:
        return False
    return True


def test_lengths() -> None:
    assert parse("registry.example/" + "a" * 255).path == "a" * 255  # the host does not count
    with pytest.raises(InvalidReference, match="at most 255"):
        parse("registry.example/" + "a" * 256)
    with pytest.raises(InvalidReference, match="at most 255"):
        parse("a" * 248)  # with library/
    assert parse("a:" + "t" * 128).tag == "t" * 128
    with pytest.raises(InvalidReference, match="not a tag"):
        parse("a:" + "t" * 129)


def test_what_a_registry_is_asked_for() -> None:
    assert parse("app").manifest_key == "latest"
    assert parse("app:1").manifest_key == "1"
    assert parse(f"app:1@{DIGEST}").manifest_key == DIGEST
    assert Reference("docker.io", "library/app").manifest_key == "latest"
    assert parse("app", default_tag=False).tag is None
