"""Whether a repository may be pushed to, asked before there is anything to push."""

from __future__ import annotations

from contextlib import suppress

from builder.errors import RegistryError
from builder.oci.reference import Reference
from builder.registry.auth import repository_scope
from builder.registry.failures import refused
from builder.registry.transport import Session
from builder.registry.urls import join, split


def check_push(session: Session, reference: Reference) -> None:
    """Begin an upload, and cancel it. Raises Refused where a push would be refused, with what that would say; another
    RegistryError where that cannot be told."""
    endpoint = session.endpoints(reference.domain, push=True)[0]
    scopes = (repository_scope(endpoint.repository(reference.path), "pull", "push"),)
    uploads = endpoint.url(reference.path, "blobs/uploads/")
    reply = session.request(endpoint, "POST", uploads, scopes=scopes, retry=False)
    if reply.status in (401, 403):
        subject = f"{endpoint.host}/{reference.path}"
        raise refused(reply.status, reply.body, subject, endpoint.host, session.credentials.path)
    location = join(endpoint.origin, reply.headers.get("location") or uploads)
    if reply.status == 202 and split(location).scheme == endpoint.scheme:
        with suppress(RegistryError):
            session.request(endpoint, "DELETE", location, scopes=scopes, retry=False)
