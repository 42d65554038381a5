"""The proxies that Docker's configuration file gives builds and containers, `proxies.default` in its `config.json`.

Docker keeps them by daemon, too; there is none here. Source: `ParseProxyConfig` of Docker's command line and buildx's
`GetProxyConfig`, which knows no `allProxy`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from builder.errors import UsageError
from builder.places import docker_file

_BUILDS = {"httpProxy": "HTTP_PROXY", "httpsProxy": "HTTPS_PROXY", "noProxy": "NO_PROXY", "ftpProxy": "FTP_PROXY"}
_CONTAINERS = _BUILDS | {"allProxy": "ALL_PROXY"}


def build_proxies(given: Collection[str], environ: Mapping[str, str]) -> dict[str, str]:
    """The build arguments that are added to those of the names `given`. Raises UsageError."""
    names = {name.upper() for name in given}
    return {name: value for name, value in _read(_BUILDS, environ).items() if name not in names}


def container_proxies(given: Collection[str], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables, in both spellings, that are added to those of the names `given`. Raises UsageError."""
    found = _read(_CONTAINERS, environ).items()
    both = {spelled: value for name, value in found for spelled in (name, name.lower())}
    return {name: value for name, value in both.items() if name not in given}


def _read(known: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The proxies by the names of their variables. A file that cannot be read gives none: what needs it for a
    registry says so."""
    path = docker_file(environ)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return {}
    if b'"proxies"' not in data:  # as nearly always: nothing is loaded and decoded for it
        return {}
    import msgspec

    from builder.oci.spec import NOT_JSON

    try:
        proxies = msgspec.json.decode(data, type=dict[str, object]).get("proxies") or {}
        values = msgspec.convert(proxies, dict[str, dict[str, object]]).get("default", {})
        found = {name: msgspec.convert(values.get(key, ""), str) for key, name in known.items()}
    except NOT_JSON as error:
        raise UsageError(f"its 'proxies' cannot be read: {error}", place=path, remedy="mend or remove them") from error
    return {name: value for name, value in found.items() if value}
