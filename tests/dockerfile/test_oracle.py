"""The parser against dockerfile-parse, which was written independently (without here-documents and other escapes)."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from dockerfile_parse import DockerfileParser
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.dockerfile import instructions as df
from builder.dockerfile.parser import parse
from builder.dockerfile.words import expand
from tests.dockerfile.golden import CASES

TEXTS = [
    (CASES / case / "Dockerfile").read_bytes()
    for case in ("exec-and-shell", "flags", "health-check", "pairs", "stages", "words")
]
TEXTS += [
    b"# syntax=docker/dockerfile:1\nARG V=12\nFROM debian:$V AS build\n\n# build it\nRUN apt-get update \\\n  && make "
    b'\\\n  # with a comment\n  all\nCOPY . .\n\nFROM scratch\nCOPY --from=build /out /\nENTRYPOINT ["/app"]\n',
    b"from alpine\nrun  a   b  \n\tCMD x\nEnV a=b\n",
    b"FROM a\r\nENV A=1 \\\r\n  B=2\r\nCMD x\r\n",
    b'FROM a\nRUN a\\\nb\\\n  c\nLABEL x="a\\\n b" y=1\n',
]

WORDS = st.text(alphabet="abc=/.:-", min_size=1, max_size=6).filter(lambda word: not word.startswith("-"))
BREAKS = st.sampled_from([" ", " ", "  ", " \\\n", " \\\n  ", " \\\n# a comment\n ", "\t"])
KEYWORDS = st.sampled_from(["RUN", "run", "Cmd", "COPY a", "WORKDIR", "USER", "EXPOSE", "LABEL k=v", "ENTRYPOINT"])


@st.composite
def dockerfiles(draw: st.DrawFn) -> bytes:
    lines = ["FROM scratch"]
    for keyword in draw(st.lists(KEYWORDS, max_size=6)):
        lines += draw(st.lists(st.sampled_from(["", "# a comment", "  # another", "   "]), max_size=2))
        words = draw(st.lists(WORDS, min_size=1, max_size=4))
        if keyword == "LABEL k=v":
            words = [f"k={word}" for word in words]
        lines.append(draw(st.sampled_from(["", "  "])) + keyword + "".join(draw(BREAKS) + word for word in words))
    return "\n".join(lines).encode()


def in_order(parsed: df.Dockerfile) -> Iterator[df.Instruction]:
    yield from parsed.global_args
    for stage in parsed.stages:
        yield stage.from_
        yield from stage.instructions


def compare(text: bytes) -> None:
    other = [item for item in DockerfileParser(fileobj=io.BytesIO(text)).structure if item["instruction"] != "COMMENT"]
    ours = list(in_order(parse(text)))
    assert [i.keyword.upper() for i in ours] == [item["instruction"] for item in other]
    assert [i.range.start for i in ours] == [item["startline"] + 1 for item in other]
    for instruction, item in zip(ours, other, strict=True):
        value = instruction.source[len(instruction.keyword) :].strip()
        # dockerfile-parse strips the lines that it joins
        assert "".join(value.split()) == "".join(item["value"].split())


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_instructions_and_values(text: bytes) -> None:
    compare(text)


@settings(max_examples=150, deadline=None)
@given(dockerfiles())
def test_generated(text: bytes) -> None:
    compare(text)


def test_variables_and_labels() -> None:
    text = (
        b"FROM a\nARG who=world\nENV A=1 B=\"two words\" C='$A' D=$A\\ x\nENV E ${A}${B} and more\n"
        b"LABEL a=$A \"b c\"=${B} d='$A'\nLABEL e $D\n"
    )
    other = DockerfileParser(fileobj=io.BytesIO(text))
    env: dict[str, str] = {}
    labels: dict[str, str] = {}
    for instruction in parse(text).stages[0].instructions:
        if isinstance(instruction, df.Env | df.Label):
            target = env if isinstance(instruction, df.Env) else labels
            target |= {expand(p.key, env).text: expand(p.value, env).text for p in instruction.pairs}
    assert env == other.envs
    assert labels == other.labels
