"""--cache-from and --cache-to: what buildx takes, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from builder.errors import BuilderError, InvalidReference, Unsupported, UsageError
from builder.export.cache_options import CacheSource, CacheTarget, parse_cache_sources, parse_cache_targets
from builder.filesystem.compression import Compression
from builder.oci import reference

APP = reference.parse("reg.example/app:cache")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type=registry,ref=reg.example/app:cache", [CacheSource(reference=APP)]),
        ("reg.example/app:cache", [CacheSource(reference=APP)]),
        (
            "reg.example/app:cache,alpine",
            [CacheSource(reference=APP), CacheSource(reference=reference.parse("alpine"))],
        ),
        ("type=local,src=c", [CacheSource(path=os.path.abspath("c"))]),
        ("type=local,src=/c,tag=main", [CacheSource(path="/c", tag="main")]),
        ("type=local,src=/c,digest=sha256:1", [CacheSource(path="/c", digest="sha256:1")]),
        ('"type=local","src=/a,b"', [CacheSource(path="/a,b")]),
        ("", []),
    ],
)
def test_sources(text: str, expected: list[CacheSource]) -> None:
    assert list(parse_cache_sources([text])) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type=inline", CacheTarget()),
        ("reg.example/app:cache", CacheTarget(reference=APP)),
        ("type=registry,ref=reg.example/app:cache,mode=max", CacheTarget(reference=APP, everything=True)),
        (
            "type=local,dest=/c,compression=zstd,compression-level=9,force-compression=true",
            CacheTarget(path="/c", compression=Compression("zstd", 9), force=True),
        ),
        ("type=local,dest=/c,image-manifest=true,oci-mediatypes=false", CacheTarget(path="/c", docker_types=True)),
        ("type=local,dest=/c,tag=x,ignore-error=1,recipes=0,reset=true",
         CacheTarget(path="/c", tag="x", ignore_error=True, recipes=False, reset=True)),
        ("type=local,dest=/c,mounts=npm;/root/.cache;npm", CacheTarget(path="/c", mounts=("npm", "/root/.cache"))),
        ("type=gha,mode=max,scope=main", CacheTarget(elsewhere="gha")),
        ("type=s3,bucket=x", CacheTarget(elsewhere="s3")),
        ("type=azblob", CacheTarget(elsewhere="azblob")),
    ],
)  # fmt: skip
def test_targets(text: str, expected: CacheTarget) -> None:
    assert parse_cache_targets([text]) == (expected,)


@pytest.mark.parametrize(
    ("parse", "text", "error", "message"),
    [
        (parse_cache_sources, "type=inline", UsageError, "an inline cache is in an image"),
        (parse_cache_targets, "type=nfs", UsageError, "unknown cache type 'nfs'"),
        (parse_cache_targets, "ref=x", UsageError, "unknown cache type ''"),
        (parse_cache_targets, "type=registry", UsageError, "needs ref="),
        (parse_cache_targets, "type=local,src=/x", UsageError, "needs dest="),
        (parse_cache_sources, "type=local,dest=/x", UsageError, "needs src="),
        (parse_cache_targets, "type=registry,ref=A", InvalidReference, "lower case"),
        (parse_cache_targets, f"type=registry,ref=a@sha256:{'0' * 64}", UsageError, "cannot be written to"),
        (parse_cache_targets, "type=registry,ref=a,mode=mid", UsageError, "neither min nor max"),
        (parse_cache_targets, "type=inline,mode=max", UsageError, "the layers of the image alone"),
        (parse_cache_targets, "type=inline,compression=zstd", UsageError, "unknown option 'compression'"),
        (parse_cache_targets, "type=registry,ref=a,image-manifest=false", Unsupported, "as image manifests"),
        (parse_cache_targets, "type=registry,ref=a,oci-mediatypes=no", UsageError, "neither true nor false"),
        (parse_cache_targets, "type=registry,ref=a,compression=br", UsageError, "unsupported compression"),
        (parse_cache_targets, "type=registry,ref=a,compression-level=x", UsageError, "is not a number"),
        (
            parse_cache_targets,
            "type=registry,ref=a,compression=zstd,oci-mediatypes=false",
            UsageError,
            "have no zstd layers",
        ),
        (parse_cache_targets, "type=registry,ref=a,mounts=x,oci-mediatypes=false", UsageError, "travel as zstd"),
        (parse_cache_targets, "type=registry,ref=a,refs=b", UsageError, "unknown option 'refs'"),
        (parse_cache_targets, "type=registry,oops", UsageError, "invalid --cache-to field 'oops'"),
    ],
)
def test_refused(parse: Callable[[list[str]], Any], text: str, error: type[BuilderError], message: str) -> None:
    with pytest.raises(error, match=message):
        parse([text])
