"""Words: the table of testdata/words.toml, and what must hold for any text."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.dockerfile.words import (
    MAXIMUM_NESTING,
    Mode,
    Word,
    expand,
    expand_words,
    literal,
    parse_word,
)
from builder.errors import DockerfileError

TABLE = tomllib.loads((Path(__file__).parents[2] / "testdata" / "words.toml").read_text(encoding="utf-8"))
CASES: list[dict[str, Any]] = TABLE["case"]

# texts made of what means something, so that most of them are close to well-formed
PIECES = st.lists(
    st.sampled_from((
        "$", "{", "}", "${", "${a", "$a", "$b", ":-", ":+", ":?", "-", "#", "%", "/", "//", "*", "?", "'", '"', "\\",
        "`", "<", "<<", " ", "\t", "\n", "x", "1", "@", ":", "[", "]", ".", "é", "\u2003",
    )),
    max_size=14,
).map("".join)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[str(i) for i in range(len(CASES))])
def test_table(case: dict[str, Any]) -> None:
    env = case.get("env", TABLE["env"])
    keep_unset = case.get("keep_unset", False)
    word = parse_word(case["word"], case.get("escape", "\\"), case.get("mode", "word"))
    assert word.source == case["word"]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(word), type=Word) == word
    if "error" in case:
        with pytest.raises(DockerfileError) as caught:
            expand(word, env, keep_unset=keep_unset)
        assert case["error"] in caught.value.cause
        with pytest.raises(DockerfileError):
            expand_words(word, env, keep_unset=keep_unset)
        return
    expansion = expand(word, env, keep_unset=keep_unset)
    assert expansion.text == case["text"]
    if "words" in case:
        assert expand_words(word, env, keep_unset=keep_unset) == case["words"]
    if "used" in case:
        assert list(expansion.used) == case["used"]
    if "unmatched" in case:
        assert list(expansion.unmatched) == case["unmatched"]


def test_plain_text_needs_no_parts() -> None:
    assert parse_word("/a/b:c=d,e").parts is None
    assert parse_word("it's", mode="body").parts is None
    assert parse_word(r"C:\dir", escape="`").parts is None


def test_literal_is_never_expanded() -> None:
    assert expand(literal("$HOME"), {"HOME": "x"}).text == "$HOME"


def test_a_malformed_word_fails_only_when_it_is_expanded() -> None:
    word = parse_word('"${HOME')
    with pytest.raises(DockerfileError, match="cannot expand"):
        expand(word, {})


def test_deep_nesting() -> None:
    for depth, fails in ((MAXIMUM_NESTING, False), (MAXIMUM_NESTING + 1, True), (5000, True)):
        word = parse_word("${a:-" * depth + "x" + "}" * depth)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(word), type=Word) == word
        if fails:
            with pytest.raises(DockerfileError, match="nested"):
                expand(word, {})
        else:
            assert expand(word, {}).text == "x"


@pytest.mark.parametrize("template", ["${v#{}}", "${v##{}}", "${v%{}}", "${v%%{}}", "${v/{}/x}", "${v//{}/x}"])
def test_patterns_of_many_stars_take_no_exponential_time(template: str) -> None:
    begin = time.perf_counter()
    expand(parse_word(template.replace("{}", "*a" * 20 + "b")), {"v": "a" * 2000})
    assert time.perf_counter() - begin < 5


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        ("$A$A", "it becomes more than 1 MiB"),
        ('"$A$A"', "it becomes more than 1 MiB"),
        ("${X:-$A$A}", "it becomes more than 1 MiB"),
        ("${A//?/xx}", "too long"),
        ("${A//*/$D$D}", "too long"),
        ("${A#*a*a*b}", "too many ways"),
    ],
)
def test_what_variables_make_of_a_word_has_an_end(word: str, cause: str) -> None:
    env = {"A": "a" * 600_000, "D": "$0"}
    assert len(expand(parse_word("$A"), env).text) == 600_000
    for expander in (expand, expand_words):
        with pytest.raises(DockerfileError, match=cause):
            expander(parse_word(word), env)


def test_what_is_written_may_be_long() -> None:
    text = "x" * (2 << 20) + "$A"
    assert len(expand(parse_word(text, mode="body"), {"A": "a" * 100}).text) == (2 << 20) + 100


@settings(max_examples=300, deadline=None)
@given(PIECES | st.text(), st.sampled_from("\\`"), st.sampled_from(get_args(Mode)), st.booleans())
def test_any_text_expands_or_is_refused(text: str, escape: str, mode: Mode, keep_unset: bool) -> None:
    word = parse_word(text, escape, mode)
    assert word.source == text
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(word), type=Word) == word
    env = {"a": "A b", "x": "*"}
    assert refusal(lambda: expand(word, env, keep_unset=keep_unset)) == refusal(
        lambda: expand_words(word, env, keep_unset=keep_unset)
    )


def refusal(run: Callable[[], object]) -> str:
    try:
        run()
    except DockerfileError as error:
        return error.cause
    return ""


@settings(max_examples=200, deadline=None)
@given(PIECES)
def test_keeping_everything_gives_the_text_back(text: str) -> None:
    """With quotes and escapes kept and nothing set, a well-formed text without `${…}` comes out as it went in."""
    if "${" in text or '"' in text:
        return
    word = parse_word(text, mode="line")
    if text.count("'") % 2 == 0 and "\\" not in text:
        assert expand(word, {}, keep_unset=True).text == text
