"""A registry in this process, with faults on request. Reusable: `with FakeRegistry() as registry: …`.

It speaks as much of the distribution specification as clients use: manifests, blobs with Range, uploads in one or
several requests, cross-repository mounts, tags/list, and both ways to authenticate. `registry.faults` is changed by a
test at any time; `registry.requests` is what was asked, as `METHOD /path`.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Faults:
    """What goes wrong. Lists are used up from the front, one entry for each request that it applies to."""

    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # answered instead of the real thing
    only: str = ""  # a regular expression of "METHOD path?query": faults apply to these requests alone
    cut_after: list[int] = field(default_factory=list)  # close the connection after this many bytes of a body
    no_range: bool = False
    wrong_range: bool = False
    corrupt: bool = False  # the last byte of a body is another one
    wrong_digest_header: bool = False
    no_digest_header: bool = False
    encodings: str = ""  # what bodies are said to be encoded as; they are sent as they are
    drip: float = 0.0  # seconds between pieces of 1000 bytes
    silent: float = 0.0  # seconds of silence before an answer
    meet: int = 0  # the silence begins when so many requests have come at once, or in 20 seconds
    hang_up: int = 0  # close the connection without an answer, so many times
    redirect_blobs: str = ""  # an origin to which blobs are redirected
    refuse_mounts: bool = False
    drop_uploads: int = 0  # close the connection in the middle of so many uploads
    uploads_at: str = ""  # what uploads are said to be at: an origin, however it is written
    cookies: bool = False  # set one in each answer, and refuse whoever shows one, as Harbor does


@dataclass
class FakeRegistry:
    """`auth` is "", "basic" or "token"; `users` maps names to passwords, without any everybody may pull and push."""

    auth: str = ""
    users: dict[str, str] = field(default_factory=dict)
    anonymous_pull: bool = True
    realm: str = ""  # the origin of its token server, if that is another one's
    identity_token: str = ""  # what is given to those who log in, and accepted in place of a password
    tls: ssl.SSLContext | None = None
    token_lifetime: int = 300
    repositories: dict[str, dict[str, tuple[str, bytes]]] = field(default_factory=dict)  # name → tag or digest → …
    blobs: dict[str, dict[str, bytes]] = field(default_factory=dict)  # name → digest → bytes
    faults: Faults = field(default_factory=Faults)
    requests: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)  # token → scopes
    uploads: dict[str, bytes] = field(default_factory=dict)
    results: list[dict[str, Any]] | None = None  # of every search; without any there is no search
    has_catalog: bool = True
    waiting: int = 0  # requests that are held up by `faults.silent` now, and the most so far
    most_waiting: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    port: int = 0  # 0: a free one
    address: str = "127.0.0.1"

    def __enter__(self) -> FakeRegistry:
        registry = self

        class Handler(_Handler):
            served = registry

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64
            address_family = socket.AF_INET6 if ":" in registry.address else socket.AF_INET

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that hangs up is part of the tests."""

        self.server = Server((self.address, self.port), Handler)
        if self.tls is not None:
            self.server.socket = self.tls.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def host(self) -> str:
        name = f"[{self.address}]" if ":" in self.address else self.address
        return f"{name}:{self.server.server_address[1]}"

    @property
    def origin(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}"

    # What it holds

    def add_blob(self, name: str, data: bytes) -> str:
        self.blobs.setdefault(name, {})[digest_of(data)] = data
        return digest_of(data)

    def add_manifest(self, name: str, document: dict[str, Any] | bytes, tag: str | None = None, media: str = "") -> str:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        media = media or json.loads(data).get("mediaType") or OCI_MANIFEST
        held = self.repositories.setdefault(name, {})
        held[digest_of(data)] = (media, data)
        if tag:
            held[tag] = (media, data)
        return digest_of(data)

    def add_image(
        self,
        name: str,
        tag: str | None = None,
        *,
        layers: tuple[bytes, ...] = (b"layer",),
        architecture: str = "amd64",
        os: str = "linux",
        variant: str = "",
    ) -> dict[str, Any]:
        """Store an image; gives the descriptor of its manifest, with its platform, fit for an index."""
        config = {
            "architecture": architecture,
            "os": os,
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
        if variant:
            config["variant"] = variant
        config_data = json.dumps(config).encode()
        self.add_blob(name, config_data)
        descriptors = [
            {"mediaType": OCI_LAYER, "digest": self.add_blob(name, layer), "size": len(layer)} for layer in layers
        ]
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest_of(config_data), "size": len(config_data)},
            "layers": descriptors,
        }
        data = json.dumps(manifest).encode()
        self.add_manifest(name, data, tag)
        platform = {"os": os, "architecture": architecture} | ({"variant": variant} if variant else {})
        return {"mediaType": OCI_MANIFEST, "digest": digest_of(data), "size": len(data), "platform": platform}

    def add_index(self, name: str, tag: str | None, *manifests: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(manifests)}).encode()
        self.add_manifest(name, data, tag)
        return {"mediaType": OCI_INDEX, "digest": digest_of(data), "size": len(data)}

    def count(self, pattern: str) -> int:
        """How many requests matched a regular expression from their start."""
        return sum(1 for request in self.requests if re.match(pattern, request))


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: FakeRegistry
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _serve(self) -> None:
        registry, faults = self.served, self.served.faults
        parts = urlsplit(self.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        with registry.lock:
            registry.requests.append(f"{self.command} {self.path}")
            registry.headers.append({key.lower(): value for key, value in self.headers.items()})
        faulty = bool(re.search(faults.only, f"{self.command} {self.path}"))
        if faulty and faults.silent:
            with registry.lock:
                registry.waiting += 1
                registry.most_waiting = max(registry.most_waiting, registry.waiting)
            deadline = time.monotonic() + 20
            while registry.most_waiting < faults.meet and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(faults.silent)
            with registry.lock:
                registry.waiting -= 1
        if faulty and faults.drop_uploads and self.command in ("PUT", "PATCH") and "/uploads/" in parts.path:
            faults.drop_uploads -= 1
            self.rfile.read(10)
            return self._hang_up()
        body = self._body()
        if faulty and faults.hang_up:
            faults.hang_up -= 1
            return self._hang_up()
        if faulty and faults.statuses:
            status, headers = faults.statuses.pop(0)
            return self._reply(status, b'{"errors":[{"code":"FAULT","message":"made to fail"}]}', headers)
        if faults.cookies and "Cookie" in self.headers:
            return self._error(403, "FORBIDDEN")
        if parts.path == "/token":
            return self._token(query, body)
        if parts.path == "/v1/search" and registry.results is not None:
            return self._reply(200, json.dumps({"results": registry.results}).encode())
        if not parts.path.startswith("/v2/"):
            return self._error(404, "NOT_FOUND")
        if parts.path == "/v2/_catalog" and registry.has_catalog:
            return self._pages("repositories", sorted(registry.repositories), "/v2/_catalog", query)
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs|tags)/(.*)", parts.path)
        if parts.path == "/v2/":
            return self._reply(200, b"{}") if self._allowed("", "pull") else self._challenge("", "pull")
        if not match:
            return self._error(404, "NOT_FOUND")
        name, kind, key = match.groups()
        action = "push" if self.command in ("POST", "PUT", "PATCH", "DELETE") else "pull"
        if not self._allowed(name, action):
            return self._challenge(name, action)
        if kind == "manifests":
            return self._manifest(name, key, body, faulty)
        if kind == "tags":
            return self._tags(name, query)
        if key.startswith("uploads/"):
            return self._upload(name, key.removeprefix("uploads/"), query, body)
        return self._blob(name, key, faulty)

    # Authentication

    def _allowed(self, name: str, action: str) -> bool:
        registry = self.served
        header = self.headers.get("Authorization", "")
        if registry.auth == "basic":
            return self._user(header) is not None
        if registry.auth == "token":
            granted = registry.tokens.get(header.removeprefix("Bearer "))
            if granted is None:
                return False
            return not name or any(
                scope.rpartition(":")[0] == f"repository:{name}" and action in scope.rpartition(":")[2].split(",")
                for scope in granted.split()
            )
        return True

    def _user(self, header: str) -> str | None:
        if not header.startswith("Basic "):
            return None
        user, _, password = base64.b64decode(header[6:]).decode().partition(":")
        return user if self.served.users.get(user) == password else None

    def _challenge(self, name: str, action: str) -> None:
        registry = self.served
        if registry.auth == "basic":
            value = 'Basic realm="the \\"test\\" registry"'
        else:
            wanted = "pull" if action == "pull" else "pull,push"
            scope = f',scope="repository:{name}:{wanted}"' if name else ""
            value = f'Bearer realm="{registry.realm or registry.origin}/token",service="fake"{scope}'
        self._error(401, "UNAUTHORIZED", {"WWW-Authenticate": value})

    def _token(self, query: dict[str, list[str]], body: bytes) -> None:
        registry = self.served
        if self.command == "POST":
            form = parse_qs(body.decode())
            if form.get("refresh_token") != [registry.identity_token] or not registry.identity_token:
                return self._error(401, "UNAUTHORIZED")
            scopes, pushing = form.get("scope", [""])[0].split(), True
        else:
            scopes = query.get("scope", [])
            header = self.headers.get("Authorization", "")
            user = self._user(header)
            if header and user is None:
                return self._error(401, "UNAUTHORIZED")
            if user is None and registry.users and not registry.anonymous_pull:
                return self._error(401, "UNAUTHORIZED")
            pushing = user is not None or not registry.users
        granted = []
        for scope in scopes:
            resource, _, actions = scope.rpartition(":")
            granted.append(f"{resource}:{','.join(a for a in actions.split(',') if a == 'pull' or pushing)}")
        with registry.lock:
            token = f"token-{len(registry.tokens)}"
            registry.tokens[token] = " ".join(granted)
        answer = {"token": token, "expires_in": registry.token_lifetime}
        if "offline_token" in query and pushing and registry.identity_token:
            answer["refresh_token"] = registry.identity_token
        return self._reply(200, json.dumps(answer).encode())

    # The registry itself

    def _manifest(self, name: str, key: str, body: bytes, faulty: bool) -> None:
        registry = self.served
        if self.command == "PUT":
            document = json.loads(body)
            for child in document.get("manifests", []):
                if child["digest"] not in registry.repositories.get(name, {}):
                    return self._error(400, "MANIFEST_BLOB_UNKNOWN")
            for blob in [*document.get("layers", []), *([document["config"]] if "config" in document else [])]:
                if blob["digest"] not in registry.blobs.get(name, {}) and not blob.get("urls"):
                    return self._error(400, "MANIFEST_BLOB_UNKNOWN")
            tag = None if key.startswith("sha256:") else key
            digest = registry.add_manifest(name, body, tag, self.headers["Content-Type"])
            return self._reply(
                201, b"", {"Docker-Content-Digest": digest, "Location": f"/v2/{name}/manifests/{digest}"}
            )
        found = registry.repositories.get(name, {}).get(key)
        if found is None:
            return self._error(404, "MANIFEST_UNKNOWN")
        media, data = found
        stated = digest_of(b"other" if faulty and registry.faults.wrong_digest_header else data)
        headers = {} if faulty and registry.faults.no_digest_header else {"Docker-Content-Digest": stated}
        return self._content(data, {"Content-Type": media, **headers}, faulty)

    def _tags(self, name: str, query: dict[str, list[str]]) -> None:
        if name not in self.served.repositories:
            return self._error(404, "NAME_UNKNOWN")
        tags = sorted(key for key in self.served.repositories[name] if ":" not in key)
        return self._pages("tags", tags, f"/v2/{name}/tags/list", query)

    def _pages(self, key: str, names: list[str], path: str, query: dict[str, list[str]]) -> None:
        """Two names a page, whatever is asked for."""
        last = query.get("last", [""])[0]
        page = [name for name in names if name > last][:2]
        headers = {}
        if page and page[-1] != names[-1]:
            headers["Link"] = f'<{path}?{urlencode({"last": page[-1], "n": 2})}>; rel="next"'
        self._reply(200, json.dumps({key: page}).encode(), headers)

    def _blob(self, name: str, digest: str, faulty: bool) -> None:
        faults = self.served.faults
        data = self.served.blobs.get(name, {}).get(digest)
        if data is None:
            return self._error(404, "BLOB_UNKNOWN")
        if faults.redirect_blobs and self.command == "GET":
            return self._reply(307, b"", {"Location": f"{faults.redirect_blobs}/v2/{name}/blobs/{digest}?signed=1"})
        return self._content(
            data, {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}, faulty
        )

    def _upload(self, name: str, upload: str, query: dict[str, list[str]], body: bytes) -> None:
        registry = self.served
        if self.command == "POST":
            mount, origin = query.get("mount", [""])[0], query.get("from", [""])[0]
            if (
                mount in registry.blobs.get(origin, {})
                and not registry.faults.refuse_mounts
                and self._allowed(origin, "pull")
            ):
                registry.add_blob(name, registry.blobs[origin][mount])
                return self._reply(201, b"", {"Location": f"/v2/{name}/blobs/{mount}", "Docker-Content-Digest": mount})
            with registry.lock:
                upload = f"upload-{len(registry.requests)}"
                registry.uploads[upload] = b""
            location = f"{registry.faults.uploads_at}/v2/{name}/blobs/uploads/{upload}?state=x"
            return self._reply(202, b"", {"Location": location, "Range": "0-0"})
        if upload not in registry.uploads:
            return self._error(404, "BLOB_UPLOAD_UNKNOWN")
        if self.command == "DELETE":
            del registry.uploads[upload]
            return self._reply(204, b"")
        registry.uploads[upload] += body
        if self.command == "PATCH":
            held = f"0-{len(registry.uploads[upload]) - 1}"
            return self._reply(202, b"", {"Location": f"/v2/{name}/blobs/uploads/{upload}", "Range": held})
        data = registry.uploads.pop(upload)
        if query.get("digest") != [digest_of(data)]:
            return self._error(400, "DIGEST_INVALID")
        registry.add_blob(name, data)
        return self._reply(201, b"", {"Docker-Content-Digest": digest_of(data)})

    # HTTP

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _content(self, data: bytes, headers: dict[str, str], faulty: bool) -> None:
        faults = self.served.faults
        status, asked = 200, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if faulty and faults.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if asked and not faults.no_range:
            start = int(asked[1])
            if start >= len(data):
                return self._error(416, "RANGE_INVALID")
            if faults.wrong_range:
                start -= 1
            headers = headers | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            status, data = 206, data[start:]
        self.send_response(status)
        if faulty and faults.encodings:
            headers = headers | {"Content-Encoding": faults.encodings}
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        if faulty and faults.cut_after:
            self.wfile.write(data[: faults.cut_after.pop(0)])
            return self._hang_up()
        if faulty and faults.drip:
            for start in range(0, len(data), 1000):
                self.wfile.write(data[start : start + 1000])
                time.sleep(faults.drip)
            return None
        self.wfile.write(data)
        return None

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._reply(status, json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode(), headers)

    def _reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        if self.served.faults.cookies:
            self.send_header("Set-Cookie", "sid=1; Path=/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def fake_registries(count: int) -> Iterator[list[FakeRegistry]]:
    """Several at once, as a registry and its mirrors."""
    registries = [FakeRegistry().__enter__() for _ in range(count)]
    try:
        yield registries
    finally:
        for registry in registries:
            registry.__exit__()
