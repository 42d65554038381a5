"""The interpreter's own SHA-256 is OpenSSL's."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from builder.oci.digests import hex_of


@given(st.binary(max_size=300), st.sampled_from([1, 300]))
def test_small_and_large(data: bytes, times: int) -> None:
    assert hex_of(data * times) == hashlib.sha256(data * times).hexdigest()
    assert hex_of(data * times, after=b"before") == hashlib.sha256(b"before" + data * times).hexdigest()
