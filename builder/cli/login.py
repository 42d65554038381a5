"""`builder login`: try credentials on a registry, and keep them where Docker keeps them."""

from __future__ import annotations

import os
import sys

import click

from builder import config as configuration
from builder.cli.flags import Command
from builder.cli.settings import Settings
from builder.cli.transfers import notice
from builder.errors import BuilderError, UsageError
from builder.oci.reference import DEFAULT_DOMAIN
from builder.registry.credentials import AUTH_VARIABLE, Credential

_REGISTER = (
    "Log in with your Docker ID or email address to push and pull images from Docker Hub. "
    "If you don't have a Docker ID, head over to https://hub.docker.com/ to create one."
)


@click.command(
    "login", cls=Command, epilog="Example: pass show registry | builder login -u me --password-stdin ghcr.io"
)
@click.argument("server", metavar="[SERVER]", default="")
@click.option("-u", "--username", metavar="NAME", help="The user name.")
@click.option("-p", "--password", metavar="PASSWORD", help="The password or token; others may see it. '-' reads it.")
@click.option("--password-stdin", is_flag=True, help="Read the password or token from standard input.")
@click.pass_obj
def command(settings: Settings, server: str, username: str | None, password: str | None, password_stdin: bool) -> None:
    """Log in to a registry, Docker Hub by default.

    The credentials are tried first, then kept in ~/.docker/config.json (or in $DOCKER_CONFIG), or by the credential
    helper that it names. Without -u and -p those that are kept are tried, and what is missing is asked for.
    """
    from builder.registry.credentials import CredentialStore
    from builder.registry.login import server_of

    if password == "-":
        password, password_stdin = None, True
    _check(username, password, password_stdin)
    host = server_of(server) if server else DEFAULT_DOMAIN
    if os.environ.get(AUTH_VARIABLE):
        print(f"WARNING: {AUTH_VARIABLE} is set and takes precedence", file=sys.stderr)
    if password is not None:
        print("WARNING! Using --password via the CLI is insecure. Use --password-stdin.", file=sys.stderr)
    if password_stdin:
        password = _read_password()
    known = CredentialStore(os.environ).get(host)
    if username is None and password is None and known is not None and _works(host, known):
        print("Login Succeeded")
        return
    _log_in(host, _ask(host, username, password, known))


def _check(username: str | None, password: str | None, password_stdin: bool) -> None:
    if password_stdin and password is not None:
        raise UsageError("--password and --password-stdin cannot be used together")
    if password_stdin and username is None:
        raise UsageError("--password-stdin needs --username")
    for value, name in ((username, "user name"), (password, "password")):
        if value is not None and not value.strip():
            raise UsageError(f"the {name} is empty")


def _read_password() -> str:
    """Standard input without its line's end; all else is part of the password."""
    data = sys.stdin.buffer.read()
    for end in (b"\r\n", b"\n", b"\r"):
        if data.endswith(end):
            data = data.removesuffix(end)
            break
    try:
        password = data.decode()
    except UnicodeDecodeError:
        raise UsageError("the password on standard input is not UTF-8") from None
    if not password.strip():
        raise UsageError("the password is empty", remedy="write it to standard input")
    return password


def _ask(host: str, username: str | None, password: str | None, known: Credential | None) -> Credential:
    """What is not given yet. Raises UsageError where there is nobody to ask."""
    if username is not None and password is not None:
        return Credential(username.strip(), password)
    if not sys.stdin.isatty():
        raise UsageError(
            "there is no terminal to ask for the user name and password", remedy="use -u NAME --password-stdin"
        )
    import getpass

    if username is None:
        if host == DEFAULT_DOMAIN:
            print(_REGISTER)
        default = known.username if known is not None else ""
        username = input(f"Username ({default}): " if default else "Username: ").strip() or default
        if not username:
            raise UsageError("a user name is required")
    if password is None:
        password = getpass.getpass("Password: ")
        if not password:
            raise UsageError("a password is required")
    return Credential(username.strip(), password)


def _works(host: str, known: Credential) -> bool:
    """Whether credentials that are kept are still accepted."""
    from builder.registry.failures import Unreachable
    from builder.registry.login import verify

    shown = f" [Username: {known.username}]" if known.username else ""
    print(f"Authenticating with existing credentials...{shown}", file=sys.stderr)
    try:
        verify(configuration.load(os.environ), os.environ, host, known, reporter=notice)
    except Unreachable:
        raise
    except BuilderError as error:
        print(f"Login did not succeed: {error}", file=sys.stderr)
        return False
    return True


def _log_in(host: str, credential: Credential) -> None:
    from builder.registry.login import save, verify

    kept = save(os.environ, host, verify(configuration.load(os.environ), os.environ, host, credential, reporter=notice))
    if not kept.helper:
        print(
            f"\nWARNING! Your credentials are stored unencrypted in '{kept.path}'.\n"
            "Configure a credential helper to remove this warning. See\n"
            "https://docs.docker.com/go/credential-store/\n",
            file=sys.stderr,
        )
    print("Login Succeeded")
