"""The values of RUN --mount and --device."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.dockerfile.mounts import Mount, check_device, mount_source, mount_word, parse_mount
from builder.dockerfile.values import csv_fields
from builder.dockerfile.words import expand
from builder.errors import DockerfileError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("target=/x", {"target": "/x"}),
        ("TYPE=Cache,dst=/c", {"type": "cache", "target": "/c", "read_only": False}),
        ("type=cache,target=/c,ro,sharing=LOCKED,id=i", {
            "type": "cache", "target": "/c", "sharing": "locked", "id": "i",
        }),
        ("type=cache,target=/c,mode=0755,uid=1,gid=2,from=a,src=b", {
            "type": "cache", "target": "/c", "read_only": False, "mode": 0o755, "uid": 1, "gid": 2, "from_": "a",
            "source": "b",
        }),
        ("rw,destination=/x", {"target": "/x", "read_only": False}),
        ("readonly=false,target=/x", {"target": "/x", "read_only": False}),
        ("rw=false,target=/x", {"target": "/x"}),
        ("type=tmpfs,target=/t,size=1.5m", {"type": "tmpfs", "target": "/t", "size": 1572864, "read_only": False}),
        ("type=secret,id=s,required", {"type": "secret", "id": "s", "required": True}),
        ("type=secret,src=s,env=S,required=0", {"type": "secret", "source": "s", "env": "S"}),
        ("type=ssh", {"type": "ssh"}),
        ('"source=a,b",target=/x', {"source": "a,b", "target": "/x"}),
        ("source=a,source=b,target=/x", {"source": "b", "target": "/x"}),
    ],
)  # fmt: skip
def test_mount(text: str, expected: dict[str, Any]) -> None:
    assert parse_mount(text) == Mount(**expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=floppy", "unsupported mount type"),
        ("type=cach,target=/x", "did you mean cache"),
        ("tagret=/x", "did you mean target"),
        ("colour=red", "unexpected key"),
        ("target", "must be a key=value pair"),
        ("ro=maybe", "invalid value for readonly"),
        ("size=1m,type=tmpfs", "unexpected key"),
        ("type=tmpfs,size=big", "invalid value for size"),
        ("required,type=secret", "unexpected key"),
        ("sharing=shared", "invalid cache sharing"),
        ("type=cache,sharing=some", "unsupported sharing value"),
        ("type=cache,mode=9", "invalid value for mode"),
        ("type=cache,uid=-1", "invalid value for uid"),
        ("type=cache,gid=99999999999", "out of range"),
        ("mode=0700,target=/x", "mode not allowed"),
        ("type=tmpfs,uid=1", "uid not allowed"),
        ("type=secret", "no secret is named"),
        ("type=secret,id=a,from=b", "should not have a from"),
        ("type=secret,id=a,src=b", "both source and id"),
        ("type=secret,id=a,sharing=private", "should not define sharing"),
        ("", "it is empty"),
        ('a"b=c', "bare quote"),
        ('"a', "missing quote"),
        ('"a"b', "behind a closing quote"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message):
        parse_mount(text)


def test_values_are_expanded_one_by_one() -> None:
    word = mount_word("type=bind,source=$src,target='/a b',$no=x")
    assert word.source == "type=bind,source=$src,target='/a b',$no=x"
    expanded = expand(word, {"src": 'x,"y",ro'}).text
    assert csv_fields(expanded) == ["type=bind", 'source=x,"y",ro', "target=/a b", "$no=x"]


@pytest.mark.parametrize("text", ["from=$x", "From=a${b}", "target=/x,from=$", 'a"'])
def test_what_is_refused_before_expansion(text: str) -> None:
    if text.endswith("$"):
        mount_word(text)
        return
    with pytest.raises(DockerfileError):
        mount_word(text)


def test_mount_source() -> None:
    assert mount_source("type=$t,from=a,target=/x") == "a"
    assert mount_source("target=/x,ro") == ""


@pytest.mark.parametrize("text", ["v.com/c=a", "v.com/c", "v.com/c,required", "name=v.com/c=a,required=true"])
def test_device(text: str) -> None:
    check_device(text)


@pytest.mark.parametrize("text", ["v.com/c=a,name=b", "a,required=x", "a,b", "a,b=c", ""])
def test_device_refused(text: str) -> None:
    with pytest.raises(DockerfileError):
        check_device(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1), st.text())
def test_fields_that_an_expansion_writes_can_be_read(values: list[str], value: str) -> None:
    names = [f"k{i}=$v{i}" for i in range(len(values))]
    env = {f"v{i}": text for i, text in enumerate(values)}
    expanded = expand(mount_word(",".join(names)), env).text
    if not expanded.endswith("\n"):
        assert csv_fields(expanded) == [f"k{i}={text}" for i, text in enumerate(values)]
