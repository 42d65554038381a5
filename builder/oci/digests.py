"""SHA-256 of small data.

`hashlib` loads OpenSSL, which takes 4 ms: a rebuild that finds everything in the cache hashes a few kilobytes, for which
the interpreter's own implementation will do. Whoever hashes files or layers uses `hashlib`, which is four times faster.
"""

from __future__ import annotations

import sys

if sys.version_info >= (3, 12):
    from _sha2 import sha256
else:
    from _sha256 import sha256

_SMALL = 1 << 16


def hex_of(data: bytes) -> str:
    """The SHA-256 of `data`: 64 hexadecimal digits."""
    if len(data) > _SMALL:
        import hashlib

        return hashlib.sha256(data).hexdigest()
    return sha256(data).hexdigest()
