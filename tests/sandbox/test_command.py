"""Starting a command: status, output, user, directory, environment, and errors when it cannot be started."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.sandbox.client import STDERR, STDOUT, Sandbox
from builder.sandbox.command import Command, Mount, Result
from tests.sandbox.outcome import Run


def test_records_survive_the_way_to_the_helper() -> None:
    command = Command(("a",), upper="/u", work="/w", mounts=(Mount("/m", "tmpfs"),), ulimits=(("nofile", 1, 2),))
    assert Command.unpack(command.pack()) == command
    assert Result.unpack(Result(3).pack()) == Result(3)


@pytest.mark.parametrize("fields", [{"network": "bridge"}, {"security": "none"}])
def test_unknown_modes_are_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="there is no"):
        Command(("true",), upper="/u", work="/w", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [0, 7, 255])
def test_exit_status(run: Run, status: int) -> None:
    outcome = run(f"exit {status}")
    assert outcome.result.exit_status == status
    assert outcome.result.signal == 0
    assert outcome.result.error == ""


def test_signal_from_the_command_itself(run: Run) -> None:
    # Process 1 is immune to the signals of its own namespace that it does not handle, as in any container.
    assert run("sh -c 'kill -KILL $$'; exit $?").result.exit_status == 137
    assert run("kill -TERM $$; echo still here").out == "still here\n"


def test_streams_are_kept_apart(run: Run) -> None:
    outcome = run("echo out; echo err >&2; printf end")
    assert (outcome.out, outcome.err) == ("out\nend", "err\n")


def test_output_comes_as_it_is_written(sandbox: Sandbox, busybox: Path, overlay: object) -> None:
    import time

    assert callable(overlay)
    upper, work = overlay()
    times: list[float] = []
    command = Command(
        ("/bin/sh", "-c", "echo a; sleep 0.3; echo b"),
        lowers=(str(busybox),), upper=upper, work=work, environment=("PATH=/bin",),
    )  # fmt: skip
    sandbox.run(command, lambda stream, data: times.append(time.monotonic()))
    assert times[-1] - times[0] > 0.2


def test_a_lot_of_output_is_complete(run: Run) -> None:
    outcome = run("dd if=/dev/zero bs=65536 count=64 2>/dev/null | tr '\\0' x; dd if=/dev/zero bs=1000 count=9 >&2")
    assert len(outcome.out) == 64 * 65536
    assert len(outcome.err) > 9000


def test_an_exception_of_the_callback_ends_the_command(sandbox: Sandbox, busybox: Path, overlay: object) -> None:
    assert callable(overlay)
    upper, work = overlay()

    def fail(stream: int, data: bytes) -> None:
        raise KeyError(stream)

    command = Command(("/bin/sh", "-c", "echo x; sleep 60"), lowers=(str(busybox),), upper=upper, work=work)
    with pytest.raises(KeyError):
        sandbox.run(command, fail)


def test_standard_input_is_empty(run: Run) -> None:
    outcome = run("cat; readlink /proc/self/fd/0; test -t 0 || echo no terminal")
    assert outcome.lines == ["/dev/null", "no terminal"]


def test_it_is_process_1(run: Run) -> None:
    assert run("echo $$").out == "1\n"


def test_users_and_groups(run: Run) -> None:
    assert run("id -u; id -g; id -G").lines == ["0", "0", "0"]
    outcome = run("id -u; id -g; id -G", uid=1000, gid=50, groups=(50, 8, 99))
    assert outcome.lines == ["1000", "50", "50 8 99"]


def test_environment_is_exactly_what_was_given(run: Run) -> None:
    outcome = run(("/bin/env",), environment=("A=1", "B=x y=z", "EMPTY=", "UTF=é"))
    assert sorted(outcome.lines) == ["A=1", "B=x y=z", "EMPTY=", "UTF=é"]


def test_program_is_searched_in_its_own_path(run: Run) -> None:
    assert run(("true",)).result.exit_status == 0
    assert run(("echo", "a b", ""), environment=("PATH=/nowhere::/bin",)).out == "a b \n"


def test_umask_and_limits(run: Run) -> None:
    outcome = run("umask; ulimit -n; ulimit -c", ulimits=(("nofile", 64, 128), ("core", 0, 0)))
    assert outcome.lines == ["0022", "64", "0"]


def test_unknown_limit(run: Run) -> None:
    assert run("true", ulimits=(("fun", 1, 1),)).result.error == "there is no ulimit 'fun'"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("no-such-program",), 'exec: "no-such-program": executable file not found in $PATH'),
        (("/bin/none",), 'exec: "/bin/none": stat /bin/none: no such file or directory'),
        (("/etc",), 'exec: "/etc": is a directory'),
        (("/data",), 'exec: "/data": permission denied'),
        (("",), "exec: the name of the program is empty"),
        (("/bad",), "exec /bad: exec format error (neither a program for this machine nor a script"),
        (("/script",), "exec /script: no such file or directory (the interpreter or dynamic loader that it"),
    ],
)
def test_what_cannot_be_started(
    run: Run, busybox: Path, tmp_path: Path, arguments: tuple[str, ...], error: str
) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "data").write_text("x")
    (layer / "bad").write_text("x")
    (layer / "script").write_text("#!/no/interpreter\n")
    for name in ("bad", "script"):
        (layer / name).chmod(0o755)
    result = run(arguments, lowers=(str(layer), str(busybox))).result
    assert result.error.startswith(error)
    assert result.exit_status is None
    assert not result.setup_failed


def test_working_directory(run: Run) -> None:
    outcome = run("pwd; touch here", directory="/new/deep", uid=1000, gid=50)
    assert outcome.out == "/new/deep\n"
    assert outcome.changed() == ["new", "new/deep", "new/deep/here"]
    for name in ("new", "new/deep"):
        status = (outcome.upper / name).stat()
        assert (status.st_uid, status.st_gid) == (1000, 50)
    assert (outcome.upper / "new").stat().st_mode & 0o777 == 0o755


def test_working_directory_that_is_a_file(run: Run) -> None:
    assert run("pwd", directory="/bin/busybox").result.error == "working directory /bin/busybox: Not a directory"
    error = run("pwd", directory="/bin/busybox/x").result.error
    assert error == "/bin/busybox/x: what leads there is not a directory in the image"


def test_working_directory_with_a_mount_in_it_stays(run: Run, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    outcome = run("cat here/f", directory="/w", mounts=(Mount("/w/here", source=str(tmp_path)),))
    assert outcome.out == "x"
    assert outcome.changed() == ["w"]
    assert outcome.result.mount_points == ("/w/here",)


def test_working_directory_in_a_mount(run: Run) -> None:
    outcome = run("pwd; ls -ld . | sed 's/ .*//'", directory="/m/a/b", mounts=(Mount("/m", "tmpfs", read_only=False),))
    assert outcome.lines == ["/m/a/b", "drwxr-xr-x"]
    assert outcome.changed() == ["m", "m/a", "m/a/b"]  # as BuildKit, which makes it in the image first


def test_usage_is_measured(run: Run) -> None:
    result = run("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done").result
    # Neither bounds the other: part of what sets its process up is done before the command comes.
    assert result.duration > 0.01
    assert result.user_time > 0.01
    assert result.max_memory > 100_000


def test_streams_have_unix_numbers() -> None:
    assert (STDOUT, STDERR) == (1, 2)
