"""HTTP servers on this machine, for tests."""

from __future__ import annotations

import contextlib
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """That a client hangs up is part of tests."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextlib.contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler], certificates: Path | None = None) -> Iterator[str]:
    """The URL of a server whose requests `handler` answers, for as long as it runs; without a slash at the end. With
    the directory that `make_certificates` filled it speaks TLS."""
    with _Server(("127.0.0.1", 0), handler) as server:
        if certificates is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificates / "server.crt", certificates / "server.key")
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http{'s' if certificates else ''}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
