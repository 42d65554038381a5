"""--output: what it says, by a table, and any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import BuilderError, Unsupported, UsageError
from builder.export.output import TYPES, Output, image_names, parse_output
from builder.filesystem.compression import Compression
from builder.solver.annotations import Annotation

TABLE = {
    "out": Output(type="local", dest="out"),
    "-": Output(type="tar", dest="-"),
    "./a dir": Output(type="local", dest="./a dir"),
    "type=local,dest=out": Output(type="local", dest="out"),
    "type=tar": Output(type="tar", dest="-"),
    "type=cacheonly": Output(type="cacheonly"),
    "type=local,dest=out,platform-split=false": Output(type="local", dest="out", platform_split=False),
    "type=local,dest=out,mode=Delete": Output(type="local", dest="out", delete=True),
    "type=local,dest=out,mode=copy": Output(type="local", dest="out"),
    "type=tar,platform-split=1": Output(type="tar", dest="-", platform_split=True),
    "type=tar,dest=x.tar": Output(type="tar", dest="x.tar"),
    "type=oci": Output(type="oci", dest="-"),
    "type=oci,dest=x,tar=false": Output(type="oci", dest="x", tar=False),
    'type=docker,"dest=a,b.tar"': Output(type="docker", dest="a,b.tar"),
    "type=docker,dest=-": Output(type="docker", dest="-"),
    "type=docker": Output(type="image"),
    "type=docker,name=a:1,dest=": Output(type="image", names=("a:1",)),
    'type=image,"name=a:1,b:2"': Output(type="image", names=("a:1", "b:2")),
    "type=image,name=r/a,push-by-digest=true,name-canonical=true,push=true": Output(
        type="image", names=("r/a",), push=True, by_digest=True
    ),
    "type=image,store=true,unpack=true,name-canonical=": Output(type="image"),
    "type=image,push=true": Output(type="image", push=True),
    "type=image,push": None,
    "type=registry": Output(type="image", push=True),
    "type=registry,push=false": Output(type="image"),
    "type=registry,registry.insecure=true": Output(type="image", push=True, insecure=True),
    "TYPE=image": Output(type="image"),
    " type=image, push=1": Output(type="image", push=True),
    "type=image,compression=zstd": Output(type="image", compression=Compression("zstd")),
    "type=image,compression=zstd,compression-level=7": Output(type="image", compression=Compression("zstd", 7)),
    "type=image,compression-level=-1": Output(type="image", compression=Compression("gzip", -1)),
    "type=image,force-compression=true": Output(type="image", force_compression=True),
    "type=image,oci-mediatypes=false": Output(type="image", oci_media_types=False),
    "type=image,oci-mediatypes=true": Output(type="image", oci_media_types=True),
    "type=image,rewrite-timestamp=true": Output(type="image", rewrite_timestamp=True),
    "type=image,annotation.a.B=C=d": Output(type="image", annotations=(Annotation("manifest", "a.B", "C=d"),)),
    "type=image,annotation-index.a=b": Output(type="image", annotations=(Annotation("index", "a", "b"),)),
}  # fmt: skip


@pytest.mark.parametrize("text", TABLE)
def test_table(text: str) -> None:
    expected = TABLE[text]
    if expected is None:
        with pytest.raises(UsageError):
            parse_output(text)
    else:
        assert parse_output(text) == expected


REFUSED = {
    "": "is empty", '"': "is empty", "a\rb": "invalid --output",
    "type=": "unknown output type", "type=floppy": "unknown output type 'floppy'",
    "dest=x": "unknown output type ''",
    "type=local": "type=local needs a dest", "type=oci,tar=false": "type=oci,tar=false needs a dest",
    "type=docker,tar=0,dest=": "type=docker,tar=false needs a dest",
    "type=local,dest=-": "type=local cannot go to standard output",
    "type=oci,tar=false,dest=-": "type=oci,tar=false cannot go to standard output",
    "type=oci,what=x": "unknown option 'what'", "type=oci,dest": "invalid --output field",
    "type=image,compression=lzo": "unsupported compression", "type=image,compression-level=x": "is not a number",
    "type=image,compression-level=--1": "is not a number", "type=image,push=maybe": "neither true nor false",
    "type=image,store=false": "store=false is not supported", "type=image,unpack=x": "neither true nor false",
    "type=image,annotation-nowhere.a=b": "invalid annotation",
    "type=local,dest=x,mode=move": "unknown mode 'move'", "type=tar,mode=delete": "mode=delete is of no use",
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text: str) -> None:
    with pytest.raises((UsageError, Unsupported)) as caught:
        parse_output(text)
    assert REFUSED[text] in caught.value.cause


FIELDS = st.lists(
    st.sampled_from((
        "type=oci", "type=local", "type=image", "dest=x", "push", "push=true", "compression=zstd",
        "compression-level=3",
        "annotation.a=b", "annotation", "annotation=", "=", "", "name=a", '"', "\n", "\r", "tar=false",
        "compression-level=²",
    )),
    max_size=5,
).map(",".join)  # fmt: skip


@given(st.one_of(FIELDS, st.text(max_size=30)))
def test_any_text_is_an_output_or_refused(text: str) -> None:
    try:
        output = parse_output(text)
    except BuilderError:
        return
    assert output.type in TYPES
    assert output.type == "image" or output.dest


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        ([], ("a", "b")),
        (["type=image"], ("a", "b")),
        (["type=image,name=x"], ("x", "a", "b")),
        (['type=registry,"name=x,y"', "type=oci,dest=c,name=y", "type=docker,dest=d"], ("x", "y", "a", "b")),
        (["type=local,dest=d", "type=tar,dest=t", "type=cacheonly"], ()),
        (["type=local,dest=d", "type=image,name=x"], ("x", "a", "b")),
    ],
)
def test_the_names_of_an_image(outputs: list[str], names: tuple[str, ...]) -> None:
    assert image_names(tuple(map(parse_output, outputs)), ("a", "b")) == names
