"""Whom HTTPS trusts: the authorities of the system, as Go's and git's clients do, so that a company's own are among
them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


def system_context() -> ssl.SSLContext:
    """TLS settings that trust the system's authorities, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name. A
    machine that has none trusts certifi's."""
    import ssl

    paths = ssl.get_default_verify_paths()
    try:  # by name: other threads run meanwhile, which Python 3.11 does not allow where OpenSSL looks for them
        context = ssl.create_default_context(cafile=paths.cafile, capath=paths.capath)
    except OSError:  # unreadable or empty, which OpenSSL passes over
        context = ssl.create_default_context()
    if not paths.cafile and not (paths.capath and os.path.isdir(paths.capath) and os.listdir(paths.capath)):
        import certifi  # a machine without ca-certificates still reaches public registries

        context.load_verify_locations(certifi.where())
    return context
