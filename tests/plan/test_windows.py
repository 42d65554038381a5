"""Stages for Windows: files can be carried to it and from it, and that is all."""

from __future__ import annotations

import pytest

from builder.errors import PlanError
from builder.plan.locate import Locator
from builder.plan.windows import refuse_windows
from tests.plan.support import config, make_plan

WINDOWS = "windows/amd64"
IMAGE = "this stage stands on an image for Windows"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("FROM nano", 1, IMAGE),
        ('FROM nano\nENTRYPOINT ["a.exe"]', 1, IMAGE),
        ("FROM nano\nCOPY a /", 2, IMAGE),
        ("FROM nano AS base\nFROM base\nWORKDIR C:\\app", 3, IMAGE),
        ("FROM nano AS base\nCOPY a /\nFROM scratch\nCOPY --from=base /a /", 2, IMAGE),
        ("FROM scratch\nCOPY a /\nRUN a", 3, "RUN is not supported for windows/amd64"),
        ("FROM scratch\nWORKDIR /a", 2, "WORKDIR is not supported for windows/amd64"),
        ("FROM scratch\nCOPY a C:\\app\\", 2, "is a path of Windows"),
        ("# escape=`\nFROM scratch\nADD a \\app\\", 3, "is a path of Windows"),
        ("FROM scratch\nARG to=c:/app\nCOPY a $to", 3, "is a path of Windows"),
    ],
)
def test_refused(text: str, line: int, message: str) -> None:
    planned, _ = make_plan({"dockerfile": text, "platforms": [WINDOWS]})
    with pytest.raises(PlanError, match=message) as caught:
        refuse_windows(planned, Locator("Dockerfile", text))
    assert caught.value.place == f"Dockerfile:{line}"
    assert caught.value.remedy


def test_an_image_for_windows_that_nobody_asked_for() -> None:
    text = "FROM nano\nENV A=1"
    planned, _ = make_plan({"dockerfile": text, "os": {"nano": "windows"}})
    with pytest.raises(PlanError, match=IMAGE):
        refuse_windows(planned, Locator("Dockerfile", text))


@pytest.mark.parametrize(
    "text",
    [
        'FROM scratch\nCOPY a /dir/\nENTRYPOINT ["a.exe"]',
        "FROM --platform=$BUILDPLATFORM golang AS build\nWORKDIR /go\nRUN a\nFROM scratch\nCOPY --from=build /out /",
        "FROM nano AS nano\nENV A=1\nFROM --platform=linux/amd64 busybox AS app\nRUN --mount=from=nano,target=/n a\n"
        "FROM scratch\nCOPY --from=nano /Files/a /\nCOPY --from=app /b /\nCOPY --from=other /c /",
    ],
)
def test_files_are_carried(text: str) -> None:
    planned, _ = make_plan({"dockerfile": text, "platforms": [WINDOWS]})
    refuse_windows(planned, Locator("Dockerfile", text))


def test_windows_sets_the_path_itself() -> None:
    planned, _ = make_plan({"dockerfile": "FROM scratch\nCMD a.exe /x", "platforms": [WINDOWS]})
    assert "Env" not in config(planned)
    assert config(planned)["Cmd"] == ["cmd", "/S", "/C", "a.exe /x"]
    planned, _ = make_plan({"dockerfile": "FROM files\nENV A=1", "contexts": {"files": {}}, "platforms": [WINDOWS]})
    assert config(planned)["Env"] == ["A=1"]
