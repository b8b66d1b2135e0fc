"""openai-python talks to Claude: chat completions that a route sends to Anthropic's dialect, deferred and live."""

from __future__ import annotations

from collections.abc import Callable

import openai
import pytest

from harness import DEFER, Proxy, Simulator, marker

MODEL = "claude-haiku-5-5"
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TOOL = {
    "type": "function",
    "function": {
        "name": "note",
        "description": "d",
        "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
    },
}


@pytest.fixture
def claude(start_proxy: Callable[..., Proxy]) -> Proxy:
    return start_proxy(
        routes__0__model="claude-*",
        routes__0__provider="anthropic",
        providers__anthropic__api_key_env="NIGHTBUS_KEY_CLAUDE",
        key_claude="sk-ant-own",
    )


@pytest.mark.parametrize("defer", [True, False])
def test_text_and_image(claude: Proxy, own_simulator: Simulator, defer: bool) -> None:
    word = marker()
    content = [{"type": "text", "text": f"say {word}"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    answer = claude.openai(defer=defer).chat.completions.create(model=MODEL, messages=messages)
    assert word in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None and answer.usage.total_tokens > 0
    assert own_simulator.executions(word) == 1


@pytest.mark.parametrize("defer", [True, False])
def test_tools_there_and_back(claude: Proxy, defer: bool) -> None:
    client = claude.openai(defer=defer)
    messages: list[dict[str, object]] = [{"role": "user", "content": f"use the tool {marker()}"}]
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL], tool_choice="required")
    assert answer.choices[0].finish_reason == "tool_calls"
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "note" and call.function.arguments.startswith("{")
    messages += [answer.choices[0].message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "done"}]
    word = marker()
    messages.append({"role": "user", "content": f"say {word}"})
    again = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])
    assert word in (again.choices[0].message.content or "")


@pytest.mark.parametrize("defer", [True, False])
def test_streams(claude: Proxy, defer: bool) -> None:
    word = marker()
    stream = claude.openai(defer=defer).chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": f"say {word}"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    text, finish, usage = "", None, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    assert word in text and finish == "stop" and usage is not None and usage.prompt_tokens > 0


@pytest.mark.parametrize("headers", [DEFER, {}])
def test_what_cannot_be_mapped_names_its_field(claude: Proxy, headers: dict[str, str]) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        claude.openai().chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "x"}], n=2, extra_headers=headers
        )
    assert raised.value.param == "n"
