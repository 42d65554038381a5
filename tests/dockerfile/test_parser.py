"""The parser: golden folders, triggers, and what must hold for any text."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.dockerfile import instructions as df
from builder.dockerfile.codec import decode, encode
from builder.dockerfile.parser import parse, parse_trigger
from builder.dockerfile.words import expand
from builder.errors import DockerfileError, render
from tests.dockerfile.golden import CASES, case_names, outcome

KEYWORDS = (
    "FROM", "RUN", "CMD", "COPY", "ADD", "ENV", "ARG", "LABEL", "EXPOSE", "USER", "VOLUME", "WORKDIR", "SHELL",
    "HEALTHCHECK", "ONBUILD", "STOPSIGNAL", "FOO",
)  # fmt: skip
PIECES = st.lists(
    st.sampled_from((
        *KEYWORDS, *(f"\n{keyword} " for keyword in KEYWORDS), " ", "\t", "\n", "\r\n", "\r", "\\\n", "`\n", "\\", "`",
        "#", "# escape=`\n", "# syntax=x\n", "\ufeff", "\0", "a", "b=c", "=", "--", "--from=", "--mount=", "--chown=$",
        "'", '"', "[", "]", '["a"]', ",", "{}", "1", "NONE", "<<EOF", "<<-'E'", "\nEOF\n", "<", "$a", "${", "}", ":",
        "/", "as", "\x85", "é",
    )),
    max_size=25,
).map("".join)  # fmt: skip


@pytest.mark.parametrize("case", case_names())
def test_golden(case: str) -> None:
    expected = json.loads((CASES / case / "expected.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(outcome(case))) == expected


@pytest.mark.parametrize("case", [case for case in case_names() if not case.startswith("error-")])
def test_stored_form(case: str) -> None:
    parsed = parse((CASES / case / "Dockerfile").read_bytes())
    assert decode(encode(parsed)) == parsed


def test_the_name_is_in_the_error() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse("FROM a\nFOO", "docker/Other")
    assert render(caught.value).startswith("error: docker/Other:2: unknown instruction: FOO")


def test_text_and_bytes_are_the_same() -> None:
    assert parse("\ufeffFROM a\n") == parse(b"\xef\xbb\xbfFROM a\n")


def test_a_bad_word_is_no_error_yet() -> None:
    parsed = parse('FROM a\nENV A="${"\nFROM b\n')
    env = parsed.stages[0].instructions[0]
    assert isinstance(env, df.Env)
    with pytest.raises(DockerfileError, match="cannot expand"):
        expand(env.pairs[0].value, {})


def test_a_long_line_is_refused_as_by_buildkit() -> None:
    parse("FROM a\nRUN " + "x" * 65531 + "\n")
    with pytest.raises(DockerfileError, match="longer than 65535 bytes"):
        parse("FROM a\nRUN " + "x" * 65532 + "\n")


NUL = ["WORKDIR /a\0b", "RUN echo \\\n a\0", "COPY --from=a\0 a b", 'CMD ["a\\u0000b"]', "A\0"]


@pytest.mark.parametrize("line", NUL)
def test_no_instruction_holds_a_nul_byte(line: str) -> None:
    with pytest.raises(DockerfileError, match="there is a NUL byte") as error:
        parse(f"FROM a\n{line}\n")
    assert error.value.place == "Dockerfile:2"
    assert error.value.remedy == "remove it"


def test_what_is_no_instruction_may_hold_a_nul_byte() -> None:
    (copy,) = parse("# \0\nFROM a\nCOPY <<'EOF' /a\n\0\nEOF\n").stages[0].instructions
    assert isinstance(copy, df.Copy)
    assert expand(copy.inline[0].content, {}).text == "\0\n"


def test_deep_json() -> None:
    with pytest.raises(DockerfileError, match="strings only"):
        parse("FROM a\nCMD " + "[" * 3000 + "]" * 3000)
    parsed = parse("FROM a\nCMD " + "[" * 3000)
    assert parsed.stages[0].instructions


def test_the_escape_character_in_words() -> None:
    parsed = parse("# escape=`\nFROM a\nENV A=`$x\\$x\nCOPY <<EOF /a\n\\$x`\nEOF\n")
    env, copy = parsed.stages[0].instructions
    assert isinstance(env, df.Env)
    assert isinstance(copy, df.Copy)
    assert expand(env.pairs[0].value, {"x": "1"}).text == "$x\\1"
    assert expand(copy.inline[0].content, {"x": "1"}).text == "$x`\n"


def test_a_quoted_heredoc_is_not_expanded() -> None:
    (copy,) = parse("FROM a\nCOPY <<'EOF' /a\n$x \\$x\nEOF\n").stages[0].instructions
    assert isinstance(copy, df.Copy)
    assert expand(copy.inline[0].content, {"x": "1"}).text == "$x \\$x\n"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("RUN true", df.Run),
        ("COPY <<EOF /a\nx\nEOF", df.Copy),
        ("MAINTAINER me", df.Maintainer),
        ("ONBUILD RUN x", df.OnBuild),
    ],
)
def test_trigger(text: str, kind: type[df.Instruction]) -> None:
    assert isinstance(parse_trigger(text), kind)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM a", "FROM isn't allowed"),
        ("FOO bar", "unknown instruction: FOO"),
        ("ONBUILD ONBUILD RUN x", "chaining ONBUILD"),
        ("ONBUILD FROM x", "FROM isn't allowed"),
        ("RUN a\nRUN b", "single instruction"),
        ("", "single instruction"),
        ("RUN <<EOF\na", "unterminated heredoc"),
        ("COPY a", "at least two arguments"),
    ],
)
def test_trigger_refused(text: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message):
        parse_trigger(text)


def test_trigger_words_have_the_escape_character_of_the_build() -> None:
    env = parse_trigger("ENV A=`$x", escape="`")
    assert isinstance(env, df.Env)
    assert expand(env.pairs[0].value, {"x": "1"}).text == "$x"


def check_any(text: str | bytes) -> None:
    """The text is parsed, and survives being stored, or is refused with a place."""
    try:
        parsed = parse(text)
    except DockerfileError as error:
        refused = error
    else:
        assert parsed.stages
        assert decode(encode(parsed)) == parsed
        return
    assert refused.place is not None
    assert refused.place.startswith("Dockerfile:")
    assert refused.cause
    assert "\n" not in refused.cause
    render(refused).encode("utf-8")


@settings(max_examples=400, deadline=None)
@given(PIECES)
def test_any_text_is_parsed_or_refused(text: str) -> None:
    check_any(text)
    check_any("FROM a\n" + text)


@settings(max_examples=200, deadline=None)
@given(st.text() | st.binary())
def test_anything_is_parsed_or_refused(text: str | bytes) -> None:
    check_any(text)


@settings(max_examples=200, deadline=None)
@given(PIECES, st.sampled_from("\\`"))
def test_any_trigger_is_parsed_or_refused(text: str, escape: str) -> None:
    with contextlib.suppress(DockerfileError):
        parse_trigger(text, escape)


@pytest.mark.parametrize(
    "text",
    [
        "FROM a\nRUN " + "<<EOF " * 5000,
        "FROM a\nENV " + "a='" * 15000,
        "FROM a\nRUN " + "--\\" * 20000,
        "FROM a\nRUN " + " \\" * 20000,
        "FROM a\nCMD [" + '"a",' * 15000,
        "FROM a\nENV a=" + "${a:-" * 10000,
        "\r" * 60000,
        "\\\n" * 50000,
    ],
)
def test_long_texts_take_no_long_time(text: str) -> None:
    begin = time.perf_counter()
    check_any(text)
    assert time.perf_counter() - begin < 5


def test_speed() -> None:
    lines = [
        "RUN apt-get update && \\", "    apt-get install -y curl", 'ENV A="x y" B=${A:-b} PATH=/opt/bin:$PATH',
        "COPY --from=build --chown=app:app src/ lib/ /app/", "WORKDIR /app/$A", "EXPOSE 80 443/tcp",
        "RUN --mount=type=cache,target=/c <<EOF", "pip install x", "EOF", 'CMD ["python", "-m", "app"]',
    ]  # fmt: skip
    text = "FROM debian AS build\n" + "\n".join(lines * 10)
    parse(text)
    assert any(_timed(text) < 0.05 for _ in range(100))  # whatever else the machine does


def _timed(text: str) -> float:
    begin = time.perf_counter()
    parse(text)
    return time.perf_counter() - begin


def test_reading_the_stored_form_does_not_load_lark() -> None:
    program = (
        "import sys; from builder.dockerfile import codec, excerpt, mounts, words; codec.FORMAT;"
        "data = sys.stdin.buffer.read(); codec.decode(data);"
        "import builder.dockerfile.parser;"
        "sys.exit('lark' in sys.modules)"
    )
    data = encode(parse("FROM a\nENV A=${b:-c}\n"))
    assert subprocess.run([sys.executable, "-c", program], input=data, check=False).returncode == 0
