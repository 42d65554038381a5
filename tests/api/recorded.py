"""A made-up record of a build, with all kinds of steps and with text that wants to be more than text."""

from __future__ import annotations

from pathlib import Path

from builder.dockerfile.stage_graph import StageEdge, StageGraph, StageNode
from builder.progress import Reason, Warned
from builder.store.builds import CACHED, FAILED, NOT_NEEDED, RAN, Build, BuiltStep, Span
from builder.store.store import Store

HOSTILE = (
    "</pre></script></style><script>document.title='owned'</script><img src=x onerror=alert(1)>\"' &amp; {{ 7*7 }}"
)
LOG = b"one\r\n\x1b[32mgreen\x1b[0m \x1b]0;title\x07done\n10%\r100%\n\xff\x00" + HOSTILE.encode() + b"\n"
LONG = b"".join(b"line %d\n" % number for number in range(20_000)) + b"the last line"
STARTED = 1_700_000_000.0


def step(number: int, outcome: str, started: float, seconds: float, *needs: int, **more: object) -> BuiltStep:
    fields = {
        "step": str(number),
        "kind": "run",
        "name": f"[app {number}/4] RUN {HOSTILE}",
        "stage": "app",
        "instruction": f"RUN {HOSTILE}",
        "line": number,
        "needs": tuple(map(str, needs)),
        "outcome": outcome,
        "started": STARTED + started,
        "seconds": seconds,
        **more,
    }
    return BuiltStep(**fields)  # type: ignore[arg-type]


STEPS = (
    BuiltStep(step="0", kind="image", name="FROM x", stage="app", instruction="FROM x", outcome=CACHED),
    step(1, CACHED, 0.1, 0.01, 0),
    step(2, RAN, 0.2, 3.0, 1, queued=0.15, reason=Reason("files", f"{HOSTILE} changed"), log=len(LOG)),
    step(3, RAN, 0.2, 1.0, 1, log=len(LONG)),
    step(4, FAILED, 3.2, 0.5, 2, 3, error=f"it broke {HOSTILE}"),
    BuiltStep(name=f"[left] RUN {HOSTILE}", stage="left", instruction=f"RUN {HOSTILE}", line=6, outcome=NOT_NEEDED),
)
BUILD = Build(
    build="0123abcd",
    started=STARTED,
    seconds=4.0,
    outcome=FAILED,
    error=HOSTILE,
    project="p",
    context=HOSTILE,
    dockerfile="Dockerfile",
    names=("app:1",),
    warnings=(Warned(HOSTILE, "Dockerfile:2", "Rule"), Warned("about nothing in particular")),
    steps=STEPS,
    spans=(
        Span("debian:12 0123456789ab", STARTED + 0.3, 0.6, transfer=True, size=5_000_000),
        Span("debian:12 ba9876543210", STARTED + 0.4, 0.7, transfer=True, size=7_000_000, outcome="fetched"),
        Span("exporting the image", STARTED + 3.8, 0.2),
    ),
    text=f"FROM x AS app\nRUN one\n# {HOSTILE}\nRUN two\nFROM x AS left\nRUN three\n",
    stages=StageGraph(
        (StageNode("app", line=1), StageNode("left", line=5, needed=False), StageNode(HOSTILE, "image")),
        (StageEdge(2, 0, "from", 1), StageEdge(2, 1, "from", 5)),
    ),
)


def keep(root: Path, build: Build = BUILD) -> Store:
    """A store with the record and its logs; to be closed."""
    store = Store(str(root))
    recorder = store.builds.begin()
    recorder.log("2", LOG)
    recorder.log("3", LONG)
    recorder.finish(build)
    written = Path(recorder._path)
    final = written.with_name(f"{int(build.started * 1000):012x}-{build.build}")
    written.rename(final)
    written.with_suffix(".json").rename(final.with_suffix(".json"))
    return store
