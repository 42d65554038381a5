"""Secrets reach no layer, configuration, history, annotation, cache key, log or error."""

from __future__ import annotations

import base64
import gzip
import io
import os
import string
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import StepFailed
from builder.filesystem import kinds
from builder.filesystem.tree import FileInfo
from builder.solver.secret_forms import is_searchable
from builder.solver.secret_output import Masking
from builder.solver.secrets import Guard, SecretLeak
from tests.support.builds import Cli, Done, busybox_context, context, needs_sandbox
from tests.support.registry import FakeRegistry

VALUE = "tok/en+s3cr3t~0xC0FFEE?"
RAW = VALUE.encode()
KEYS = string.ascii_letters + string.digits + "+/=~!?%& "


def guard(*values: bytes) -> Guard:
    return Guard({f"secret 's{number}'": partial(bytes, value) for number, value in enumerate(values)})


secrets = st.binary(min_size=8, max_size=200).filter(lambda value: is_searchable(value.strip()))


@given(secrets, st.binary(max_size=40), st.binary(max_size=40), st.sampled_from([b"+/", b"-_"]))
def test_base64_is_found_wherever_it_stands(value: bytes, before: bytes, after: bytes, alphabet: bytes) -> None:
    encoded = base64.b64encode(before + value.strip() + after, alphabet)
    assert guard(value).find(b"key: " + encoded) is not None


@given(st.binary(min_size=120, max_size=3000), st.binary(max_size=100), st.sampled_from([64, 76]))
def test_base64_in_lines_is_found(value: bytes, before: bytes, width: int) -> None:
    encoded = base64.b64encode(before + value.strip()).decode()
    assert guard(value).find("\n".join(textwrap.wrap(encoded, width)).encode()) is not None


@given(st.text(KEYS, min_size=12, max_size=60), st.sampled_from([quote, quote_plus]), st.booleans())
def test_url_encodings_are_found(text: str, encode: object, lower: bool) -> None:
    value = text.strip()
    if not is_searchable(value.encode()):
        return
    for quoted in (quote(value), quote(value, safe=""), quote_plus(value)):
        folded = "".join(f"%{p[:2].lower()}{p[2:]}" if n else p for n, p in enumerate(quoted.split("%")))
        assert guard(value.encode()).find(f"http://h/?k={folded if lower else quoted}".encode()) is not None


@pytest.mark.parametrize(
    ("value", "searched"),
    [
        (b"", False), (b"s3cret", False), (b"1234567", False), (b"12345678", True), (b"password", False),
        (b"two words\n", False), (b"correct horse battery", True), (b"  pa55w0rd \n", True), (b"\xff" * 8, True),
    ],
)  # fmt: skip
def test_what_might_stand_anywhere_is_not_searched_for(value: bytes, searched: bool) -> None:
    assert (guard(value).find(b"xx" + value.strip() + b"xx") is not None) == searched


@given(st.lists(st.sampled_from([RAW, b"to", b"tok/en", b"ok", b"\n", base64.b64encode(RAW)])), st.data())
def test_logs_are_masked_across_pieces(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)))))
    masking = Masking(guard(RAW))
    shown = b"".join(masking.feed(1, whole[a:b]) for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True))
    shown += b"".join(rest for _, rest in masking.finish())
    assert shown == guard(RAW).mask(whole)
    assert RAW not in shown


@given(st.binary(min_size=8, max_size=300), st.sampled_from([b"", b"x-access-token:", b"a", b"me"]))
def test_base64_is_masked_as_a_whole(value: bytes, before: bytes) -> None:
    """But for the characters that it shares with what is around it."""
    value = b"7" + value + b"8"
    left = guard(value).mask_text(f"basic {base64.b64encode(before + value).decode()}!").partition("***")
    known = base64.b64encode(before).decode().rstrip("=")[: len(before) * 8 // 6]
    assert left[0].startswith(f"basic {known}")
    assert len(left[0]) <= len("basic ") + len(known) + 1
    assert len(left[2].rstrip("!").rstrip("=")) <= 1


def test_streams_are_masked_apart_and_not_delayed() -> None:
    masking = Masking(guard(RAW))
    assert masking.feed(1, b"prompt> ") == b"prompt> "
    assert masking.feed(1, b"a tok") == b"a "
    assert masking.feed(2, b"/en+") == b"/en+"
    assert masking.feed(1, RAW[3:] + b"!") == b"***!"
    assert masking.feed(1, b"t") == b""
    assert list(masking.finish()) == [(1, b"t")]


@given(st.integers(0, 60), st.integers(1, 40))
def test_contents_are_searched_where_pieces_meet(offset: int, size: int) -> None:
    content = bytes(offset) + RAW + bytes(30)
    writer = guard(RAW).writer(lambda data: None)
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    writer.add("clean", FileInfo(kinds.FILE, 0o644, 0, 0, 5, 0), content=b"clean")
    with pytest.raises(SecretLeak, match=r"secret 's0' .*the content of /app/file"):
        writer.add("app/file", FileInfo(kinds.FILE, 0o644, 0, 0, len(content), 0), content=iter(pieces))


def test_a_secret_that_cannot_be_read_hinders_nobody_else() -> None:
    def missing() -> bytes:
        raise StepFailed("cannot be read")

    assert Guard({"a": missing, "b": lambda: RAW}).find(RAW) is not None


# --- whole builds


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    (tmp_path / "secret").write_text(VALUE + "\n")
    return Cli(tmp_path / "store")


def holders(root: Path, *values: bytes) -> list[str]:
    """The files of a store that hold one of these, compressed or not."""
    found = []
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            if data[:2] == b"\x1f\x8b":
                data = gzip.GzipFile(fileobj=io.BytesIO(data)).read()
            if any(value in data for value in values):
                found.append(str(path.relative_to(root)))
    return found


def build(cli: Cli, made: Path, *arguments: str) -> Done:
    done = cli("build", "--progress", "plain", "--secret", f"id=npm,src={cli.root.parent / 'secret'}", *arguments, made)
    assert VALUE not in done.err
    assert base64.b64encode(RAW).decode() not in done.err
    assert holders(cli.root, RAW, base64.b64encode(RAW)[:24], quote(VALUE, safe="").encode()) == []
    return done


CUT = f"{VALUE[:9]}\\\n{VALUE[9:]}"
"""The value over two lines of a Dockerfile."""
MOUNT = "RUN --mount=type=secret,id=npm,env=T "
LEAKS = {
    "content": ('printf "a $T" > /leak', "the content of /leak"),
    "name": ('touch "/${T#*/}-$(echo "$T" | tr / :)" && mkdir "/x" && ln -s "$T" /x/l', "the name or link of /x/l"),
    "base64": ('printf "a:%s:b" "$T" | base64 > /leak', "the content of /leak"),
    "url": ('printf "http://h/?t=tok%%2Fen%%2Bs3cr3t~0xC0FFEE%%3F" > /leak', "(URL-encoded)"),
    "large file": ('head -c 3000000 /dev/zero > /big && printf "$T" >> /big', "the content of /big"),
}


@needs_sandbox
@pytest.mark.parametrize("leak", LEAKS)
def test_a_step_that_writes_a_secret_down_fails(cli: Cli, tmp_path: Path, leak: str) -> None:
    script, place = LEAKS[leak]
    made = busybox_context(tmp_path / "context", f"FROM base\n{MOUNT}{script}\n")
    for name in ("base64", "head", "printf"):
        (made / "base/bin" / name).symlink_to("busybox")
    done = build(cli, made)
    assert done.status == 1
    assert place in done.err
    assert "the value of secret 'npm'" in done.err
    assert "error: Dockerfile:5: " in done.err
    assert cli.leftovers() == []


def test_a_copy_of_the_secrets_own_file_fails(cli: Cli, tmp_path: Path) -> None:
    made = context(tmp_path / "context", "FROM scratch\nCOPY . /app/\n", **{"conf__.env": f"A=1\nTOKEN={VALUE}\n"})
    done = build(cli, made)
    assert done.status == 1
    assert "Dockerfile:2: the value of secret 'npm' would be in the image: the content of /app/conf/.env" in done.err
    assert (
        build(Cli(tmp_path / "other"), context(tmp_path / "clean", "FROM scratch\nCOPY . /app/\n", a="1")).status == 0
    )


@pytest.mark.parametrize(
    ("instruction", "place"),
    [
        (f'ENV A="x {CUT}"', "the line"), (f'LABEL "k"="{CUT}"', "the line"), (f'CMD ["{CUT}"]', "the line"),
        ("ARG A\nENV B=$A", "the line"), ("ARG A\nLABEL b=$A", "the line"),
    ],
)  # fmt: skip
def test_configuration_and_history_are_searched(cli: Cli, tmp_path: Path, instruction: str, place: str) -> None:
    made = context(tmp_path / "context", f"FROM scratch\nCOPY f /\n{instruction}\n", f="1")
    done = cli("build", "--secret", f"id=npm,src={tmp_path / 'secret'}", "--build-arg", f"A={VALUE}", "-t", "app", made)
    assert done.status == 1
    assert f"the value of secret 'npm' would be in the image: {place}" in done.err
    assert VALUE not in done.err
    assert not (cli.root / "index.json").exists() or cli.entries() == {}
    assert holders(cli.root, RAW) == []


@pytest.mark.parametrize("line", [f'ENV A="x {VALUE}"', f"# {VALUE}", f"RUN curl 'http://h/?k={quote_plus(VALUE)}'"])
def test_a_dockerfile_with_a_secret_is_refused(cli: Cli, tmp_path: Path, line: str) -> None:
    done = build(cli, context(tmp_path / "context", f"FROM scratch\nCOPY f /\n{line}\n", f="1"))
    assert done.status == 1
    assert "error: Dockerfile:3: the Dockerfile holds the value of secret 'npm'" in done.err


@pytest.mark.parametrize(
    ("instruction", "place"),
    [
        ("ARG A\nRUN true", "Dockerfile:5: the value of secret 'npm' would be in {said}: RUN.environment.A"),
        ("ARG A\nWORKDIR /$A", "Dockerfile:5: the value of secret 'npm' would be in {said}: WORKDIR.variables.A"),
        ("ARG A\nCOPY f /$A", "Dockerfile:5: the value of secret 'npm' would be in {said}: COPY.variables.A"),
    ],
)
def test_steps_of_other_stages_say_no_secret(cli: Cli, tmp_path: Path, instruction: str, place: str) -> None:
    """They are shown, recorded and in cache keys, though nothing of them is in the image."""
    text = f"FROM scratch AS other\nCOPY f /\n\n{instruction}\nFROM scratch\nCOPY --from=other /f /\n"
    done = build(cli, context(tmp_path / "context", text, f="1"), "--build-arg", f"A={VALUE}")
    assert done.status == 1
    assert place.format(said="the log, the build's record and the cache key") in done.err


@pytest.mark.parametrize(
    ("option", "place"),
    [("--label", "the configuration.config.Labels.k"), ("--annotation", "the annotations.k")],
)
def test_labels_and_annotations_are_searched(cli: Cli, tmp_path: Path, option: str, place: str) -> None:
    done = build(cli, context(tmp_path / "context", "FROM scratch\nCOPY f /\n", f="1"), option, f"k=a-{VALUE}")
    assert done.status == 1
    assert place in done.err


def test_annotations_of_an_output_are_searched(cli: Cli, tmp_path: Path) -> None:
    made = context(tmp_path / "context", "FROM scratch\nCOPY f /\n", f="1")
    done = build(cli, made, "-o", f"type=oci,dest={tmp_path / 'o.tar'},annotation.k={VALUE}")
    assert (done.status, (tmp_path / "o.tar").exists()) == (1, False)


@needs_sandbox
def test_what_a_step_prints_is_masked_everywhere(cli: Cli, tmp_path: Path) -> None:
    script = "echo a $T b; printf tok/en+s3c; sleep 0.1; printf 'r3t~0xC0FFEE?\\n' >&1; cat /run/secrets/npm >&2; false"
    made = busybox_context(tmp_path / "context", f"FROM base\n{MOUNT.strip()} --mount=type=secret,id=npm {script}\n")
    (made / "base/bin/printf").symlink_to("busybox")
    (made / "base/bin/false").symlink_to("busybox")
    done = build(cli, made)  # looks into the logs of the store as well
    assert done.status == 1
    assert "a *** b" in done.err
    last = done.err[done.err.index("last lines") :]
    assert "***" in last
    assert "the command ended with status 1" in done.err
    assert (
        "it also printed the value of secret 'npm' to its standard output and the value of secret 'npm' to" in done.err
    )


@needs_sandbox
def test_the_key_of_an_agent_is_a_secret(cli: Cli, tmp_path: Path) -> None:
    key = tmp_path / "id"
    made = subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], capture_output=True)
    if made.returncode:
        pytest.skip("ssh-keygen is missing")
    done = cli(
        "build", "--ssh", f"default={key}", context(tmp_path / "c", "FROM scratch\nCOPY id /\n", id=key.read_bytes())
    )
    assert done.status == 1
    assert f"the value of the SSH key {key} would be in the image: the content of /id" in done.err


@needs_sandbox
def test_cached_results_and_keys_do_not_depend_on_the_value(cli: Cli, tmp_path: Path) -> None:
    made = busybox_context(tmp_path / "context", f"FROM base\n{MOUNT}test -n $T && echo used > /out\n")
    first = build(cli, made)
    assert first.status == 0, first.err
    (tmp_path / "secret").write_text("another-value-9")
    second = cli("build", "--progress", "plain", "--secret", f"id=npm,src={tmp_path / 'secret'}", made)
    assert second.cached() == 2
    assert holders(cli.root, b"another-value-9") == []


@needs_sandbox
def test_a_secret_that_can_be_read_but_once(cli: Cli, tmp_path: Path) -> None:
    """Searching reads what a process substitution gives; the step must see it too."""
    made = busybox_context(tmp_path / "context", f"FROM base\n{MOUNT}test $T = {VALUE} && echo ok > /out\n")
    (made / "Dockerfile").write_text((made / "Dockerfile").read_text().replace(VALUE, VALUE[:-1] + "'?'"))
    read, write = os.pipe()
    os.write(write, RAW)
    os.close(write)
    with cli.start(
        "build", "--progress", "plain", "--secret", f"id=npm,src=/dev/fd/{read}", made, pass_fds=(read,)
    ) as p:
        os.close(read)
        assert p.wait(60) == 0, p.stderr and p.stderr.read().decode()


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_credentials_of_registries_are_in_no_debug_output(tmp_path: Path, kind: str) -> None:
    cli = Cli(tmp_path / "store", DOCKER_CONFIG=str(tmp_path))
    encoded = base64.b64encode(b"me:pa55w0rd-9").decode()
    with FakeRegistry(auth=kind, users={"me": "another"}, anonymous_pull=False) as registry:
        (tmp_path / "config.json").write_text(f'{{"auths": {{"{registry.host}": {{"auth": "{encoded}"}}}}}}')
        registry.add_image("app", "1")
        done = cli.spawn("pull", f"{registry.host}/app:1")
        debug = subprocess.run(
            [sys.executable, "-m", "builder", "--debug", *cli.arguments("pull", f"{registry.host}/app:1")],
            env=cli.environ, capture_output=True, text=True,
        )  # fmt: skip
        assert any(encoded in str(headers) for headers in registry.headers)  # they were tried
    assert (done.status, debug.returncode) == (1, 1)
    assert "Traceback" in debug.stderr
    for text in (done.err, debug.stderr):
        assert "pa55w0rd-9" not in text
        assert encoded not in text
