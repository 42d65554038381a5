"""Option values: tables of what is read, and of what is refused with a remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from builder.api.options import BuildOptions, SecretSource
from builder.cli import values
from builder.errors import BuilderError, UsageError
from builder.export.output import Output
from builder.oci.platform import host_platform
from builder.oci.spec import Platform
from builder.solver.annotations import Annotation
from builder.solver.limits import Limits

SIZES = {
    "": 0, "0": 0, "4096": 4096, "64m": 64 << 20, "64M": 64 << 20, "64mb": 64 << 20, "64MiB": 64 << 20, "2g": 2 << 30,
    "1.5GiB": 3 << 29, "1k": 1024, "1t": 1 << 40, "10 kb": 10240, "5b": 5,
}  # fmt: skip


@pytest.mark.parametrize("text", SIZES)
def test_sizes(text: str) -> None:
    assert values.size(text, "--memory") == SIZES[text]


@pytest.mark.parametrize(
    "text", ["x", "-1", "1x", "1 2", "m", "1.m", ".5m", "1e9", "٣m", "9" * 400, "1m\n", "inf", f"{2**23}t"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="for --memory") as caught:
        values.size(text, "--memory")
    assert caught.value.remedy


def test_build_arguments() -> None:
    environ = {"HTTP_PROXY": "p", "EMPTY": ""}
    assert values.build_args(["A=1", "B=", "C=x=y", "HTTP_PROXY", "EMPTY", "UNSET", "A=2"], environ) == {
        "A": "2", "B": "", "C": "x=y", "HTTP_PROXY": "p", "EMPTY": "",
    }  # fmt: skip
    with pytest.raises(UsageError, match="invalid --build-arg '=x'"):
        values.build_args(["=x"], environ)


def test_pairs() -> None:
    assert values.pairs(["a=b", "c=d=e", "f="], "--label") == {"a": "b", "c": "d=e", "f": ""}
    assert values.pairs(["a"], "--label", value_optional=True) == {"a": ""}
    for text in ("a", "=b", ""):
        with pytest.raises(UsageError, match="invalid --label"):
            values.pairs([text], "--label")


def test_platforms() -> None:
    arm = Platform("linux", "arm64")
    assert values.platforms(["linux/amd64,linux/arm64/v8", "arm64", ""]) == (Platform("linux", "amd64"), arm)
    assert values.platforms(["local", "LOCAL,linux"]) == (host_platform(),)
    with pytest.raises(UsageError):
        values.platforms(["linux/amd64,toaster"])


SECRETS: dict[str, tuple[str, SecretSource]] = {
    "id=a,src=/x": ("a", SecretSource(path="/x")),
    "id=a,source=/x": ("a", SecretSource(path="/x")),
    "src=/x,id=a,type=file": ("a", SecretSource(path="/x")),
    "id=a,env=B": ("a", SecretSource(variable="B")),
    "id=a,type=env": ("a", SecretSource(variable="a")),
    "id=a,type=env,src=B": ("a", SecretSource(variable="B")),
    "id=VAR": ("VAR", SecretSource(variable="VAR")),
    "id=a": ("a", SecretSource(path="a")),
    '"id=a","src=/x,y"': ("a", SecretSource(path="/x,y")),
    'id=a,"SRC=/x ""y"""': ("a", SecretSource(path='/x "y"')),
}


@pytest.mark.parametrize("text", SECRETS)
def test_secrets(text: str) -> None:
    assert values.secret(text, {"VAR": "x"}) == SECRETS[text]


@pytest.mark.parametrize("text", ["", "a", "src=/x", "id=", "id=a,what=x", "id=a,type=floppy", "id=a,", '"id=a"\rb'])
def test_what_is_no_secret(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        values.secret(text, {})
    assert caught.value.remedy


def test_agents() -> None:
    environ = {"SSH_AUTH_SOCK": "/agent"}
    assert values.agent("default", environ) == ("default", ("/agent",))
    assert values.agent("", environ) == ("default", ("/agent",))
    assert values.agent("other=/x", environ) == ("other", ("/x",))
    assert values.agent("keys=/a,/b", environ) == ("keys", ("/a", "/b"))
    assert values.agent("other", environ) == ("other", ("/agent",))
    with pytest.raises(UsageError, match="no agent is running"):
        values.agent("default", {})


HOSTS = {
    "a:1.2.3.4": ("a", "1.2.3.4"), "a=1.2.3.4": ("a", "1.2.3.4"), "a:::1": ("a", "::1"), "a=[::1]": ("a", "::1"),
    "a:[::1]": ("a", "::1"), "a:[1.2.3.4]": ("a", "1.2.3.4"),
    "a_b.example-1=::ffff:1.2.3.4": ("a_b.example-1", "::ffff:1.2.3.4"), "bücher:::": ("bücher", "::"),
    "gate:host-gateway": ("gate", "127.0.0.1"), "gate=host-gateway": ("gate", "127.0.0.1"),
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTS)
def test_hosts(text: str) -> None:
    assert values.host(text) == HOSTS[text]


def test_several_hosts() -> None:
    assert list(values.hosts(["a:1.1.1.1,b:2.2.2.2", "", 'c=::1,"d=3.3.3.3,[::2]"'])) == [
        ("a", "1.1.1.1"), ("b", "2.2.2.2"), ("c", "::1"), ("d", "3.3.3.3"), ("d", "::2"),
    ]  # fmt: skip
    for text in ("a:1.1.1.1,", "a:1.1.1.1,2.2.2.2", '"a:1.1.1.1,x"'):
        with pytest.raises(UsageError, match="invalid --add-host"):
            list(values.hosts([text]))


@pytest.mark.parametrize(
    "text",
    ["", "a", ":1", "a:", "=1", "a:b", "a:1.2.3", "a:1.2.3.04", "a:1.2.3.4 b", "a:1.2.3.4\n6.6.6.6 b", "a:[[::1]]",
     "a:[", "a:::1%lo", "a:HOST-GATEWAY", "a b:1.2.3.4", "a\tb:1.2.3.4", "a\n:1.2.3.4", "a#:1.2.3.4", "a\x1b=::1",
     "caf\udce9=::1"],
)  # fmt: skip
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(UsageError, match="invalid --add-host") as caught:
        values.host(text)
    assert caught.value.remedy


def test_ulimits() -> None:
    assert values.ulimit("nofile=1024") == ("nofile", 1024, 1024)
    assert values.ulimit("nofile=1024:2048") == ("nofile", 1024, 2048)
    assert values.ulimit("core=-1") == ("core", -1, -1)
    assert values.ulimit("core=5:-1") == ("core", 5, -1)
    with pytest.raises(UsageError, match="there is no limit 'nofle'") as error:
        values.ulimit("nofle=10")
    assert "nofile" in str(error.value.remedy)
    for text in (
        "",
        "nofile",
        "=5",
        "nofile=",
        "nofile=x",
        "nofile=1:",
        "nofile=2:1",
        "nofile=-1:5",
        "nofile=1_0",
        "nofile= 1",
    ):
        with pytest.raises(UsageError, match="invalid --ulimit"):
            values.ulimit(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "-1", "0.0099", "1e300"])
def test_what_is_no_number_of_processors(text: str) -> None:
    with pytest.raises(UsageError, match="is no number of processors") as caught:
        given_options("--cpus", text)
    assert caught.value.remedy


@pytest.mark.parametrize("cpus", [0, 0.01, 1.5, 1000])
def test_numbers_of_processors(cpus: float) -> None:
    assert given_options("--cpus", str(cpus)).limits.cpus == cpus


def test_entitlements() -> None:
    assert values.entitlements(["network.host,security.insecure", ""]) == {"network.host", "security.insecure"}
    with pytest.raises(UsageError, match="unknown entitlement 'root'"):
        values.entitlements(["root"])


READERS: list[Callable[[str], Any]] = [
    lambda text: values.size(text, "--memory"), lambda text: values.secret(text, {}), values.host, values.ulimit,
    lambda text: list(values.hosts([text])),
    lambda text: values.platforms([text]), lambda text: values.agent(text, {}), lambda text: values.pairs([text], "-x"),
    lambda text: values.entitlements([text]), lambda text: values.build_args([text], {}),
]  # fmt: skip


@given(st.sampled_from(READERS), st.one_of(st.text(max_size=12), st.text("0123456789.:=,-kmgbid", max_size=16)))
def test_any_text_is_read_or_refused(reader: Callable[[str], Any], text: str) -> None:
    try:
        reader(text)
    except BuilderError:
        return


def given_options(*arguments: str) -> BuildOptions:
    """What the command line makes of arguments."""
    from builder.cli.build import command

    with command.make_context("build", [*arguments, "."]) as context:
        return values.build_options("/root", context.params, {"A": "env"})


def test_options_by_default() -> None:
    options = given_options()
    assert (options.context, options.root, options.no_cache, options.outputs) == (".", "/root", None, ())
    assert options.limits == Limits()
    assert options.environ == {"A": "env"}


def test_options() -> None:
    options = given_options(
        "-t", "a:1", "-t", "b", "--build-arg", "A", "--build-context", "x=/y", "--label", "l", "--platform", "arm64",
        "--no-cache-filter", "one,two", "--load", "-o", "out", "--memory", "1m", "--cpus", "1.5", "--ulimit", "core=0",
        "--add-host", "h:10.0.0.1", "--allow", "network.host", "--squash", "--secret", "id=A",
    )  # fmt: skip
    assert options.tags == ("a:1", "b")
    assert options.build_args == {"A": "env"}
    assert options.contexts == {"x": "/y"}
    assert options.labels == {"l": ""}
    assert options.no_cache == frozenset(("one", "two"))
    assert options.outputs == (Output(type="local", dest="out"), Output(type="image"))
    assert options.limits == Limits(memory=1 << 20, cpus=1.5, ulimits=(("core", 0, 0),), hosts=(("h", "10.0.0.1"),))
    assert options.secrets == {"A": SecretSource(variable="A")}
    assert options.squash == "all"


@pytest.mark.parametrize(
    "option", ["-o", "--annotation", "--secret", "--ssh", "--build-context", "--cache-from", "--cache-to", "--add-host"]
)
def test_an_option_that_a_variable_leaves_empty_says_nothing(option: str) -> None:
    assert given_options(f"{option}=" if option != "-o" else "--output=") == given_options()


def test_the_key_of_an_annotation_may_have_colons() -> None:
    expected = (Annotation("manifest", "a:b", "c=d"), Annotation("index", "a:b", "c=d"))
    assert given_options("--annotation", "manifest,index:a:b=c=d").annotations == expected
    for text in ("a:b=c", ":b=c", "manifest:=c", "=c", "a"):
        with pytest.raises(UsageError, match="annotation"):
            given_options("--annotation", text)


def test_no_cache_at_all_wins_over_a_filter() -> None:
    assert given_options("--no-cache", "--no-cache-filter", "one").no_cache == frozenset()


def test_pushing() -> None:
    assert given_options("--push").outputs == (Output(type="image", push=True),)
    assert given_options("--push", "-o", "type=image,name=a").outputs == (
        Output(type="image", names=("a",), push=True),
    )
    assert given_options("--push", "-o", "out").outputs[-1] == Output(type="image", push=True)


REFUSED = [
    ["--provenance", "most"], ["--sbom", "generator=x"], ["--attest", "type=x"],
    ["--isolation", "hyperv"], ["--squash=some"], ["--memory", "x"], ["--cpus", "1e-300"], ["-o", "type=floppy"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", REFUSED, ids=lambda arguments: arguments[0])
def test_what_is_known_and_not_done_is_refused(arguments: list[str]) -> None:
    with pytest.raises(BuilderError):
        given_options(*arguments)


def test_the_command_says_what_it_does() -> None:
    from builder.cli.build import command

    shown = CliRunner().invoke(command, ["--help"]).output
    assert "--build-arg" in shown
    assert "Example" in shown
