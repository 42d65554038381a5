"""The outline of a target and the list of targets, after what BuildKit's own tests expect."""

from __future__ import annotations

import pytest

from builder.dockerfile.parser import parse
from builder.errors import BuilderError
from builder.oci.spec import ImageConfig, Platform
from builder.plan.locate import Locator
from builder.plan.options import PlanOptions
from builder.plan.outline import Outline, list_targets, outline
from builder.plan.steps import ImageKey, Missing

HOST = Platform("linux", "amd64")
ARGUMENTS = """\
ARG inherited=box
ARG inherited2=box2
ARG unused=abc${inherited2}
# sfx is a suffix
ARG sfx="usy${inherited}"

FROM b${sfx} AS first
# this is not assigned to anything
ARG FOO=123
# BAR is a number
ARG BAR=456 TARGETARCH
RUN true

FROM alpine${unused} AS second
ARG BAZ
RUN true

FROM scratch AS third
ARG ABC=a
# check=skip=all
ARG password
# other will show up in the outline
# check=skip=all
ARG other sfx

# target defines build target
FROM third AS target
COPY --from=first /etc/passwd /

FROM second
"""


def outline_of(text: str, target: str = "", **build_args: str) -> Outline:
    options = PlanOptions(host=HOST, target=target, build_args=build_args)
    images: dict[ImageKey, ImageConfig] = {}
    while isinstance(found := outline(parse(text), options, images, Locator("Dockerfile", text)), Missing):
        config = ImageConfig(architecture="amd64", os="linux")
        images |= dict.fromkeys(found.images, config)
    return found


def test_arguments() -> None:
    found = outline_of(ARGUMENTS, "target", BAR="678")
    assert (found.name, found.description) == ("target", "defines build target")
    assert [(a.name, a.value, a.description, a.range.start) for a in found.arguments] == [
        ("inherited", "box", "", 1),
        ("sfx", "usybox", "is a suffix", 5),
        ("FOO", "123", "", 9),
        ("BAR", "678", "is a number", 11),
        ("ABC", "a", "", 19),
        ("password", "", "", 21),
        ("other", "", "will show up in the outline", 24),
    ]


def test_recursive_arguments() -> None:
    text = """\
ARG FOO=123
ARG ABC=abc
ARG DEF=def
ARG FOO=${FOO}${ABC}
ARG BAR=${FOO}456
ARG FOO=${FOO}456${BAR}
FROM scratch
ARG FOO
ARG INFOO=123
ARG INBAR=${INFOO}456
ARG INFOO=${INFOO}456${INBAR}
"""
    assert [(argument.name, argument.value) for argument in outline_of(text).arguments] == [
        ("ABC", "abc"),
        ("BAR", "123abc456"),
        ("FOO", "123abc456123abc456"),
        ("INBAR", "123456"),
        ("INFOO", "123456123456"),
    ]


def test_mounts() -> None:
    text = """\
FROM busybox AS first
RUN --mount=type=secret,target=/etc/passwd,required=true --mount=type=ssh true

FROM alpine AS second
RUN --mount=type=secret,id=unused --mount=type=ssh,id=ssh2 true

FROM scratch AS third
ARG BAR
RUN --mount=type=secret,id=second${BAR} --mount=type=cache,target=/c --mount=type=cache,id=x,target=/d true

FROM third AS target
COPY --from=first /foo /
RUN --mount=type=ssh,id=ssh3,required --mount=type=secret,id=second678,required true

FROM second
"""
    found = outline_of(text, "target", BAR="678")
    assert [(m.name, m.required, m.range.start) for m in found.secrets] == [("passwd", True, 2), ("second678", True, 9)]
    assert [(m.name, m.required, m.range.start) for m in found.agents] == [("default", False, 2), ("ssh3", True, 13)]
    assert [(m.name, m.range.start) for m in found.caches] == [("/c", 9), ("x", 9)]


def test_an_unknown_target() -> None:
    with pytest.raises(BuilderError) as caught:
        outline_of(ARGUMENTS, "taget")
    assert caught.value.remedy == "did you mean target?"


def test_targets() -> None:
    text = """\
# build defines stage for compiling the binary
FROM --platform=$BUILDPLATFORM alpine:$TAG AS Build
FROM busybox as second
FROM alpine
# binary returns the compiled binary
FROM second AS binary
"""
    assert [
        (t.name, t.description, t.default, t.base, t.platform, t.range.start) for t in list_targets(parse(text))
    ] == [
        ("build", "defines stage for compiling the binary", False, "alpine:$TAG", "$BUILDPLATFORM", 2),
        ("second", "", False, "busybox", "", 3),
        ("", "", False, "alpine", "", 4),
        ("binary", "returns the compiled binary", True, "second", "", 6),
    ]
