"""Runs the git program for what others have made: apart from the user's own git, and with a header for one host only.

git sends a header that it was given to wherever the host redirects it. So where there is one, git follows no redirect;
it is asked here where that leads, and git told (`url.….insteadOf`). On another host the header is not sent.

A user and a password in the repository's address are such a header, too: git would write the address down in `.git`,
and with it those of submodules that are relative to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from builder import proxies
from builder.authorities import system_context
from builder.context.git_url import GitRef
from builder.errors import ContextError, ProxyError
from builder.progress import Check, unchecked

if TYPE_CHECKING:
    import ssl
    import subprocess

_KEPT_VARIABLES = (
    "PATH", "TMPDIR", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
)  # fmt: skip
_SETTINGS = (
    "init.defaultBranch=master", "core.hooksPath=/dev/null", "core.fsmonitor=false", "credential.helper=",
    "advice.detachedHead=false", "gc.auto=0", "maintenance.auto=false", "core.autocrlf=false", "core.symlinks=true",
)  # fmt: skip
_TAIL = 8
_REDIRECTED = re.compile(r"unable to access '(https?://[^']+?)/?': The requested URL returned error: 30[12378]\b")
_QUESTION = "/info/refs?service=git-upload-pack"
_MAX_REDIRECTS = 10
_TIMEOUT = 60.0
_LOOK = 0.1  # seconds between two looks whether git is to end


class GitFailed(Exception):
    """git ended with an error: its standard error."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Git:
    """The git program with one repository, or none (`directory` None). `check` is called while git runs; when it raises
    something, git is ended. `environ`, by default the process's, has proxies, authorities and the SSH agent."""

    def __init__(
        self,
        ref: GitRef,
        directory: str | None,
        authorization: str | None,
        agent: str,
        check: Check = unchecked,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.remote, user = _apart(ref.remote)
        """The address of the repository, without a password."""
        self._check = check
        self._ref = ref
        found = os.environ if environ is None else {**_of_process(), **environ}
        self._environment = {name: found[name] for name in _KEPT_VARIABLES if name in found} | {
            "HOME": os.devnull,
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TEMPLATE_DIR": "",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_ALLOW_PROTOCOL": "http:https:ssh:git",
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
            "GIT_HTTP_LOW_SPEED_LIMIT": "1",
            "GIT_HTTP_LOW_SPEED_TIME": "60",
        }
        if agent:
            self._environment["SSH_AUTH_SOCK"] = agent
        scheme, _, rest = self.remote.partition("://")
        host = rest.partition("/")[0]
        self._host = f"{scheme}://{host}/"
        self._authorization = (authorization or _basic(user)) if scheme in ("http", "https") else None
        self._redirected: set[str] = set()
        if self._authorization is not None:
            self._configure(f"http.{self._host}.extraHeader", f"Authorization: {self._authorization}")
            self._configure(f"http.{self._host}.followRedirects", "false")
        elif user:
            self._configure(f"url.{scheme}://{user}@{host}/.insteadOf", self._host)

    def _configure(self, key: str, value: str) -> None:
        """Set something in the environment: everybody can read a command line."""
        number = int(self._environment.get("GIT_CONFIG_COUNT", "0"))
        self._environment |= {
            "GIT_CONFIG_COUNT": str(number + 1),
            f"GIT_CONFIG_KEY_{number}": key,
            f"GIT_CONFIG_VALUE_{number}": value,
        }

    def run(self, *arguments: str) -> str:
        """The standard output of a git command. Raises GitFailed with its standard error."""
        while True:
            try:
                return self._run(arguments)
            except GitFailed as problem:
                redirect = _REDIRECTED.search(problem.message)
                if redirect is None or not self._follow(redirect[1]):
                    raise

    def _follow(self, repository: str) -> bool:
        """Tell git where a repository is that its host redirects. Returns False if nothing came of it.

        What is not on the host got no header, whatever a server writes to standard error through git."""
        if self._authorization is None or repository in self._redirected or not repository.startswith(self._host):
            return False
        self._redirected.add(repository)
        try:
            landing = _landing(repository, self._authorization, self._environment)
        except ProxyError as problem:
            raise ContextError(problem.cause, place=self._ref.place, remedy=problem.remedy) from problem
        if landing is None:
            return False
        if landing:
            self._configure(f"url.{landing}.insteadOf", repository)
        else:
            self._configure(f"http.{repository}.extraHeader", "")  # none, then: git may go on by itself
            self._configure(f"http.{repository}.followRedirects", "initial")
        return True

    def _run(self, arguments: tuple[str, ...]) -> str:
        import subprocess

        command = ["git"]
        for setting in _SETTINGS:
            command += ("-c", setting)
        if self.directory is None:
            environment = self._environment | {"GIT_DIR": os.devnull}  # not the repository that we happen to stand in
        else:
            command += ("-C", self.directory)
            environment = self._environment | {"GIT_CEILING_DIRECTORIES": os.path.dirname(self.directory)}
        try:
            process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                umask=0o022,
            )
        except FileNotFoundError as problem:
            raise ContextError(
                "this is a git repository, and there is no git program",
                place=self._ref.place,
                remedy="install git (on Debian: apt-get install git)",
            ) from problem
        output, errors = self._wait(process)
        if process.returncode != 0:
            message = errors.decode(errors="replace").strip() or f"git exited with status {process.returncode}"
            raise GitFailed(message)
        return output.decode(errors="surrogateescape")

    def _wait(self, process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
        """What git wrote to standard output and error, once it has ended."""
        from subprocess import TimeoutExpired

        with process:
            try:
                while True:
                    with suppress(TimeoutExpired):
                        return process.communicate(timeout=_LOOK)
                    self._check()
            except BaseException:
                process.terminate()  # then git ends what it started
                raise

    def error(self, cause: str, problem: GitFailed) -> ContextError:
        """The error to show: git's own last words, without credentials."""
        message = problem.message.replace(self._ref.remote, self._ref.place)
        if "://" in self._ref.remote:
            user = self._ref.remote.partition("://")[2].partition("/")[0].rpartition("@")[0]
            if user:
                message = message.replace(user, "xxxxx")
        details = tuple(f"    {line}" for line in message.splitlines()[-_TAIL:])
        remedy = "git itself says so: see whether 'git ls-remote' can read it from here"
        if "could not read Username" in message or "Authentication failed" in message or "terminal prompts" in message:
            remedy = "the repository does not exist or needs credentials"
        return ContextError(cause, place=self._ref.place, details=details, remedy=remedy)


def _apart(remote: str) -> tuple[str, str]:
    """An address without a password, and the user and password that were in it (`USER:PASSWORD`, or '' if nothing was
    taken out). A user alone is no credential of other protocols than http."""
    scheme, separator, rest = remote.partition("://")
    host, slash, path = rest.partition("/")
    user = host.rpartition("@")[0]
    if not separator or (":" not in user and scheme not in ("http", "https")):
        return remote, ""
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}", user


def _basic(user: str) -> str | None:
    """The header that `USER:PASSWORD` in an address stands for, as git and curl send it."""
    if not user:
        return None
    from base64 import b64encode
    from urllib.parse import unquote_to_bytes

    name, _, password = user.partition(":")
    return "Basic " + b64encode(unquote_to_bytes(name) + b":" + unquote_to_bytes(password)).decode()


def _of_process() -> dict[str, str]:
    """Where programs and temporary files are, which is so for whatever environment is given."""
    return {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}


def _landing(repository: str, authorization: str, environ: Mapping[str, str]) -> str | None:
    """Where the redirects of a repository end: its address there if that is on the same host, '' if on another one, and
    None if nowhere. The other host is not asked. `environ` is git's: whom it trusts, and its proxies. Raises
    ProxyError."""
    import httpx

    origin = httpx.URL(repository)
    url = httpx.URL(repository + _QUESTION)
    headers = {"Authorization": authorization, "Git-Protocol": "version=2", "User-Agent": "git/builder"}
    try:
        transport = proxies.transport(proxies.of_environment(environ), verify=_tls_context(environ))
        with httpx.Client(transport=transport, trust_env=False, timeout=_TIMEOUT) as client:
            for _ in range(_MAX_REDIRECTS):
                with client.stream("GET", url, headers=headers) as response:
                    if not response.has_redirect_location:
                        break
                    url = url.join(response.headers["Location"])
                if (url.scheme, url.netloc) != (origin.scheme, origin.netloc):
                    return ""
            else:
                return None
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, OSError):  # OSError: certificates; git says more
        return None
    return str(url).removesuffix(_QUESTION) if str(url).endswith(_QUESTION) else None


def _tls_context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """TLS settings that trust whom git trusts."""
    context = system_context(environ)
    file, directory = environ.get("GIT_SSL_CAINFO") or None, environ.get("GIT_SSL_CAPATH") or None
    if file or directory:
        context.load_verify_locations(file, directory)
    return context
