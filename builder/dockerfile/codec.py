"""Parsed Dockerfiles as bytes (MessagePack): an unchanged Dockerfile is read again without loading the grammar."""

from __future__ import annotations

import os
from functools import cache

import msgspec

from builder.dockerfile.instructions import Dockerfile
from builder.errors import DockerfileError

FORMAT: str
"""Names everything that decides what `parse` makes of a text: kept with encoded bytes.

It is computed when first asked for, from the source of this package and the grammars, so that no change of the parser
can find what an older one left.
"""


def encode(dockerfile: Dockerfile) -> bytes:
    """The bytes of a parsed Dockerfile, the same for equal ones."""
    return _encoder().encode(dockerfile)


def decode(data: bytes) -> Dockerfile:
    """The Dockerfile of bytes that `encode` wrote. Raises DockerfileError for anything else."""
    try:
        return _decoder().decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DockerfileError(
            f"the stored form of a Dockerfile cannot be read: {error}", remedy="remove it and parse the text again"
        ) from None


@cache
def _encoder() -> msgspec.msgpack.Encoder:
    return msgspec.msgpack.Encoder()


@cache
def _decoder() -> msgspec.msgpack.Decoder[Dockerfile]:
    return msgspec.msgpack.Decoder(Dockerfile)


@cache
def _format() -> str:
    """A digest over names and contents of the parser's own files (15 files, 0.3 ms)."""
    import xxhash

    from builder.dockerfile.grammar import grammar_file

    here = os.path.dirname(os.path.abspath(__file__))
    paths = [os.path.join(here, name) for name in sorted(os.listdir(here)) if name.endswith((".py", ".pyc"))]
    paths += [grammar_file("dockerfile.lark"), grammar_file("words.lark")]
    digest = xxhash.xxh3_128()
    for path in paths:
        with open(path, "rb") as file:
            content = file.read()
        digest.update(f"{os.path.basename(path)}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def __getattr__(name: str) -> str:
    if name == "FORMAT":
        return _format()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
