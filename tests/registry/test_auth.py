from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import RegistryError
from builder.registry.auth import (
    Authorization,
    Challenge,
    TokenAnswer,
    TokenRequest,
    authorize,
    merge_scopes,
    parse_challenges,
    repository_scope,
)
from builder.registry.credentials import Credential

BEARER = Challenge("bearer", {"realm": "https://auth.example.com/token", "service": "s"})


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="x"', [Challenge("basic", {"realm": "x"})]),
        ("Basic", [Challenge("basic", {})]),
        ("Negotiate, Basic realm=x", [Challenge("negotiate", {}), Challenge("basic", {"realm": "x"})]),
        (
            'Bearer realm="https://a/t?x=1,2",service="re\\"g",scope="repository:a/b:pull,push"',
            [
                Challenge(
                    "bearer", {"realm": "https://a/t?x=1,2", "service": 're"g', "scope": "repository:a/b:pull,push"}
                )
            ],
        ),
        (
            'bearer Realm = "r" , error=insufficient_scope, Basic realm="b"',
            [Challenge("bearer", {"realm": "r", "error": "insufficient_scope"}), Challenge("basic", {"realm": "b"})],
        ),
        ("", []),
        ('"', []),
    ],
)
def test_parse_challenges(header: str, expected: list[Challenge]) -> None:
    assert parse_challenges([header]) == expected


@given(st.text())
def test_parse_challenges_takes_anything(text: str) -> None:
    parse_challenges([text])


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]+", fullmatch=True), st.text(st.characters(min_codepoint=32, max_codepoint=126))
    )
)
def test_quoted_parameters_come_back(parameters: dict[str, str]) -> None:
    quoted = ", ".join(f'{k}="' + v.replace("\\", "\\\\").replace('"', '\\"') + '"' for k, v in parameters.items())
    assert parse_challenges([f"Bearer {quoted}"]) == [Challenge("bearer", parameters)]


def test_scopes() -> None:
    assert repository_scope("library/x", "pull", "push") == "repository:library/x:pull,push"
    assert merge_scopes(["repository:b:pull", "repository:a:push", "repository:b:push,pull"]) == (
        "repository:a:push",
        "repository:b:pull,push",
    )
    assert merge_scopes(["aws", "repository:a:pull", "aws"]) == ("repository:a:pull", "aws")


def run(
    challenges: list[Challenge], credential: Credential | None, answer: TokenAnswer
) -> tuple[TokenRequest, Authorization]:
    flow = authorize(challenges, credential, ["repository:x:pull"], host="example.com", secure=True)
    request = next(flow)
    with pytest.raises(StopIteration) as stopped:
        flow.send(answer)
    return request, stopped.value.value


def test_anonymous_token() -> None:
    request, found = run([BEARER], None, TokenAnswer(200, b'{"token":"t","expires_in":300}'))
    assert request == TokenRequest("https://auth.example.com/token?service=s&scope=repository%3Ax%3Apull", {})
    assert found == Authorization("Bearer t", 300)


def test_token_with_a_password() -> None:
    request, found = run([BEARER], Credential("u", "p"), TokenAnswer(200, b'{"access_token":"t"}'))
    assert request.headers == {"Authorization": "Basic " + base64.b64encode(b"u:p").decode()}
    assert "account=u" in request.url
    assert found == Authorization("Bearer t", 60)


def test_logging_in_asks_for_an_identity_token() -> None:
    flow = authorize([BEARER], Credential("u", "p"), [], host="example.com", secure=True, offline=True)
    assert next(flow).url == "https://auth.example.com/token?service=s&account=u&offline_token=true&client_id=builder"
    with pytest.raises(StopIteration) as stopped:
        flow.send(TokenAnswer(200, b'{"token":"t","refresh_token":"r"}'))
    assert stopped.value.value.identity_token == "r"
    # Who did not ask keeps none.
    assert run([BEARER], None, TokenAnswer(200, b'{"token":"t","refresh_token":"r"}'))[1].identity_token == ""


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:x:pull"',
            "https://auth.docker.io/token?service=registry.docker.io&scope=repository%3Ax%3Apull",
        ),
        (
            'Bearer realm="https://quay.io/v2/auth",service="quay.io",scope="repository:x:pull"',
            "https://quay.io/v2/auth?service=quay.io&scope=repository%3Ax%3Apull",
        ),
        (
            'Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:user/image:pull"',
            "https://ghcr.io/token?service=ghcr.io&scope=repository%3Auser%2Fimage%3Apull&scope=repository%3Ax%3Apull",
        ),
        (
            'Bearer realm="https://gcr.io/v2/token",service="gcr.io",scope="repository:x:pull"',
            "https://gcr.io/v2/token?service=gcr.io&scope=repository%3Ax%3Apull",
        ),
        (
            'Bearer realm="https://europe-docker.pkg.dev/v2/token",service="europe-docker.pkg.dev"',
            "https://europe-docker.pkg.dev/v2/token?service=europe-docker.pkg.dev&scope=repository%3Ax%3Apull",
        ),
        (
            'Bearer realm="https://public.ecr.aws/token/",service="public.ecr.aws",scope="aws"',
            "https://public.ecr.aws/token/?service=public.ecr.aws&scope=repository%3Ax%3Apull&scope=aws",
        ),
        (
            'Bearer realm="https://x.azurecr.io/oauth2/token",service="x.azurecr.io",scope="repository:x:pull"',
            "https://x.azurecr.io/oauth2/token?service=x.azurecr.io&scope=repository%3Ax%3Apull",
        ),
        ('Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com"', None),
    ],
)
def test_what_public_registries_ask_for(header: str, expected: str | None) -> None:
    """Their challenges as they send them, and the request for a token that answers each; ECR wants a password."""
    challenges = parse_challenges([header])
    asked = [scope for c in challenges for scope in c.parameters.get("scope", "").split()]
    scopes = merge_scopes(["repository:x:pull", *asked])
    flow = authorize(challenges, Credential("u", "p") if expected is None else None, scopes, host="h", secure=True)
    if expected is None:
        with pytest.raises(StopIteration) as stopped:
            next(flow)
        assert stopped.value.value.header.startswith("Basic ")
    else:
        assert next(flow) == TokenRequest(expected, {})


def test_identity_token_is_exchanged() -> None:
    request, found = run([BEARER], Credential(identity_token="i"), TokenAnswer(200, b'{"access_token":"t"}'))
    assert request.form == {
        "grant_type": "refresh_token",
        "refresh_token": "i",
        "client_id": "builder",
        "service": "s",
        "scope": "repository:x:pull",
    }
    assert found.header == "Bearer t"


@pytest.mark.parametrize(
    ("challenges", "credential", "header"),
    [
        ([Challenge("basic", {})], Credential("u", "p"), "Basic " + base64.b64encode(b"u:p").decode()),
        ([BEARER], Credential(registry_token="r"), "Bearer r"),
    ],
)
def test_no_request_is_needed(challenges: list[Challenge], credential: Credential, header: str) -> None:
    with pytest.raises(StopIteration) as stopped:
        next(authorize(challenges, credential, [], host="h", secure=True))
    assert stopped.value.value == Authorization(header)


@pytest.mark.parametrize(
    ("challenges", "credential", "says"),
    [
        ([Challenge("basic", {})], None, "asks for a user name"),
        ([Challenge("negotiate", {})], None, "not supported"),
        ([Challenge("bearer", {"realm": "file:///etc/passwd"})], None, "not a URL"),
        ([Challenge("bearer", {"realm": "http://evil/"})], Credential("u", "p"), "over plain HTTP"),
        ([Challenge("bearer", {"realm": "https://[x/t"})], None, "is not a URL"),
    ],
)
def test_challenges_that_cannot_be_met(challenges: list[Challenge], credential: Credential | None, says: str) -> None:
    with pytest.raises(RegistryError, match=says):
        next(authorize(challenges, credential, [], host="h", secure=True))


@pytest.mark.parametrize(
    ("answer", "credential", "says"),
    [
        (TokenAnswer(401, b""), None, "no anonymous access"),
        (TokenAnswer(401, b""), Credential("u", "p"), "refuses the credentials"),
        (TokenAnswer(404, b""), None, "status 404"),
        (TokenAnswer(200, b"<html>"), None, "no valid token"),
        (TokenAnswer(200, b'{"x":' + b"[" * 100_000), None, "no valid token"),
        (TokenAnswer(200, b"{}"), None, "no valid token"),
        (TokenAnswer(200, b'{"token":"a\\r\\nX: y"}'), None, "no valid token"),
    ],
)
def test_token_servers_that_fail(answer: TokenAnswer, credential: Credential | None, says: str) -> None:
    flow = authorize([BEARER], credential, [], host="h", secure=True)
    next(flow)
    with pytest.raises(RegistryError, match=says) as caught:
        flow.send(answer)
    assert "p:" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    assert "hunter2" not in repr(Credential("u", "hunter2", "hunter2", "hunter2"))
    assert "hunter2" not in repr(Authorization("Bearer hunter2"))
