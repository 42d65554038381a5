"""`--progress rawjson`: BuildKit's stream of `SolveStatus` objects, one a line, with what this builder knows beside it.

Programs that read what `docker buildx build --progress=rawjson` writes read this (BuildKit, client/graph.go and
util/progress/progressui): `vertexes` are steps, `statuses` transfers, `logs` what steps write, `warnings` what checks
find. A vertex comes again, with the same `started`, whenever more is known of it. Bytes are in base64, times are those
of RFC 3339.

Ours, which those programs pass over:
- of a vertex `step` (its number, as in the build's record), `reason` (why it was not cached), `seconds`;
- of a status `outcome`; `total` is left out while it is not known;
- of a warning `text`, `rule` and `place` in plain text;
- `messages`, each with `text` and `timestamp`: what belongs to no step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

import msgspec

from builder.oci.spec import digest_of
from builder.progress import Event, Message, StepDone, StepMissed, StepOutput, StepStarted, Transfer, Warned

DEFINITION = "[internal] load build definition"
"""The vertex of warnings: BuildKit's displays pass over those that belong to none."""
TRANSFERS = "[internal] transfer blobs"
"""The vertex of pulls, pushes and exports, for the same reason."""

_Object = dict[str, Any]


class RawJsonView:
    """Writes the stream."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._vertexes: dict[str, _Object] = {}
        self._transfers: dict[str, _Object] = {}

    def __call__(self, event: Event) -> None:
        with self._lock:
            for status in self._statuses(event):
                self._out.write(_encode(status) + "\n")
            self._out.flush()

    def close(self) -> None:
        """End what is no step and has no other end."""
        with self._lock:
            for name in (DEFINITION, TRANSFERS):
                if name in self._vertexes:
                    self._out.write(_encode(self._known(name, completed=_now())) + "\n")
            self._out.flush()

    def _statuses(self, event: Event) -> Iterator[_Object]:
        if isinstance(event, StepStarted):
            yield self._begin(event.step, event.name, event.inputs)
        elif isinstance(event, StepMissed):
            yield self._known(event.step, reason=msgspec.to_builtins(event.reason))
        elif isinstance(event, StepOutput):
            log = {"vertex": self._digest(event.step), "stream": event.stream, "data": event.data}
            yield {"logs": [{**log, "timestamp": _now()}]}
        elif isinstance(event, StepDone):
            yield from self._end(event)
        elif isinstance(event, Transfer):
            yield from self._transfer(event)
        elif isinstance(event, Warned):
            if DEFINITION not in self._vertexes:
                yield self._begin(DEFINITION, DEFINITION)
            yield {"warnings": [_warning(event, self._digest(DEFINITION))]}
        elif isinstance(event, Message):
            yield {"messages": [{"text": event.text, "timestamp": _now()}]}

    def _begin(self, step: str, name: str, inputs: tuple[str, ...] = ()) -> _Object:
        vertex: _Object = {"digest": _digest_of(step, name)}
        known = [self._digest(one) for one in dict.fromkeys(inputs) if one in self._vertexes]
        if known:
            vertex["inputs"] = known
        vertex |= {"name": name, "started": _now()}
        if step not in (DEFINITION, TRANSFERS):
            vertex["step"] = step
        self._vertexes[step] = vertex
        return {"vertexes": [vertex]}

    def _known(self, step: str, **more: Any) -> _Object:
        """The vertex as it is now known."""
        self._vertexes[step] |= more
        return {"vertexes": [self._vertexes[step]]}

    def _digest(self, step: str) -> str:
        digest: str = self._vertexes[step]["digest"]
        return digest

    def _end(self, event: StepDone) -> Iterator[_Object]:
        if event.step not in self._vertexes:
            yield self._begin(event.step, event.name)
        more: _Object = {"completed": _now(), "seconds": event.seconds}
        if event.cached:
            more["cached"] = True
            self._vertexes[event.step].pop("reason", None)
        if event.error:
            more["error"] = event.error
        if event.reason is not None:
            more["reason"] = msgspec.to_builtins(event.reason)
        yield self._known(event.step, **more)

    def _transfer(self, event: Transfer) -> Iterator[_Object]:
        if TRANSFERS not in self._vertexes:
            yield self._begin(TRANSFERS, TRANSFERS)
        now = _now()
        known = self._transfers.setdefault(
            event.name, {"id": event.name, "vertex": self._digest(TRANSFERS), "started": now}
        )
        known |= {"current": event.done, "timestamp": now}
        if event.total >= 0:
            known["total"] = event.total
        if event.outcome:
            known["outcome"] = event.outcome
        if event.outcome or 0 <= event.total <= event.done:
            known.setdefault("completed", now)
        yield {"statuses": [known]}


def warnings(events: Iterable[Warned]) -> Any:
    """Warnings of a finished build in the stream's form, as plain data."""
    vertex = _digest_of(DEFINITION, DEFINITION)
    return msgspec.to_builtins([_warning(event, vertex) for event in events])


def _digest_of(step: str, name: str) -> str:
    return digest_of(f"{step} {name}".encode("utf-8", "surrogateescape"))


def _warning(event: Warned, vertex: str) -> _Object:
    """As BuildKit's checks are told of (linter.LintFormatShort): `RULE: text (line 7)`."""
    name, _, digits = (event.place or "").rpartition(":")
    line = int(digits) if name and digits.isdigit() else 0
    short = ": ".join(part for part in (event.rule, event.text) if part) + (f" (line {line})" if line else "")
    found: _Object = {"vertex": vertex, "level": 1, "short": _bytes(short)}
    if event.rule:
        from builder.plan.rules import find_rule

        explained = find_rule(event.rule)
        if explained is not None:
            found["detail"] = [_bytes(explained.description)]
        if explained is not None and explained.url:
            found["url"] = explained.url
    if line:
        found["sourceInfo"] = {"filename": name, "language": "Dockerfile"}
        found["range"] = [{"start": {"line": line}, "end": {"line": line}}]
    ours = {"text": event.text, "rule": event.rule, "place": event.place}
    return found | {key: value for key, value in ours.items() if value}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _encode(status: _Object) -> str:
    """JSON; bytes of names that are not UTF-8 as `\\\\udc80` to `\\\\udcff`, in text."""
    try:
        return msgspec.json.encode(status).decode()
    except UnicodeEncodeError:
        return msgspec.json.encode(_unicode(status)).decode()


def _unicode(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unicode(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_unicode(inner) for inner in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _now() -> str:
    seconds, fraction = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}Z"
