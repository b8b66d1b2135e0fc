"""The LiteLLM SDK, synchronous and asynchronous."""

from __future__ import annotations

from typing import Any

import litellm
import openai

import protocol
from protocol import Call, Outcome

litellm.suppress_debug_info = True


def arguments(call: Call) -> dict[str, Any]:
    body = dict(call["body"])
    body["model"] = f"openai/{body['model']}"
    if call.get("stream"):
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return {
        **body,
        "api_base": call["base_url"],
        "api_key": call["key"],
        "timeout": call["timeout"],
        "extra_headers": call["headers"],
        # It does not know the model, and would refuse what it does not know to be supported.
        "allowed_openai_params": ["tools", "tool_choice"],
    }


def told(made: Any) -> Outcome:
    told = protocol.whole(made.model_dump())
    # The details are LiteLLM's own, and others when it has put a stream together.
    totals = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {**told, "usage": {name: told["usage"][name] for name in totals}}


def failed(error: openai.APIError) -> Outcome:
    """LiteLLM's classes carry a status always; the code stands in the message only."""
    codes = ("queue_full", "shutting_down", "idempotency_mismatch")
    code = next((code for code in codes if code in str(error)), None)
    if isinstance(error, litellm.ContextWindowExceededError):
        code = "context_length_exceeded"
    return protocol.failure(error, code=code)


def sync(call: Call) -> Outcome:
    try:
        made = litellm.completion(**arguments(call))
        if call.get("stream"):
            made = litellm.stream_chunk_builder(list(made))
        return told(made)
    except openai.APIError as error:
        return failed(error)


async def asynchronous(call: Call) -> Outcome:
    try:
        made = await litellm.acompletion(**arguments(call))
        if call.get("stream"):
            made = litellm.stream_chunk_builder([chunk async for chunk in made])
        return told(made)
    except openai.APIError as error:
        return failed(error)


protocol.run({"sync": sync, "async": asynchronous})
