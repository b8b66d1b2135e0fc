"""LangChain's ChatOpenAI, synchronous and asynchronous."""

from __future__ import annotations

from typing import Any

import openai
from langchain_openai import ChatOpenAI

import protocol
from protocol import Call, Outcome


def model(call: Call) -> Any:
    """`chunks` sets no time-out but the one between two chunks of a stream; the others have the default."""
    body = call["body"]
    chunks = call["client"] == "chunks"
    chat = ChatOpenAI(
        model=body["model"],
        base_url=call["base_url"],
        api_key=call["key"],
        timeout=None if chunks else call["timeout"],
        default_headers=call["headers"],
        n=body.get("n"),
        stream_usage=True,
        # Otherwise it depends on the model and the tools.
        use_responses_api=False,
        **({"stream_chunk_timeout": call["timeout"]} if chunks else {}),
    )
    return chat.bind_tools(body["tools"], tool_choice="required") if body.get("tools") else chat


def told(message: Any) -> Outcome:
    tools = [[tool["name"], tool["args"]] for tool in message.tool_calls]
    said = [{"content": message.content, "refusal": message.additional_kwargs.get("refusal"), "tools": tools}]
    metadata = message.response_metadata
    return protocol.answer(message.id, said, metadata.get("finish_reason"), message.usage_metadata)


def messages(call: Call) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in call["body"]["messages"]]


def added(chunks: list[Any]) -> Any:
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return total


def sync(call: Call) -> Outcome:
    try:
        if call.get("stream"):
            return told(added(list(model(call).stream(messages(call)))))
        return told(model(call).invoke(messages(call)))
    except openai.APIError as error:
        return protocol.failure(error)


async def asynchronous(call: Call) -> Outcome:
    try:
        if call.get("stream"):
            return told(added([chunk async for chunk in model(call).astream(messages(call))]))
        return told(await model(call).ainvoke(messages(call)))
    except openai.APIError as error:
        return protocol.failure(error)


protocol.run({"sync": sync, "async": asynchronous, "chunks": asynchronous})
