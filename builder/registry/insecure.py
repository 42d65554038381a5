"""A registry without trust, for the `--insecure` of commands that have it, and `registry.insecure` of outputs."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from builder.config import Config
from builder.errors import RegistryError
from builder.registry.endpoints import endpoints
from builder.registry.failures import Untrusted
from builder.registry.transport import Session


def allow_insecure(config: Config, environ: Mapping[str, str], domain: str) -> Config:
    """The configuration by which the registry `domain` is reached with any certificate, or by plain HTTP if it does not
    speak HTTPS, which is tried now. Its mirrors keep their settings."""
    if endpoints(config, domain, push=True)[0].scheme == "http":
        return config
    relaxed = _with(config, domain, http=False)
    endpoint = endpoints(relaxed, domain, push=True)[0]
    with Session(relaxed, environ) as session:
        try:
            session.request(endpoint, "GET", f"{endpoint.origin}/v2/", scopes=(), retry=False)
        except Untrusted:
            return _with(config, domain, http=True)
        except RegistryError:
            pass  # whatever it is, the command that follows will tell
    return relaxed


def trust(session: Session, domain: str) -> None:
    """Have a session take any certificate of a registry from now on, or plain HTTP if it does not speak HTTPS."""
    session.config = allow_insecure(session.config, session.environ, domain)


def _with(config: Config, domain: str, *, http: bool) -> Config:
    table = msgspec.structs.replace(config.registry(domain), insecure=True, http=http)
    return msgspec.structs.replace(config, registries={**config.registries, domain: table})
