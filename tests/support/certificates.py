"""Certificates for tests, made with openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


def make_certificates(directory: Path, *names: str) -> Path:
    """An authority (`ca.crt`), and certificates with keys for 127.0.0.1 and these names (`server`) and for a client
    (`client`)."""

    def openssl(*arguments: str) -> None:
        try:
            subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("openssl is not installed")

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-batch")
    openssl(*new, "-x509", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test authority", "-days", "2")
    known = ",".join(["IP:127.0.0.1", *(f"DNS:{name}" for name in names)])
    for name, extension in (("server", f"subjectAltName={known}"), ("client", "extendedKeyUsage=clientAuth")):
        openssl(*new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (directory / f"{name}.ext").write_text(extension)
        signing = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *signing)
    return directory
