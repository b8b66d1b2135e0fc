"""What every Python driver shares: calls come in as JSON lines on standard input, outcomes go out as JSON lines.

A driver makes real calls with one client library and says what its caller would have seen: an answer, or an exception
with its class and status. It judges nothing. All calls of a driver run at the same time.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

Call = dict[str, Any]
Outcome = dict[str, Any]
Handler = Callable[[Call], Outcome] | Callable[[Call], Awaitable[Outcome]]


def answer(identity: str | None, message: Any, finish: Any = None, usage: Any = None) -> Outcome:
    """An answer: its id, what it says, why it ended, and what it cost."""
    return {"ok": True, "id": identity, "message": message, "finish": finish, "usage": usage}


def failure(error: BaseException, status: int | None = None, code: str | None = None) -> Outcome:
    """An exception as the caller saw it."""
    status = status if status is not None else getattr(error, "status_code", None)
    code = code if code is not None else getattr(error, "code", None)
    return {"ok": False, "type": type(error).__name__, "status": status, "code": code, "text": str(error)[:400]}


def run(handlers: dict[str, Handler]) -> None:
    """Serves calls until standard input ends. `handlers` are by the name of the client; a coroutine function runs on the
    loop, any other in a thread of its own."""
    asyncio.run(_serve(handlers))


async def _serve(handlers: dict[str, Handler]) -> None:
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, daemon=True).start()
    print(json.dumps({"ready": True}), flush=True)
    running: set[asyncio.Task[None]] = set()
    while (line := await lines.get()) is not None:
        task = asyncio.create_task(_one(handlers, json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)


async def _one(handlers: dict[str, Handler], call: Call) -> None:
    handler = handlers[call["client"]]
    try:
        if asyncio.iscoroutinefunction(handler):
            outcome = await handler(call)
        else:
            outcome = await _in_thread(handler, call)
    except Exception as error:  # noqa: BLE001: whatever a client raises is the outcome
        outcome = failure(error)
    print(json.dumps({"call": call["call"], **outcome}, default=str), flush=True)


async def _in_thread(handler: Handler, call: Call) -> Outcome:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def work() -> None:
        try:
            outcome = handler(call)
        except Exception as error:  # noqa: BLE001
            loop.call_soon_threadsafe(done.set_exception, error)
        else:
            loop.call_soon_threadsafe(done.set_result, outcome)

    threading.Thread(target=work, daemon=True).start()
    return await done


# --- rebuilding a streamed answer, for clients that know no API ---


class Broken(Exception):
    """A stream that said so itself, or that did not end as the API ends it."""

    def __init__(self, text: str, code: str | None = None) -> None:
        super().__init__(text)
        self.code = code


def rebuilt(text: str) -> Outcome:
    """The answer in a whole stream of chat chunks. Raises if it holds an error or does not end with `[DONE]`."""
    choices: dict[int, dict[str, Any]] = {}
    identity, usage, is_done = None, None, False
    for line in text.splitlines():
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            is_done = True
            continue
        event = json.loads(data)
        if event.get("error"):
            raise Broken(event["error"]["message"], event["error"].get("code"))
        identity, usage = event["id"], event.get("usage") or usage
        for part in event["choices"]:
            _add(choices.setdefault(part["index"], {"content": None, "refusal": None, "tools": {}}), part)
    if not is_done:
        raise Broken("the stream ended without [DONE]")
    messages = [
        {"content": choice["content"], "refusal": choice["refusal"], "tools": list(choice["tools"].values())}
        for _, choice in sorted(choices.items())
    ]
    return answer(identity, messages, [choice.get("finish") for _, choice in sorted(choices.items())], usage)


def _add(choice: dict[str, Any], part: dict[str, Any]) -> None:
    delta = part["delta"]
    for name in ("content", "refusal"):
        if delta.get(name) is not None:
            choice[name] = (choice[name] or "") + delta[name]
    for tool in delta.get("tool_calls") or []:
        known = choice["tools"].setdefault(tool["index"], ["", ""])
        known[0] += tool["function"].get("name") or ""
        known[1] += tool["function"].get("arguments") or ""
    if part.get("finish_reason"):
        choice["finish"] = part["finish_reason"]


def whole(body: dict[str, Any]) -> Outcome:
    """The answer in a chat completion that is not streamed, in the same form as [`rebuilt`]."""
    if body.get("error"):
        raise Broken(body["error"]["message"], body["error"].get("code"))
    messages = [
        {
            "content": choice["message"].get("content"),
            "refusal": choice["message"].get("refusal"),
            "tools": [
                [tool["function"]["name"], tool["function"]["arguments"]]
                for tool in choice["message"].get("tool_calls") or []
            ],
        }
        for choice in body["choices"]
    ]
    return answer(body["id"], messages, [choice["finish_reason"] for choice in body["choices"]], body.get("usage"))
