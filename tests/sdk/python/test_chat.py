"""Chat completions by openai-python: the three ways to mark a call, and what a marked call gives back."""

from __future__ import annotations

import json
import re

import pytest
from openai import BadRequestError

from harness import DEFER, MODEL, Proxy, Simulator, chat, marker


def test_the_header_defers(proxy: Proxy, simulator: Simulator) -> None:
    word = marker()
    raw = proxy.openai().chat.completions.with_raw_response.create(**chat(f"say {word}"), extra_headers=DEFER)
    assert raw.status_code == 200
    assert raw.headers["content-type"].startswith("application/json")
    assert re.fullmatch(r"req_[0-9a-f]{32}", raw.headers["x-nightbus-request-id"])
    assert re.fullmatch(r"bat_[0-9a-f]{32}", raw.headers["x-nightbus-batch-id"])
    assert raw.headers["x-nightbus-state"] == "completed"
    assert raw.headers["x-nightbus-service"] == "batch"
    assert int(raw.headers["x-nightbus-wait-ms"]) >= 0
    completion = raw.parse()
    assert completion.object == "chat.completion"
    assert word in completion.choices[0].message.content
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None and completion.usage.total_tokens > 0
    assert simulator.executions(word) == 1


def test_a_header_for_the_whole_client_defers(proxy: Proxy, simulator: Simulator) -> None:
    word = marker()
    completion = proxy.openai(defer=True).chat.completions.create(**chat(word))
    assert word in completion.choices[0].message.content
    assert simulator.executions(word) == 1


def test_the_environment_defers(proxy: Proxy, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The opt-in that needs no change of the program."""
    from openai import OpenAI

    monkeypatch.setenv("OPENAI_BASE_URL", f"{proxy.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-suite")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-nightbus-defer: true")
    word = marker()
    raw = OpenAI(max_retries=0).chat.completions.with_raw_response.create(**chat(word))
    assert raw.headers["x-nightbus-service"] == "batch"
    assert word in raw.parse().choices[0].message.content
    assert simulator.executions(word) == 1


def test_the_base_url_defers(proxy: Proxy, simulator: Simulator) -> None:
    word = marker()
    raw = proxy.openai("/batch/v1").chat.completions.with_raw_response.create(**chat(word))
    assert raw.headers["x-nightbus-service"] == "batch"
    assert word in raw.parse().choices[0].message.content
    assert simulator.executions(word) == 1


def test_the_model_suffix_defers(proxy: Proxy, simulator: Simulator) -> None:
    word = marker()
    raw = proxy.openai().chat.completions.with_raw_response.create(**chat(word, model=f"{MODEL}:batch"))
    assert raw.headers["x-nightbus-service"] == "batch"
    completion = raw.parse()
    assert completion.model == MODEL, "the suffix must not reach the provider"
    assert word in completion.choices[0].message.content
    assert simulator.executions(word) == 1


def test_the_header_beats_the_base_url(proxy: Proxy) -> None:
    word = marker()
    raw = proxy.openai("/batch/v1").chat.completions.with_raw_response.create(
        **chat(word), extra_headers={"x-nightbus-defer": "false"}
    )
    assert "x-nightbus-request-id" not in raw.headers
    assert word in raw.parse().choices[0].message.content


def test_a_mark_that_says_nothing_is_refused(proxy: Proxy, simulator: Simulator) -> None:
    word = marker()
    with pytest.raises(BadRequestError) as caught:
        proxy.openai().chat.completions.create(**chat(word), extra_headers={"x-nightbus-defer": "perhaps"})
    assert caught.value.code == "invalid_request"
    assert "x-nightbus-defer" in caught.value.message
    assert simulator.executions(word) == 0


def test_tools(proxy: Proxy, simulator: Simulator) -> None:
    word = marker()
    tool = {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Looks a word up.",
            "parameters": {
                "type": "object",
                "properties": {"word": {"type": "string"}},
                "required": ["word"],
                "additionalProperties": False,
            },
        },
    }
    choice = {"type": "function", "function": {"name": "look_up"}}
    completion = proxy.openai(defer=True).chat.completions.create(**chat(word, tools=[tool], tool_choice=choice))
    assert completion.choices[0].finish_reason in ("tool_calls", "stop")
    call = completion.choices[0].message.tool_calls[0]
    assert call.type == "function" and call.function.name == "look_up"
    assert isinstance(json.loads(call.function.arguments), dict)
    assert simulator.executions(word) == 1


def test_a_marked_stream_is_answered_as_a_stream(proxy: Proxy, simulator: Simulator) -> None:
    word = marker()
    stream = proxy.openai(defer=True).chat.completions.create(
        **chat(f"say {word}"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert stream.response.headers["content-type"].startswith("text/event-stream")
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert word in text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    assert simulator.executions(word) == 1
