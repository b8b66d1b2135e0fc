"""The situations, played with every client at the same time. What comes out is one word or two for each cell.

A cell says what happened; what must never happen (a second execution, a failure told as a success, the answer of
somebody else) raises, and then stands in the cell as what it is.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients import CLIENTS, Client
from relay import Relay
import stage
from stage import KEY, MODEL, Driver, Nginx, Stage, marker, until

# The client's own time-out, and how long the batch takes.
TIMEOUT, BATCH_SECONDS = 5.0, 12.0
PATIENT = 120.0
MOST_RUNS = 12
CELL_SECONDS = 180.0
# What a script needs to start. Within milliseconds the relay may not have handed on the old connection's end, and an equal
# call without a mark is then a second call (docs/clients.md).
RERUN_SECONDS = 0.5
FULL = 40
DEFER = {"x-nightbus-defer": "true"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a town.",
            "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
        },
    }
]
counter = itertools.count(1)
# (title of the client, situation) -> what was seen, or the exception.
Seen = dict[tuple[str, str], str | BaseException]


class Wrong(Exception):
    """Something that must never happen."""


@dataclass
class Stages:
    """What runs."""

    folder: Path
    main: Stage = field(init=False)
    silent: Stage = field(init=False)
    slow: Stage = field(init=False)
    full: Stage = field(init=False)
    restarted: Stage = field(init=False)
    nginx: Nginx = field(init=False)
    drivers: dict[str, Driver] = field(default_factory=dict)
    doomed: dict[str, Driver] = field(default_factory=dict)

    def all(self) -> list[Stage]:
        return [self.main, self.silent, self.slow, self.full, self.restarted]

    async def start(self) -> None:
        soon = {"hold__commit_after": "1s", "hold__heartbeat": "1s"}
        self.main = Stage(self.folder / "main", BATCH_SECONDS, **soon)
        self.silent = Stage(self.folder / "silent", BATCH_SECONDS)
        # For a peer that gives up after 10 s of silence: both well below that.
        self.slow = Stage(self.folder / "slow", 40, hold__commit_after="4s", hold__heartbeat="4s")
        self.full = Stage(
            self.folder / "full", 2, limits__max_queued_requests=str(FULL), batching__idle="10m", batching__max_age="10m"
        )
        # Not before all clients are there and nightbus was restarted.
        self.restarted = Stage(self.folder / "restarted", 3600, hold__commit_after="5m")
        await asyncio.gather(*(each.start() for each in self.all()))
        self.nginx = Nginx(self.folder / "nginx", self.slow.url)
        await self.nginx.start()
        for name in dict.fromkeys(client.driver for client in CLIENTS):
            log = self.folder / f"driver-{name.replace('/', '-')}.log"
            self.drivers[name], self.doomed[name] = Driver(name, log), Driver(name, log)
        await asyncio.gather(*(each.start() for each in [*self.drivers.values(), *self.doomed.values()]))

    async def stop(self) -> None:
        """Also what was only half started."""
        for each in [*self.drivers.values(), *self.doomed.values()]:
            await each.kill()
        if hasattr(self, "nginx"):
            await self.nginx.stop()
        for each in self.all():
            await each.stop()


@dataclass
class Cell:
    """One client in one situation, with a wire and a tag of its own."""

    client: Client
    stages: Stages
    stage: Stage
    relay: Relay
    tag: str
    probe: str = field(default_factory=marker)

    @classmethod
    async def on(cls, client: Client, stages: Stages, on: Stage, port: int | None = None) -> Cell:
        relay = await Relay(("127.0.0.1", port or on.port)).start()
        return cls(client, stages, on, relay, f"cell-{next(counter)}")

    def call(self, text: str = "", driver: Driver | None = None, **more: Any) -> Awaitable[dict[str, Any]]:
        """The one call of this cell; `more` changes the call, `body` adds to its body."""
        kind = more.get("kind", "chat")
        words = f"{self.probe} {text}".strip()
        body = {"model": MODEL, **(more.pop("body", None) or {})}
        match kind:
            case "chat":
                body["messages"] = [{"role": "user", "content": words}]
            case "completions":
                body["prompt"] = words
            case "responses":
                body["input"] = words
        headers = {**DEFER, "x-nightbus-tag": self.tag, **more.pop("headers", {})}
        call = {"kind": kind, "body": body, "headers": headers, "timeout": TIMEOUT, **more}
        call |= {"client": self.client.name, "base_url": f"http://127.0.0.1:{self.relay.port}/v1", "key": KEY}
        driver = driver or self.stages.drivers[self.client.driver]
        return asyncio.wait_for(driver.call(**call), 200)

    async def runs(self, text: str = "", **more: Any) -> list[dict[str, Any]]:
        """Calls until there is an answer or a true error, as somebody who runs a script again would."""
        outcomes: list[dict[str, Any]] = []
        while len(outcomes) < MOST_RUNS:
            outcomes.append(await self.call(text, **more))
            if outcomes[-1]["ok"] or is_true(outcomes[-1]):
                return outcomes
            await asyncio.sleep(RERUN_SECONDS)
        raise Wrong(f"no end after {MOST_RUNS} runs: {outcomes[-1]}")

    async def executed(self, times: int) -> None:
        """Executions of the call so far, counted by the provider."""
        found = await asyncio.to_thread(self.stage.executions, self.probe)
        if found != times:
            raise Wrong(f"executed {found} times instead of {times}")

    async def requests(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self.stage.requests, self.tag)

    async def is_one_request(self) -> None:
        if (found := len(await self.requests())) != 1:
            raise Wrong(f"{found} requests instead of 1")

    def is_mine(self, outcome: dict[str, Any]) -> None:
        if not outcome["ok"] or self.probe not in str(outcome["message"]):
            raise Wrong(f"not the answer of this call: {outcome}")


def is_true(outcome: dict[str, Any]) -> bool:
    """The provider's own error, with its status (an event of a stream has none) and code."""
    return outcome["code"] == "context_length_exceeded" and outcome["status"] in (400, None)


def told(cell: Cell, outcomes: list[dict[str, Any]]) -> str:
    """What a caller saw who got an answer in the end."""
    cell.is_mine(outcomes[-1])
    if len(outcomes) > 1:
        return "re-run attaches"
    return "answer (1 arrival)" if cell.relay.arrivals == 1 else "retry attaches"


def told_failure(outcomes: list[dict[str, Any]]) -> str:
    """What a caller saw whose line failed."""
    if any(outcome["ok"] for outcome in outcomes):
        raise Wrong(f"a failure was told as a success: {outcomes[-1]}")
    return "true error" if len(outcomes) == 1 else "cut off, re-run: true error"


# --- the situations ---


async def held(client: Client, stages: Stages, stream: bool = False, silent: bool = False) -> str:
    cell = await Cell.on(client, stages, stages.silent if silent else stages.main)
    with tracing(cell):
        outcomes = await cell.runs(stream=stream)
        await cell.executed(1)
        return told(cell, outcomes)


async def late_failure(client: Client, stages: Stages, stream: bool) -> str:
    """Of each kind of call that the client makes; all are told in the same way."""

    async def one(kind: str) -> str:
        cell = await Cell.on(client, stages, stages.main)
        with tracing(cell):
            outcomes = await cell.runs("fail-400", stream=stream, kind=kind)
            await cell.executed(0)
            await cell.is_one_request()
            return told_failure(outcomes)

    told_as = dict(zip(client.kinds, await asyncio.gather(*map(one, client.kinds)), strict=True))
    if len(set(told_as.values())) != 1:
        raise Wrong(f"the kinds differ: {told_as}")
    return told_as["chat"]


async def five_equal(client: Client, stages: Stages) -> str:
    """All five run into their time-out (if the client has one that can be run into)."""
    cell = await Cell.on(client, stages, stages.silent)
    with tracing(cell):
        results = await asyncio.gather(*(cell.runs() for _ in range(5)))
        for outcomes in results:
            cell.is_mine(outcomes[-1])
        await cell.executed(5)
        identities = {outcomes[-1]["id"] for outcomes in results}
        # LangChain and LiteLLM may show an id of their own.
        if len(identities) != 5:
            raise Wrong(f"{len(identities)} different answers instead of 5")
        return "5 answers"


async def same_message(client: Client, stages: Stages) -> str:
    """Each kind of answer, streamed and not."""
    plans: list[tuple[str, dict[str, Any]]] = [("", {}), ("sim-length", {}), ("", {"body": {"tools": TOOLS, "tool_choice": "required"}})]
    if client.refusals:
        plans.append(("sim-refuse", {}))
    if client.choices:
        plans.append(("", {"body": {"n": 3}}))
    for kind in set(client.kinds) - {"chat"}:
        plans += [("", {"kind": kind}), ("sim-length", {"kind": kind})]
    if "responses" in client.kinds:
        flat = [{"type": "function", **TOOLS[0]["function"]}]  # type: ignore[dict-item]
        plans += [("", {"kind": "responses", "body": {"tools": flat, "tool_choice": "required"}}), ("sim-refuse", {"kind": "responses"})]

    async def one(text: str, more: dict[str, Any]) -> None:
        cell = await Cell.on(client, stages, stages.main)
        with tracing(cell):
            ways = [cell.call(text, timeout=PATIENT, stream=stream, **copied(more)) for stream in (False, True)]
            plain, streamed = await asyncio.gather(*ways)
            for outcome in (plain, streamed):
                if not outcome["ok"]:
                    raise Wrong(f"{more} {text}: {outcome}")
            plain, streamed = (without_ids(outcome) for outcome in (plain, streamed))
            for name in ("message", "finish", "usage"):
                if plain[name] != streamed[name]:
                    raise Wrong(f"{more} {text}: {name}\nplain    {plain[name]}\nstreamed {streamed[name]}")
            if not plain["usage"] or cell.probe not in str(plain["message"]) and "sim-refuse" not in text:
                raise Wrong(f"{more} {text}: {plain}")
            await cell.executed(2)

    await asyncio.gather(*(one(*plan) for plan in plans))
    return "same message"


async def killed(client: Client, stages: Stages) -> str:
    """The process is killed with all its calls on the line, and the same call is made by a new one."""
    cell = await Cell.on(client, stages, stages.main)
    with tracing(cell):
        first = asyncio.ensure_future(cell.call(timeout=PATIENT, driver=stages.doomed[client.driver]))
        arrived = lambda: stages.main.requests(cell.tag)  # noqa: E731
        await Gates.doomed[client.driver].through("the call has arrived", arrived)
        await asyncio.gather(first, return_exceptions=True)
        if not first.cancelled():
            raise Wrong("the call ended before the process")
        await until("the connection is closed", lambda: cell.relay.open == 0)
        cell.is_mine(await cell.call(timeout=PATIENT))
        await cell.executed(1)
        await cell.is_one_request()
        return "re-run attaches"


async def same_key(client: Client, stages: Stages) -> str:
    """Two at a time, one more afterwards, and one with another body."""
    cell = await Cell.on(client, stages, stages.main)
    with tracing(cell):
        headers = {"idempotency-key": cell.tag + cell.probe}
        both = await asyncio.gather(*(cell.call(timeout=PATIENT, headers=headers) for _ in range(2)))
        later = await cell.call(timeout=PATIENT, headers=headers)
        for outcome in (*both, later):
            cell.is_mine(outcome)
        if len({str(outcome["message"]) for outcome in (*both, later)}) != 1:
            raise Wrong("different answers for one key")
        other = await cell.call("something else", timeout=PATIENT, headers=headers)
        if other["ok"] or other["status"] != 422 or other["code"] != "idempotency_mismatch":
            raise Wrong(f"the key was taken for another body: {other}")
        await cell.executed(1)
        return "1 request, else 422"


async def behind_nginx(client: Client, stages: Stages, tuned: bool) -> str:
    """A call of 40 s through a peer that gives up after 10 s of silence."""
    port = stages.nginx.tuned if tuned else stages.nginx.plain
    cell = await Cell.on(client, stages, stages.slow, port)
    with tracing(cell):
        outcomes = await cell.runs(timeout=PATIENT)
        await cell.executed(1)
        return told(cell, outcomes)


async def fails_behind_nginx(client: Client, stages: Stages, tuned: bool) -> str:
    port = stages.nginx.tuned if tuned else stages.nginx.plain
    cell = await Cell.on(client, stages, stages.slow, port)
    with tracing(cell):
        outcomes = await cell.runs("fail-400", timeout=PATIENT)
        await cell.is_one_request()
        return told_failure(outcomes)


async def queue_full(client: Client, stages: Stages) -> str:
    """429 with `Retry-After`; the queue is empty when a client comes back."""
    cell = await Cell.on(client, stages, stages.full)
    with tracing(cell):
        await Gates.filled.wait()
        first = asyncio.ensure_future(cell.call(timeout=PATIENT))
        await Gates.refused.through("the call is refused", lambda: 429 in cell.relay.statuses)
        outcomes = [await first]
        if not outcomes[0]["ok"]:
            if (outcomes[0]["status"], outcomes[0]["code"]) != (429, "queue_full"):
                raise Wrong(f"the refusal is not seen as one: {outcomes[0]}")
            cell.is_mine(await cell.call(timeout=PATIENT))
        await cell.executed(1)
        if not outcomes[0]["ok"]:
            return "true error"
        cell.is_mine(outcomes[0])
        return "answer (2 arrivals)" if cell.relay.arrivals == 2 else "answer after retries"


async def restart(client: Client, stages: Stages) -> str:
    """SIGTERM and a new start while the call is held."""
    cell = await Cell.on(client, stages, stages.restarted)
    with tracing(cell):
        outcomes = [asyncio.ensure_future(cell.call(timeout=PATIENT))]
        at_provider = lambda: submitted(stages.restarted.requests(cell.tag))  # noqa: E731
        await Gates.submitted.through("the call is with the provider", at_provider)
        results = [await outcomes[0]]
        if not results[0]["ok"]:
            if results[0]["status"] not in (503, None):
                raise Wrong(f"neither 503 nor a broken connection: {results[0]}")
            results.append(await cell.call(timeout=PATIENT))
        await cell.executed(1)
        return told(cell, results)


def submitted(requests: list[dict[str, Any]]) -> bool:
    return bool(requests) and all(request["state"] == "submitted" for request in requests)


class Gate:
    """Opens when every client of the situation has come, or has failed on the way."""

    def __init__(self, parties: int) -> None:
        self.missing = parties
        self.all_here = asyncio.Event()
        self.opened = asyncio.Event()

    def come(self) -> None:
        self.missing -= 1
        if self.missing == 0:
            self.all_here.set()

    async def through(self, what: str, check: Callable[[], Any]) -> None:
        """Comes when `check` gives something, and waits until the gate is open."""
        try:
            await until(what, check)
        finally:
            self.come()
        await self.opened.wait()


class Gates:
    """What the situations wait for that need all clients at once."""

    filled: asyncio.Event
    refused: Gate
    submitted: Gate
    doomed: dict[str, Gate]

    @classmethod
    def reset(cls) -> None:
        cls.filled = asyncio.Event()
        cls.refused, cls.submitted = Gate(len(CLIENTS)), Gate(len(CLIENTS))
        drivers = [client.driver for client in CLIENTS]
        cls.doomed = {driver: Gate(drivers.count(driver)) for driver in drivers}


async def kill_when_full(stages: Stages, driver: str) -> None:
    """Kills a driver once the calls of all its clients have arrived."""
    await Gates.doomed[driver].all_here.wait()
    await stages.doomed[driver].kill()
    Gates.doomed[driver].opened.set()


async def fill_and_empty(stages: Stages) -> None:
    """The queue of the `full` stage: full until every client was refused, then taken away twice."""

    def fill() -> None:
        for number in range(FULL):
            body = {"model": MODEL, "messages": [{"role": "user", "content": f"filler {number}"}]}
            stage.get(f"{stages.full.url}/v1/chat/completions", KEY, body, {**DEFER, "prefer": "respond-async"})

    await asyncio.to_thread(fill)
    Gates.filled.set()
    await Gates.refused.all_here.wait()
    await asyncio.to_thread(stages.full.flush)
    Gates.refused.opened.set()
    while True:
        await asyncio.sleep(1)
        await asyncio.to_thread(stages.full.flush)


async def restart_once(stages: Stages) -> None:
    await Gates.submitted.all_here.wait()
    await stages.restarted.proxy.terminate()
    await stages.restarted.start_proxy()
    await asyncio.to_thread(stages.restarted.end_batches_after, 40)
    Gates.submitted.opened.set()


def copied(more: dict[str, Any]) -> dict[str, Any]:
    return {name: dict(value) if isinstance(value, dict) else value for name, value in more.items()}


def without_ids(value: Any) -> Any:
    """Two executions of one call differ in their ids, and their bodies in white space where `stream` was."""
    if isinstance(value, dict):
        return {k: without_ids(v) for k, v in value.items() if k not in ("id", "call_id")}
    if isinstance(value, str):
        # The simulator's hash of the body, as it was written.
        return re.sub(r"\[[0-9a-f]{8}\]", "[]", value)
    return [without_ids(each) for each in value] if isinstance(value, list) else value


class tracing:
    """Puts what was on the wire beside an error, and closes the wire."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            error.add_note(self.cell.relay.trace())


SITUATIONS: dict[str, tuple[str, Callable[[Client, Stages], Awaitable[str]], set[str]]] = {
    "held": (
        "held past its time-out",
        held,
        {"answer (1 arrival)", "retry attaches", "re-run attaches"},
    ),
    "held-stream": (
        "the same, streamed",
        lambda c, s: held(c, s, stream=True),
        {"answer (1 arrival)", "retry attaches", "re-run attaches"},
    ),
    "silent": (
        "its time-out is shorter than `hold.commit_after`",
        lambda c, s: held(c, s, silent=True),
        {"answer (1 arrival)", "retry attaches", "re-run attaches"},
    ),
    "late": (
        "fails late",
        lambda c, s: late_failure(c, s, stream=False),
        {"true error", "cut off, re-run: true error"},
    ),
    "late-stream": (
        "the same, streamed",
        lambda c, s: late_failure(c, s, stream=True),
        {"true error", "cut off, re-run: true error"},
    ),
    "five": ("five equal calls at once, past their time-out", five_equal, {"5 answers"}),
    "same": ("streamed or not", same_message, {"same message"}),
    "killed": ("killed and run again", killed, {"re-run attaches"}),
    "key": ("`Idempotency-Key`", same_key, {"1 request, else 422"}),
    "nginx-plain": (
        "40 s behind nginx (HTTP/1.0)",
        lambda c, s: behind_nginx(c, s, tuned=False),
        {"answer (1 arrival)", "retry attaches", "re-run attaches"},
    ),
    "nginx-tuned": (
        "40 s behind nginx (HTTP/1.1)",
        lambda c, s: behind_nginx(c, s, tuned=True),
        {"answer (1 arrival)", "retry attaches"},
    ),
    "nginx-plain-late": (
        "fails late behind nginx (HTTP/1.0)",
        lambda c, s: fails_behind_nginx(c, s, tuned=False),
        {"true error", "cut off, re-run: true error"},
    ),
    "nginx-tuned-late": (
        "fails late behind nginx (HTTP/1.1)",
        lambda c, s: fails_behind_nginx(c, s, tuned=True),
        {"true error", "cut off, re-run: true error"},
    ),
    "full": ("queue full: 429", queue_full, {"answer (2 arrivals)", "true error"}),
    "restart": ("nightbus is restarted", restart, {"retry attaches", "re-run attaches"}),
}


TIMED = {"held", "held-stream", "silent", "late", "late-stream", "five"}


async def in_time(cell: Awaitable[str]) -> str:
    """A cell that hangs is a finding, not the end of the suite."""
    async with asyncio.timeout(CELL_SECONDS):
        return await cell


async def play(folder: Path, only: Callable[[Client, str], bool] = lambda _client, _situation: True) -> Seen:
    """All clients at once."""
    Gates.reset()
    stages = Stages(folder)
    try:
        await stages.start()
        alone = [asyncio.create_task(fill_and_empty(stages)), asyncio.create_task(restart_once(stages))]
        alone += [asyncio.create_task(kill_when_full(stages, driver)) for driver in stages.doomed]
        seen: Seen = {}
        # Those in which a client's own clock runs are played first, with the machine to themselves.
        for wave in (TIMED, SITUATIONS.keys() - TIMED):
            keys = [(client, name) for client in CLIENTS for name in SITUATIONS if name in wave and only(client, name)]
            cells = (in_time(SITUATIONS[name][1](client, stages)) for client, name in keys)
            results = await asyncio.gather(*cells, return_exceptions=True)
            seen |= {(client.title, name): result for (client, name), result in zip(keys, results, strict=True)}
        for task in alone:
            task.cancel()
        return seen
    finally:
        await stages.stop()
