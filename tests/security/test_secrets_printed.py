"""A step that prints a secret fails; its value is in nothing that a build writes, whatever it is asked to write."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import textwrap
import threading
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import StepFailed
from builder.progress import Event, Warned
from builder.solver.secret_output import Masking, _overlap
from builder.solver.secrets import Guard, SecretLeak
from tests.support.builds import BASE, Cli, Done, busybox_context, context, needs_sandbox

VALUE = "tok/en+s3cr3t~0xC0FFEE?"
RAW = VALUE.encode()
LONG = b"-".join(hashlib.sha256(bytes([number])).hexdigest().encode() for number in range(4))
MOUNT = "RUN --mount=type=secret,id=npm,env=T --mount=type=secret,id=long,target=/long "
URL = VALUE.replace("/", "%%2F").replace("+", "%%2B").replace("?", "%%3F")
FORMS = (
    RAW, base64.b64encode(RAW), base64.urlsafe_b64encode(RAW), base64.b64encode(b"u:" + RAW)[3:-3],
    quote(VALUE, safe="").encode(), quote_plus(VALUE).lower().encode(), LONG[8:80], base64.b64encode(LONG)[100:150],
)  # fmt: skip


def masking(*values: bytes) -> Masking:
    return Masking(Guard({f"secret 's{number}'": partial(bytes, value) for number, value in enumerate(values)}))


def what(error: pytest.ExceptionInfo[SecretLeak]) -> str:
    return error.value.cause


@given(st.sampled_from(FORMS[:5]), st.binary(max_size=30), st.binary(max_size=30), st.data())
def test_what_is_masked_is_known(form: bytes, before: bytes, after: bytes, data: st.DataObject) -> None:
    """However the output is cut into pieces."""
    whole = before + form + after
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)))))
    found = masking(RAW)
    for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        found.feed(2, whole[a:b])
    with pytest.raises(SecretLeak) as error:
        found.check("step", (), print)
    assert what(error).startswith("the command printed the value of secret 's0'")
    assert what(error).endswith(" to its standard error")


@given(st.lists(st.sampled_from([b"tok/en", b"+s3cr3t", b"~0xC0FFEE", b"\n", b"x"])))
def test_what_is_not_masked_does_no_harm(parts: list[bytes]) -> None:
    found = masking(RAW)
    shown = b"".join(found.feed(1, part) for part in parts) + b"".join(rest for _, rest in found.finish())
    assert shown == b"".join(parts)
    found.check("step", (), print)


@given(st.text("ab", max_size=40), st.text("ab", min_size=1, max_size=40), st.data())
def test_the_beginning_of_a_secret_at_the_end_is_found(before: str, secret: str, data: st.DataObject) -> None:
    """The longest, but not the whole secret; also of one that repeats itself."""
    whole = (before + secret[: data.draw(st.integers(0, len(secret)))]).encode()
    value = secret.encode()
    expected = max(count for count in range(len(value)) if whole.endswith(value[:count]))
    assert _overlap(whole, value) == expected


def test_base64_in_lines_is_known() -> None:
    found = masking(LONG)
    for line in base64.encodebytes(LONG).splitlines(keepends=True):
        found.feed(1, line)
    with pytest.raises(SecretLeak, match=r"secret 's0' \(base64\) to its standard output"):
        found.check("step", (), print)


@given(st.integers(20, 200), st.sampled_from(["", "  ", "\t"]), st.sampled_from(["\n", "\r\n"]), st.data())
def test_all_of_a_long_secret_is_masked(width: int, indent: str, end: str, data: st.DataObject) -> None:
    """Not only what tells it from others: the rest of it would stand in the log."""
    key = b"-----BEGIN KEY-----\n" + b"\n".join(textwrap.wrap(LONG.decode(), 64)[n].encode() for n in range(4))
    encoded = base64.b64encode(data.draw(st.binary(max_size=5)) + LONG).decode()
    text = end.join(f"{indent}{line}" for line in textwrap.wrap(encoded, width)) + end
    text += "".join(f"{indent}{line.decode()}{end}" for line in key.splitlines())
    whole = f"begin {text} end".encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=9)))
    found = masking(LONG, key)
    shown = b"".join(found.feed(1, whole[a:b]) for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True))
    shown += b"".join(rest for _, rest in found.finish())
    assert shown.startswith(b"begin ")
    assert shown.endswith(b" end")
    assert len(shown) < 60, shown


def test_each_secret_is_named() -> None:
    found = masking(RAW, b"another-value-9")
    found.feed(1, RAW + b" another-value-9 " + RAW)
    found.feed(2, base64.b64encode(RAW))
    with pytest.raises(SecretLeak) as error:
        found.check("step", ("a *** b", "c", "***"), print)
    assert what(error).count("value of secret 's0'") == 2
    assert what(error).count("value of secret 's1'") == 1
    assert error.value.details == ("  it is masked in its output:", "    a *** b", "    ***")


def test_a_failure_says_it_too() -> None:
    found = masking(RAW)
    error = StepFailed("status 7")
    found.add_to(error)
    assert not error.details
    found.feed(1, RAW)
    found.add_to(error)
    assert error.cause == "status 7"
    assert "it also printed the value of secret 's0' to its standard output" in "".join(error.details)


def test_masked_output_can_be_accepted() -> None:
    guard = Guard({"secret 'a'": lambda: RAW}, lambda: True)
    found = Masking(guard)
    found.feed(1, RAW)
    events: list[Event] = []
    found.check("[1/1] RUN x", (), events.append)
    assert events == [
        Warned("[1/1] RUN x: the command printed the value of secret 'a' to its standard output; the log is masked")
    ]


def test_errors_that_follow_from_others_are_masked() -> None:
    """`--debug` shows them all."""
    guard = Guard({"secret 'a'": lambda: RAW})
    error = StepFailed("x", place=VALUE, remedy=f"a {VALUE}", details=(VALUE,))
    error.__cause__ = ValueError(f"no {VALUE}")
    guard.redact(error)
    assert (error.place, error.remedy, error.details) == ("***", "a ***", ("***",))
    assert str(error.__cause__) == "no ***"


# --- whole builds


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    (tmp_path / "npm").write_bytes(RAW + b"\n")
    (tmp_path / "long").write_bytes(LONG)
    return Cli(tmp_path / "store")


def given_secrets(cli: Cli) -> tuple[str, ...]:
    place = cli.root.parent
    return "--secret", f"id=npm,src={place / 'npm'}", "--secret", f"id=long,src={place / 'long'}"


def made(tmp_path: Path, commands: str) -> Path:
    source = busybox_context(tmp_path / "context", commands)
    for name in ("base64", "printf", "false", "head"):
        (source / "base/bin" / name).symlink_to("busybox")
    return source


def holders(place: Path) -> list[str]:
    """The files below a directory that hold a secret in some form, also inside of what gzip has compressed. Those with
    the secrets themselves are left out."""
    found = []
    for path in place.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.parent != place:
            data = path.read_bytes()
            if data[:2] == b"\x1f\x8b":
                data = gzip.GzipFile(fileobj=io.BytesIO(data)).read()
            found += [f"{path.relative_to(place)}: {form!r}" for form in FORMS if form in data or form in data.lower()]
    return found


def accept(cli: Cli) -> None:
    (cli.root.parent / "builder.toml").write_text('[secrets]\nprinted = "mask"\n')


PRINTED = {
    "raw": ("echo a $T b", "the value of secret 'npm' to its standard output", "a *** b"),
    "error": ("echo a $T b >&2", "the value of secret 'npm' to its standard error", "a *** b"),
    "base64": ("printf \"a:%s:b\" $T | base64", "the value of secret 'npm' (base64) to its standard output", "***"),
    "url": (f"printf 'http://h/?t={URL}\\n'", "the value of secret 'npm' (URL-encoded) to", "http://h/?t=***"),
    "pieces": ("printf tok/en+s3c; sleep 0.1; printf 'r3t~0xC0FFEE?\\n'", "the value of secret 'npm' to", "***"),
    "lines": ("base64 /long", "the value of secret 'long' (base64) to", "***"),
    "trace": ("set -x; true $T", "the value of secret 'npm' to its standard error", "***"),
}  # fmt: skip


@needs_sandbox
@pytest.mark.parametrize("way", PRINTED)
def test_a_step_that_prints_a_secret_fails(cli: Cli, tmp_path: Path, way: str) -> None:
    script, said, line = PRINTED[way]
    # What the words say in another encoding is no secret's value: the Dockerfile would be refused for that.
    words = script.replace("tok/en+s3c", "tok/en+s'3c'").replace("tok%%2Fen", "tok%%2Fe'n'")
    source = made(tmp_path, f"FROM base\nRUN echo before\n{MOUNT}{words}; echo after\n")
    for _ in range(2):  # nothing of it is cached
        done = cli("build", "--progress", "plain", *given_secrets(cli), source)
        assert done.status == 1
        assert f"error: Dockerfile:6: the command printed {said}" in done.err
        assert any(text.startswith("    ") and line in text and "***" in text for text in done.err.splitlines())
        assert "after" in done.err
        assert 'printed = "mask" below [secrets] in builder.toml' in done.err
        assert not any(form.decode("latin-1") in done.err for form in FORMS)
    assert holders(tmp_path) == []
    assert cli.leftovers() == []
    accept(cli)
    done = cli("build", "--progress", "plain", *given_secrets(cli), source)
    assert done.status == 0, done.err
    assert f"RUN --mount=type=secret,id=npm,env=T --mount=type=secret,id=long,target=/long {words}" in done.err
    assert f": the command printed {said}" in done.err
    assert "WARNING: " in done.err
    assert not any(form.decode("latin-1") in done.err for form in FORMS)
    assert holders(tmp_path) == []


@needs_sandbox
def test_a_secret_that_is_not_printed_is_no_matter(cli: Cli, tmp_path: Path) -> None:
    script = "test -n $T && echo tok/en && echo s3cr3t && wc -c < /long"
    done = cli("build", "--progress", "plain", *given_secrets(cli), made(tmp_path, f"FROM base\n{MOUNT}{script}\n"))
    assert (done.status, "WARNING" in done.err) == (0, False), done.err


def test_wrong_settings_are_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "builder.toml").write_text('[secrets]\nprinted = "show"\n')
    done = cli("pull", "127.0.0.1:1/x")
    assert done.status == 1
    assert "[secrets] has printed, fail or mask" in done.err


def test_a_value_that_is_too_short_is_told_of(cli: Cli, tmp_path: Path) -> None:
    for name, value in {"short": "s3cret", "word": "production\n", "empty": ""}.items():
        (tmp_path / name).write_text(value)
    words = [word for name in ("short", "word", "empty") for word in ("--secret", f"id={name},src={tmp_path / name}")]
    done = cli("build", *words, *given_secrets(cli), context(tmp_path / "c", "FROM scratch\nCOPY f /\n", f="1"))
    assert done.status == 0, done.err
    told = [line for line in done.err.splitlines() if "too short to be searched for" in line]
    assert [line.split("'")[1] for line in told] == ["short", "word"]


EVERYTHING = f"""\
{BASE}
FROM base AS other
{MOUNT}echo other $T
FROM base
LABEL a=b
{MOUNT}printf "a:%s:b" $T | base64; echo $T >&2
{MOUNT}cat /long; echo kept > /kept
COPY --from=other /bin/true /true
"""


@needs_sandbox
def test_no_account_of_a_build_has_a_secret(cli: Cli, tmp_path: Path) -> None:
    accept(cli)
    source = made(tmp_path, "")
    (source / "Dockerfile").write_text(EVERYTHING)
    out = tmp_path / "out"
    out.mkdir()
    options: tuple[str | Path, ...] = (
        "--report", out / "report.html", "--trace", out / "trace.json", "--metadata-file", out / "metadata.json",
        "--provenance", "mode=max", "--sbom", "true", "-o", f"type=oci,dest={out / 'image'},tar=false",
        "-o", "type=image", "-t", "app", "--cache-to", f"type=local,dest={out / 'cache'},mode=max",
    )  # fmt: skip
    texts: dict[str, Done] = {}
    for mode in ("rawjson", "plain"):
        texts[mode] = cli("build", "--no-cache", "--progress", mode, *given_secrets(cli), *options, source)
        assert texts[mode].status == 0, texts[mode].err
    assert (out / "image").is_dir()
    assert all((out / name).stat().st_size for name in ("report.html", "trace.json", "metadata.json"))
    questions: tuple[tuple[str | Path, ...], ...] = (
        ("explain",), ("explain", "--format", "json"), ("builds",), ("builds", "--format", "json"), ("history", "app"),
        ("inspect", "app"), ("layers", "app"), ("--debug", "build", *given_secrets(cli), source),
    )  # fmt: skip
    for words in questions:
        texts[" ".join(map(str, words[:3]))] = done = cli(*words)
        assert done.status in (0, 2), (words, done.err)
    (source / "Dockerfile").write_text(f"{EVERYTHING}{MOUNT}echo x $T; echo 1 > /one; cat /none-$T\n")
    texts["failed"] = cli("--debug", "build", "--on-error", "keep", *given_secrets(cli), source)
    assert texts["failed"].status == 1
    assert "the step is kept" in texts["failed"].err
    texts["kept"] = cli("debug", "--list")
    texts["diff"] = cli("debug", "--diff")
    assert b"A /one" in texts["diff"].out
    for name, done in texts.items():
        said = done.out + done.err.encode()
        assert [form for form in FORMS if form in said] == [], name
    assert holders(tmp_path) == []


def test_reasons_name_no_value_of_an_earlier_build(cli: Cli, tmp_path: Path) -> None:
    """It was an argument, and is a secret now."""
    source = context(tmp_path / "c", "FROM scratch\nARG A\nCOPY f /$A/\n", f="1")
    assert cli("build", "--build-arg", f"A={VALUE}", source).status == 0
    for mode in ("plain", "rawjson"):
        done = cli("build", "--progress", mode, *given_secrets(cli), "--build-arg", f"A={mode}", source)
        assert done.status == 0, done.err
        said = done.err + done.out.decode()
        assert "ARG A" in said
        assert VALUE not in said


@needs_sandbox
def test_the_state_of_a_step_with_a_secret_is_not_kept(cli: Cli, tmp_path: Path) -> None:
    source = made(tmp_path, f"FROM base\n{MOUNT}echo token=$T > /npmrc; exit 3\n")
    done = cli("build", "--progress", "plain", "--on-error", "keep", *given_secrets(cli), source)
    assert done.status == 1
    assert "status 3" in done.err
    assert (
        "the state of the step is not kept: the value of secret 'npm' would be in what is kept of the failed step:"
        " the content of /npmrc" in done.err
    )
    assert holders(tmp_path) == []


@needs_sandbox
def test_cache_mounts_are_searched_before_they_are_given_away(cli: Cli, tmp_path: Path) -> None:
    mount = MOUNT.replace("RUN ", "RUN --mount=type=cache,id=c,target=/c ")
    source = made(tmp_path, f"FROM base\n{mount}echo $T > /c/leak\n")
    target = f"type=local,dest={tmp_path / 'out'},mounts=c"
    done = cli("build", "--progress", "plain", *given_secrets(cli), "--cache-to", target, source)
    assert done.status == 1, done.err
    assert "would be in the cache, in the mount c: the content of /leak" in done.err
    assert not (tmp_path / "out/index.json").exists()


@needs_sandbox
def test_events_of_the_api_have_no_secret(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import builder

    monkeypatch.setenv("BUILDER_CONFIG", cli.environ["BUILDER_CONFIG"])
    source = made(tmp_path, f"FROM base\n{MOUNT}echo $T; echo $T | base64\n")
    events: list[Event] = []
    lock = threading.Lock()

    def on_event(event: Event) -> None:
        with lock:
            events.append(event)

    arguments: dict[str, Any] = {"secrets": {"npm": RAW, "long": LONG}, "on_event": on_event, "root": cli.root}
    with pytest.raises(builder.BuilderError, match="the command printed the value of secret 'npm'") as error:
        builder.build(source, **arguments)
    accept(cli)
    result = builder.build(source, **arguments)
    assert len(result.warnings) == 1
    said = repr((events, result, error.value, error.value.details)).encode()
    assert [form for form in FORMS if form in said] == []
    assert b"***" in said
    assert holders(tmp_path) == []
