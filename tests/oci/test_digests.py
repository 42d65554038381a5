"""The interpreter's own SHA-256 is OpenSSL's."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.oci import digests
from builder.oci.digests import StreamHasher, hex_of, is_hex, is_sha256, sha256


@given(st.binary(max_size=300), st.sampled_from([1, 300]))
def test_small_and_large(data: bytes, times: int) -> None:
    assert hex_of(data * times) == hashlib.sha256(data * times).hexdigest()
    assert hex_of(data * times, after=b"before") == hashlib.sha256(b"before" + data * times).hexdigest()


MUCH = 1 << 40


@pytest.fixture
def unspent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has hashed nothing."""
    monkeypatch.setattr(digests, "_openssl", None)
    monkeypatch.setattr(digests, "_spent", 0)


def _is_own(hasher: object) -> bool:
    return type(hasher).__module__ != "_hashlib"


@given(st.lists(st.binary(max_size=300), max_size=5), st.sampled_from([0, MUCH]))
def test_pieces(pieces: list[bytes], more: int) -> None:
    hasher = sha256(more=more)
    for piece in pieces:
        hasher.update(piece)
    assert hasher.digest() == sha256(b"".join(pieces)).digest() == hashlib.sha256(b"".join(pieces)).digest()


@pytest.mark.usefixtures("unspent")
def test_openssl_is_for_much() -> None:
    assert _is_own(sha256(b"small"))
    assert not _is_own(sha256(more=MUCH))
    assert not _is_own(sha256(b"small"))  # now that it is there


@given(st.lists(st.binary(max_size=300), max_size=5), st.sampled_from([1, 1000]))
def test_a_stream(pieces: list[bytes], times: int) -> None:
    hasher, expected = StreamHasher(), hashlib.sha256()
    for piece in pieces:
        hasher.update(piece * times)
        expected.update(piece * times)
        assert hasher.hexdigest() == expected.hexdigest()


@pytest.mark.usefixtures("unspent")
@pytest.mark.parametrize(("pieces", "loaded"), [(1, False), (5, True)])
def test_a_long_stream_is_for_openssl(pieces: int, loaded: bool) -> None:
    hasher = StreamHasher()
    for _ in range(pieces):
        hasher.update(bytes(1 << 16))
    hasher.hexdigest()
    assert (digests._openssl is not None) is loaded


@pytest.mark.usefixtures("unspent")
def test_little_by_little_is_much_too() -> None:
    kinds = [_is_own(sha256(bytes(1 << 12))) for _ in range(256)]
    assert kinds[0]
    assert not kinds[-1]
    assert kinds == sorted(kinds, reverse=True)


@pytest.mark.parametrize(
    ("text", "digits", "expected"),
    [("0af9", 4, True), ("0af9", 5, False), ("0AF9", 4, False), ("0af\n", 4, False), ("", 0, True), ("٣af9", 4, False)],
)
def test_hexadecimal_digits(text: str, digits: int, expected: bool) -> None:
    assert is_hex(text, digits) is expected


@given(st.text(max_size=80) | st.from_regex(r"(sha256:)?[0-9a-f]{63,65}\n?", fullmatch=True))
def test_a_digest_is_what_the_expression_says(text: str) -> None:
    assert is_sha256(text) is (re.fullmatch("sha256:[0-9a-f]{64}", text) is not None)
