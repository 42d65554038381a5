"""The note that a push leaves, so that pushing the same again takes one question to the registry.

Noted are pushes by plain HTTP that no proxy is in the way of: to a registry of this machine, or one of the network that
the configuration calls so. For others the certificates, and nearly always a token, are needed, and what knows of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from builder import config as configuration
from builder.api.repeat.leave import leave, settled_state
from builder.api.repeat.notes import FILE, HERE, INPUT, PROGRAM, Note
from builder.api.repeat.question import Question
from builder.api.repeat.registry import held
from builder.config import is_loopback
from builder.errors import BuilderError
from builder.oci.reference import Reference
from builder.oci.spec import Descriptor
from builder.places import configuration_files
from builder.registry.endpoints import Endpoint, certificate_directories, endpoints

_INDEX = "index.json"
"""What an image's name stands for, in the store. What it is made of is in the registry, and not needed here."""


def remember(
    question: Question, pushed: Sequence[tuple[Descriptor, Sequence[Reference]]], words: str, environ: Mapping[str, str]
) -> None:
    """Note what was pushed, with its tags, and the `words` in which a push says that all of it is there. That it cannot
    be noted harms nothing."""
    try:
        config = configuration.load(environ)
        manifests, paths = [], [INPUT + path for path in configuration_files(environ)]
        for image, tags in pushed:
            endpoint = endpoints(config, tags[0].domain, push=True)[0]
            if not _is_plain(endpoint, environ):
                return
            paths += [INPUT + path for path in certificate_directories(config, endpoint.settings)]
            manifests += [_held(endpoint, tag, image) for tag in tags]
        paths += [PROGRAM + HERE, FILE + os.path.join(question.root, _INDEX)]
        state = settled_state(question, paths)
        leave(question, Note(state, words.encode(), b"", list(map(os.fsencode, paths)), manifests))
    except (OSError, ValueError, BuilderError):
        return


def _held(endpoint: Endpoint, tag: Reference, image: Descriptor) -> bytes:
    target = endpoint.url(tag.path, f"manifests/{tag.tag}").removeprefix(endpoint.origin)
    return held(endpoint.host, target, image.media_type, image.digest)


def _is_plain(endpoint: Endpoint, environ: Mapping[str, str]) -> bool:
    proxies = any(value for name, value in environ.items() if name.lower() in ("http_proxy", "all_proxy"))
    return endpoint.scheme == "http" and (is_loopback(endpoint.host) or not proxies)
