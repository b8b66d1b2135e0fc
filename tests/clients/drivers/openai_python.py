"""openai-python, any version: synchronous, asynchronous, and asynchronous on aiohttp."""

from __future__ import annotations

from typing import Any

import openai
from openai import AsyncOpenAI, DefaultAioHttpClient, OpenAI

import protocol
from protocol import Call, Outcome


class Shared:
    """One client of each kind for all calls, as its users should have it: a client holds a connection pool."""

    def __init__(self) -> None:
        self.made: dict[str, Any] = {}

    def client(self, kind: str, call: Call) -> Any:
        if kind not in self.made:
            base: dict[str, Any] = {"base_url": "http://127.0.0.1:1", "api_key": "none"}
            if kind == "sync":
                self.made[kind] = OpenAI(**base)
            else:
                more = {"http_client": DefaultAioHttpClient()} if kind == "aiohttp" else {}
                self.made[kind] = AsyncOpenAI(**base, **more)
        return self.made[kind].with_options(
            base_url=call["base_url"], api_key=call["key"], timeout=call["timeout"], default_headers=call["headers"]
        )


SHARED = Shared()


def sync(call: Call) -> Outcome:
    try:
        made = create(SHARED.client("sync", call), call)
        if call.get("stream"):
            return STREAMS[call["kind"]](list(made))
        return BODIES[call["kind"]](made)
    except openai.APIError as error:
        return protocol.failure(error)


async def asynchronous(call: Call) -> Outcome:
    return await on_loop(SHARED.client("async", call), call)


async def aiohttp(call: Call) -> Outcome:
    return await on_loop(SHARED.client("aiohttp", call), call)


async def on_loop(client: AsyncOpenAI, call: Call) -> Outcome:
    try:
        made = await create(client, call)
        if call.get("stream"):
            return STREAMS[call["kind"]]([event async for event in made])
        return BODIES[call["kind"]](made)
    except openai.APIError as error:
        return protocol.failure(error)


def create(client: Any, call: Call) -> Any:
    body = dict(call["body"])
    if call.get("stream"):
        body["stream"] = True
        if call["kind"] != "responses":
            body["stream_options"] = {"include_usage": True}
    resource = {"chat": client.chat.completions, "completions": client.completions, "responses": client.responses}
    return resource[call["kind"]].create(**body)


def chat_body(made: Any) -> Outcome:
    return protocol.whole(made.model_dump())


def chat_stream(chunks: list[Any]) -> Outcome:
    lines = [f"data: {chunk.model_dump_json()}" for chunk in chunks]
    # The SDK keeps `[DONE]` to itself.
    return protocol.rebuilt("\n".join([*lines, "data: [DONE]"]))


def text_body(made: Any) -> Outcome:
    choices = made.choices
    return protocol.answer(
        made.id, [c.text for c in choices], [c.finish_reason for c in choices], made.usage.model_dump()
    )


def text_stream(chunks: list[Any]) -> Outcome:
    texts: dict[int, str] = {}
    finish: dict[int, str] = {}
    usage = None
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            if choice.finish_reason:
                finish[choice.index] = choice.finish_reason
    ordered = [list(map(parts.get, sorted(texts))) for parts in (texts, finish)]
    return protocol.answer(chunks[-1].id, *ordered, usage.model_dump() if usage else None)


def response_body(made: Any) -> Outcome:
    items = [item.model_dump() for item in made.output]
    return protocol.answer(made.id, items, made.status, made.usage.model_dump())


def response_stream(events: list[Any]) -> Outcome:
    """The items as their own `done` events tell them, which must be those of the last event."""
    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(len(events))), numbers
    last = events[-1]
    if last.type in ("response.failed", "error"):
        error = last.response.error if last.type == "response.failed" else last
        raise protocol.Broken(error.message, error.code)
    items = [event.item.model_dump() for event in events if event.type == "response.output_item.done"]
    assert items == [item.model_dump() for item in last.response.output]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == last.response.output_text
    return protocol.answer(last.response.id, items, last.response.status, last.response.usage.model_dump())


BODIES = {"chat": chat_body, "completions": text_body, "responses": response_body}
STREAMS = {"chat": chat_stream, "completions": text_stream, "responses": response_stream}

protocol.run({"sync": sync, "async": asynchronous, "aiohttp": aiohttp})
