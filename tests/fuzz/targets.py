"""What is fuzzed: each target takes bytes that a stranger may send, and lets them run through one of the parsers.

A target returns, or raises BuilderError: that is the promise. Whatever else comes out is a defect. `SEEDS` are inputs
from which mutations reach further than from nothing.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Mapping
from functools import partial
from typing import get_args

from builder.context.git_url import parse_git_url
from builder.context.ignore import Matcher, compile_rules
from builder.dockerfile.parser import parse
from builder.dockerfile.words import Mode, expand, expand_words, parse_word
from builder.errors import BuilderError
from builder.filesystem.archive import read_archive
from builder.filesystem.decompress import decompressor
from builder.oci import reference
from builder.oci.platform import parse_platform
from builder.oci.spec import ImageConfig, Index, Manifest, decode
from builder.registry.auth import parse_challenges
from builder.registry.failures import refused, retry_after
from builder.registry.listing import next_page
from builder.solver.cache_records import decode_cache
from tests.support.archives import archive
from tests.support.printer import print_dockerfile

Target = Callable[[bytes], object]

_VARIABLES = {"A": "value", "B": "a/b/c.tar.gz", "C": "", "HOME": "/root"}


def dockerfile(data: bytes) -> None:
    """What parses can be printed, and parses again."""
    parsed = parse(data)
    parse(print_dockerfile(parsed))


def words(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for mode in get_args(Mode):
        word = parse_word(text, "\\", mode)
        for fill in (expand, expand_words):
            try:
                fill(word, _VARIABLES)
            except BuilderError:
                continue


def ignore(data: bytes) -> None:
    """The first line is a path, the others are rules."""
    path, _, rules = data.decode("utf-8", "surrogateescape").partition("\n")
    matcher = Matcher(compile_rules(rules))
    clean = "/".join(part for part in path.split("/") if part not in ("", ".", ".."))
    matcher.ignored(clean[:255])
    matcher.may_skip_directory(clean[:255])


def references(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for read in (reference.parse, parse_platform, parse_git_url):
        try:
            read(text)
        except BuilderError:
            continue


def manifests(data: bytes) -> None:
    for read in (partial(decode, kind=Manifest), partial(decode, kind=Index), partial(decode, kind=ImageConfig)):
        try:
            read(data, name="fuzzed")
        except BuilderError:
            continue


def layers(data: bytes) -> None:
    for entry in read_archive(decompressor(io.BytesIO(data)), max_entries=1000):
        for _ in entry.content.chunks():
            pass


def registry(data: bytes) -> None:
    """The first line is a status, the second the headers' value, the rest the body."""
    status, _, rest = data.partition(b"\n")
    header, _, body = rest.partition(b"\n")
    text = header.decode("latin-1")
    parse_challenges([text])
    retry_after(text)
    next_page(text, "https://registry.example.com", "https://registry.example.com/v2/a/tags/list")
    str(refused(int.from_bytes(status[:2], "big"), body, "the image", "registry.example.com", "config.json"))


def caches(data: bytes) -> None:
    decode_cache(data, "fuzzed")


TARGETS: Mapping[str, Target] = {
    "dockerfile": dockerfile,
    "words": words,
    "ignore": ignore,
    "references": references,
    "manifests": manifests,
    "layers": layers,
    "registry": registry,
    "caches": caches,
}

_LAYER = archive(
    ("d", {}), ("d/f", {"data": b"x" * 600}), ("ä" * 70, {"data": b"", "pax": {"SCHILY.xattr.user.a": "b"}})
)
_D = b"0123456789abcdef" * 4
SEEDS: Mapping[str, tuple[bytes, ...]] = {
    "dockerfile": (
        b"# syntax=docker/dockerfile:1\n# escape=`\nFROM a:$X AS b\nRUN --mount=type=cache,target=/c <<EOF\nx\nEOF\n",
        b'FROM scratch\nCOPY --from=a --chown=1:2 ["a b", "/c"]\nENV A=1 B="x $C"\nHEALTHCHECK --interval=5s CMD x\n',
        b"ARG A=${B:-c}\nFROM $A\nADD --checksum=sha256:0 https://h/x?y#z /\nONBUILD RUN x\nLABEL a b\nEXPOSE 80/tcp\n",
    ),
    "words": (b'${A:-${B#*/}}"x\'$C\\$"', b"${B%%.*}${B/a/b}${B//[a-c]/$A}", b"'a b' \"${HOME:?gone}\" $A_ ${A+y}"),
    "ignore": (b"a/b/c.txt\n*.txt\n!a/**/c*\n# x\n[a-z]?/\\*\n", b"node_modules/x\n**/node_modules\n!**\n/./a/../b\n"),
    "references": (
        b"registry.example.com:5000/a/b:tag@sha256:" + b"0" * 64,
        b"linux/arm64/v8",
        b"git@github.com:a/b.git#main:sub",
        b"https://x/y.git?ref=a&subdir=b",
    ),
    "manifests": (
        b'{"schemaVersion":2,"config":{"mediaType":"a","digest":"sha256:1","size":1},"layers":[],"annotations":{"a":"b"}}',
        b'{"schemaVersion":2,"manifests":[{"mediaType":"a","digest":"b","size":1,"platform":{"os":"linux"}}]}',
        b'{"architecture":"amd64","os":"linux","config":{"Env":["A=1"]},"rootfs":{"type":"layers","diff_ids":[]}}',
    ),
    "layers": (_LAYER, gzip.compress(_LAYER, mtime=0)),
    "registry": (
        b'\x01\x91\nBearer realm="https://a/t",service="s",scope="repository:a:pull"\n{"errors":[{"code":"DENIED"}]}',
        b'\x01\xad\n</v2/a/tags/list?last=x&n=1>; rel="next"\n{}',
        b"\x01\xf7\nWed, 21 Oct 2026 07:28:00 GMT\n<html>",
    ),
    "caches": (
        b'{"version":1,"records":[{"diff_id":"sha256:%b","created":1.5,"key":"%b","place":"%b","free":true},'
        b'{"diff_id":"sha256:%b","created":0,"recipe":{"parent":"","a":1}}],"layers":["sha256:%b"],'
        b'"mounts":[{"id":"a","name":"%b"}]}' % (_D, _D, _D[:16], _D, _D, _D[:32]),
    ),
}
