"""Without root, where the system forbids user namespaces: one error, with the setting that allows them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from builder.cli import rootless
from builder.errors import Unsupported
from builder.sandbox.allowed import setting_to_change
from builder.solver import execute


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that stands for the kernel's settings."""
    monkeypatch.setattr("builder.sandbox.allowed._PLACE", str(tmp_path))
    for name in ("kernel", "user"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "value", "command"),
    [
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "0", ""),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
        ("user/max_user_namespaces", "1000", ""),
    ],
)
def test_settings(settings: Path, name: str, value: str, command: str) -> None:
    assert setting_to_change() == ""
    (settings / name).write_text(f"{value}\n")
    assert setting_to_change() == (f"sysctl -w {command}" if command else "")


@pytest.mark.parametrize("where", ["unshare", "map", "become"])
def test_what_apparmor_forbids(settings: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """On Ubuntu 24.04 the namespace can be made, and nothing can be done there."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    (settings / "kernel/apparmor_restrict_unprivileged_userns").write_text("1\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(rootless, "subordinate_ids", lambda _: None)
    monkeypatch.setattr(rootless, "unshare", refuse if where == "unshare" else lambda _: None)
    monkeypatch.setattr(rootless, "_write", refuse if where == "map" else lambda *_: None)
    monkeypatch.setattr(os, "setresgid", refuse)
    monkeypatch.setattr(os, "setresuid", refuse)
    with pytest.raises(Unsupported, match="Operation not permitted") as caught:
        rootless.become_root()
    assert "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0" in str(caught.value.remedy)


def test_what_run_says_of_it(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the namespace could be made, and a step's own cannot."""
    monkeypatch.setattr("builder.sandbox.namespaces.in_user_namespace", lambda: True)
    assert "builder doctor" in execute._what_is_needed()
    (settings / "kernel/apparmor_restrict_unprivileged_userns").write_text("1\n")
    assert "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0" in execute._what_is_needed()
