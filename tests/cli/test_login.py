"""`builder login` and `logout` as people use them."""

from __future__ import annotations

import json
import os
import pty
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.builds import Cli
from tests.support.certificates import make_certificates
from tests.support.docker_registry import docker_registry, needs_docker_registry
from tests.support.registry import FakeRegistry


def kept(cli: Cli) -> Any:
    return json.loads((cli.root.parent / ".docker/config.json").read_text())["auths"]


def test_in_and_out(cli: Cli) -> None:
    with FakeRegistry(auth="basic", users={"u": "p"}) as registry:
        registry.add_image("app", "1", layers=(b"x",))
        assert cli("pull", f"{registry.host}/app:1").status == 1
        done = cli("login", "-u", "u", "--password-stdin", registry.host, stdin=b"p\n")
        assert done.status == 0
        assert done.out == b"Login Succeeded\n"
        assert "stored unencrypted in" in done.err
        assert list(kept(cli)) == [registry.host]
        assert cli("pull", f"{registry.host}/app:1").status == 0
        again = cli("login", registry.host)
        assert again.status == 0
        assert "[Username: u]" in again.err
        out = cli("logout", registry.host)
        assert out.status == 0
        assert out.out.decode() == f"Removing login credentials for {registry.host}\n"
        assert kept(cli) == {}
        assert cli("pull", f"{registry.host}/app:1").status == 1


def test_what_is_refused_is_not_kept(cli: Cli) -> None:
    with FakeRegistry(auth="token", users={"u": "p"}, anonymous_pull=False) as registry:
        done = cli("login", "-u", "u", "-p", "secret-word", registry.host)
        assert done.status == 1
        assert "Using --password via the CLI is insecure" in done.err
        assert "refuses the credentials" in done.err
        assert "secret-word" not in done.err
        assert not (cli.root.parent / ".docker").exists()
    assert cli("login", "-u", "u", "-p", "p", "127.0.0.1:1").status == 1


def test_an_identity_token_is_kept_and_works(cli: Cli) -> None:
    with FakeRegistry(auth="token", users={"u": "p"}, anonymous_pull=False, identity_token="i") as registry:
        registry.add_image("app", "1", layers=(b"x",))
        assert cli("login", "-u", "u", "-p", "-", registry.host, stdin=b"p").status == 0
        assert kept(cli)[registry.host]["identitytoken"] == "i"
        assert cli("pull", f"{registry.host}/app:1").status == 0


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        (["-u", "u", "-p", "p", "--password-stdin"], b"p", "cannot be used together"),
        (["--password-stdin"], b"p", "needs --username"),
        (["-u", "u", "--password-stdin"], b"\n", "password is empty"),
        (["-u", "u", "--password-stdin"], b"\xff\xfe", "not UTF-8"),
        (["-u", "", "-p", "p"], b"", "user name is empty"),
        ([], b"u\np\n", "no terminal"),
        (["-u", "u"], b"p\n", "no terminal"),
    ],
)
def test_wrong_usage(cli: Cli, arguments: list[str], stdin: bytes, says: str) -> None:
    done = cli("login", *arguments, "127.0.0.1:1", stdin=stdin)
    assert done.status == 2
    assert says in done.err


def test_a_password_is_read_as_it_is(cli: Cli) -> None:
    with FakeRegistry(auth="basic", users={"u": " a b "}) as registry:
        assert cli("login", "-u", "u", "--password-stdin", registry.host, stdin=b" a b \r\n").status == 0


def test_questions_on_a_terminal(cli: Cli) -> None:
    with FakeRegistry(auth="basic", users={"u": "p"}) as registry:
        ours, theirs = pty.openpty()
        process = cli.start("login", registry.host, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        seen = b""
        answers = {b"Username: ": b"u\n", b"Password: ": b"p\n"}
        timer = threading.Timer(30, process.kill)
        timer.start()
        try:
            while True:
                try:
                    data = os.read(ours, 1000)
                except OSError:  # how Linux tells that the other side is closed
                    break
                if not data:
                    break
                seen += data
                for question in [question for question in answers if question in seen]:
                    os.write(ours, answers.pop(question))
        finally:
            timer.cancel()
            os.close(ours)
        assert process.wait(10) == 0, seen
    assert b"Login Succeeded" in seen
    assert b"Password: \r\n" in seen  # what was typed is not shown
    assert list(kept(cli)) == [registry.host]


def test_other_credentials_are_told_of(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / ".config/containers").mkdir(parents=True)
    (tmp_path / ".config/containers/auth.json").write_text('{"auths": {"x.io": {"auth": "dTpw"}}}')
    done = cli("logout", "x.io")
    assert done.status == 0
    assert "auth.json still has credentials for x.io" in done.err
    assert cli("logout").out.decode() == "Removing login credentials for https://index.docker.io/v1/\n"
    done = cli("logout", "x.io", environ={"DOCKER_AUTH_CONFIG": '{"auths": {"x.io": {"auth": "dTpw"}}}'})
    assert "DOCKER_AUTH_CONFIG still has" in done.err


@needs_docker_registry
def test_a_real_registry_with_an_authority_of_its_own(cli: Cli, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    config = tmp_path / "builder.toml"
    with docker_registry(tmp_path / "registry", password=True, certificates=certificates) as host:
        arguments = ["login", "-u", "u", "-p", "p", host]
        config.write_text(f'[registry."{host}"]\nhttp = false\n')
        untrusted = cli(*arguments)
        assert untrusted.status == 1
        assert "is not trusted" in untrusted.err
        config.write_text(f'[registry."{host}"]\nca = ["ca.crt"]\n')
        assert cli(*arguments).status == 0
        assert cli("login", "-u", "u", "-p", "wrong", host).status == 1
        assert cli("tags", f"{host}/nothing").status == 1
        assert cli("catalog", host).status == 0
        config.write_text("")
        directory = tmp_path / ".config/containers/certs.d" / host
        directory.mkdir(parents=True)
        (directory / "ca.crt").write_bytes((certificates / "ca.crt").read_bytes())
        assert cli(*arguments).status == 0
