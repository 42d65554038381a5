"""A build as a Chrome trace."""

from __future__ import annotations

import json
from itertools import groupby, pairwise
from typing import Any

import pytest

from builder.api.trace import trace_of
from tests.api.recorded import BUILD, HOSTILE


@pytest.fixture
def events() -> list[dict[str, Any]]:
    document = json.loads(trace_of(BUILD))
    assert document["otherData"]["build"] == "0123abcd"
    found: list[dict[str, Any]] = document["traceEvents"]
    return found


def test_steps_transfers_and_work(events: list[dict[str, Any]]) -> None:
    complete = [event for event in events if event["ph"] == "X"]
    assert [event["cat"] for event in complete] == ["cached", "ran", "ran", "failed", "work", "transfer", "transfer"]
    ran = complete[1]
    assert (ran["ts"], ran["dur"]) == (200_000, 3_000_000)  # microseconds, from the build's beginning
    assert ran["args"] == {
        "instruction": f"RUN {HOSTILE}",
        "outcome": "ran",
        "queued": 0.15,
        "line": 2,
        "because": f"{HOSTILE} changed",
        "critical": True,
    }
    assert complete[2]["args"]["critical"] is False
    assert complete[6]["args"] == {"bytes": 7_000_000, "outcome": "fetched"}
    assert {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"} == {
        1: "steps", 2: "outputs and other work", 3: "transfers",
    }  # fmt: skip


def test_nothing_overlaps_on_a_thread(events: list[dict[str, Any]]) -> None:
    def thread(event: dict[str, Any]) -> tuple[int, int]:
        return event["pid"], event["tid"]

    complete = sorted(
        (event for event in events if event["ph"] == "X"), key=lambda event: (*thread(event), event["ts"])
    )
    assert len({thread(event) for event in complete}) == 5
    for _, group in groupby(complete, key=thread):
        on_one = list(group)
        for one, two in pairwise(on_one):
            assert one["ts"] + one["dur"] <= two["ts"]


def test_flows_lead_from_a_step_to_what_is_made_from_it(events: list[dict[str, Any]]) -> None:
    flows = [event for event in events if event["ph"] in "sf"]
    assert [event["ph"] for event in flows] == ["s", "f"] * 4
    starts = {event["id"]: event["ts"] for event in flows if event["ph"] == "s"}
    assert all(starts[event["id"]] <= event["ts"] for event in flows if event["ph"] == "f")
