"""Whom HTTPS trusts: the authorities of the system, as Go's and git's clients do, so that a company's own are among
them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


def system_context(environ: Mapping[str, str] | None = None) -> ssl.SSLContext:
    """TLS settings that trust the system's authorities, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name in
    `environ` (by default the process's). A machine that has none trusts certifi's."""
    import ssl

    file, directory = _paths(os.environ if environ is None else environ)
    try:  # by name: other threads run meanwhile, which Python 3.11 does not allow where OpenSSL looks for them
        context = ssl.create_default_context(cafile=file, capath=directory)
    except OSError:  # unreadable or empty, which OpenSSL passes over
        context = ssl.create_default_context()
    if not file and not (directory and os.listdir(directory)):
        import certifi  # a machine without ca-certificates still reaches public registries

        context.load_verify_locations(certifi.where())
    return context


def _paths(environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The file and the directory of authorities, where they exist: as `ssl.get_default_verify_paths` finds them."""
    import ssl

    known = ssl.get_default_verify_paths()
    file = environ.get(known.openssl_cafile_env, known.openssl_cafile)
    directory = environ.get(known.openssl_capath_env, known.openssl_capath)
    return file if os.path.isfile(file) else None, directory if os.path.isdir(directory) else None
