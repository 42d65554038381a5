from __future__ import annotations

import pytest

from builder.places import configuration_files, default_root


def test_default_root(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_root({"BUILDER_ROOT": "/x"}) == "/x"
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_root({"HOME": "/root"}) == "/var/lib/builder"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert default_root({"HOME": "/home/u"}) == "/home/u/.local/share/builder"
    assert default_root({"HOME": "/home/u", "XDG_DATA_HOME": "/d"}) == "/d/builder"
    assert default_root({"HOME": "/home/u", "XDG_DATA_HOME": "relative"}) == "/home/u/.local/share/builder"


def test_configuration_files() -> None:
    assert configuration_files({"HOME": "/home/u"})[1] == "/home/u/.config/builder/builder.toml"
    assert configuration_files({"HOME": "/home/u", "XDG_CONFIG_HOME": "/c"})[1] == "/c/builder/builder.toml"
    assert configuration_files({"BUILDER_CONFIG": "/x.toml"}) == ("/x.toml",)
    assert len(configuration_files({"HOME": "/home/u", "BUILDER_CONFIG": ""})) == 2
