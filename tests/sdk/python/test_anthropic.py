"""Messages by anthropic-python: marked, streamed, with tools, held for longer than the client's own timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anthropic
import httpx
import pytest

from harness import DEFER, Proxy, Simulator, marker, message

TOOL = {"name": "note", "description": "d", "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}}}


def test_the_header_defers(proxy: Proxy, simulator: Simulator) -> None:
    word = marker()
    raw = proxy.anthropic().messages.with_raw_response.create(**message(f"say {word}"), extra_headers=DEFER)
    assert raw.status_code == 200
    assert raw.headers["x-nightbus-service"] == "batch"
    answer = raw.parse()
    assert answer.type == "message" and answer.stop_reason == "end_turn"
    assert word in answer.content[0].text
    assert answer.usage.service_tier == "batch"
    assert simulator.executions(word) == 1


def test_the_base_url_defers(proxy: Proxy, simulator: Simulator) -> None:
    word = marker()
    raw = proxy.anthropic("/batch").messages.with_raw_response.create(**message(word))
    assert raw.headers["x-nightbus-service"] == "batch"
    assert simulator.executions(word) == 1


def test_the_environment_defers(proxy: Proxy, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", proxy.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-suite")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-nightbus-defer: true")
    word = marker()
    raw = anthropic.Anthropic(max_retries=0).messages.with_raw_response.create(**message(word))
    assert raw.headers["x-nightbus-service"] == "batch"
    assert simulator.executions(word) == 1


def test_an_unmarked_call_is_live(proxy: Proxy) -> None:
    raw = proxy.anthropic().messages.with_raw_response.create(**message("hello"))
    assert "x-nightbus-state" not in raw.headers
    assert raw.parse().usage.service_tier == "standard"
    assert proxy.anthropic(defer=True).messages.count_tokens(**without_limit(message("hello"))).input_tokens > 0


def without_limit(call: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in call.items() if name != "max_tokens"}


def test_a_stream_is_put_together_by_the_sdk(proxy: Proxy, simulator: Simulator) -> None:
    word = marker()
    call = message(f"say {word} é \"quoted\"", thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048)
    with proxy.anthropic(defer=True).messages.stream(**call) as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_message()
    assert kinds[-1] == "message_stop" and "content_block_delta" in kinds
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.content[0].signature and word in answer.content[1].text
    assert answer.stop_reason == "end_turn" and answer.usage.output_tokens > 1
    assert simulator.executions(word) == 1


def test_tools_in_json_and_in_a_stream(proxy: Proxy) -> None:
    client, word = proxy.anthropic(defer=True), marker()
    call = message(f"use the tool {word}", tools=[TOOL])
    answer = client.messages.create(**call)
    assert answer.stop_reason == "tool_use"
    assert word in answer.content[0].input["text"]
    with client.messages.stream(**call, extra_headers={"x-nightbus-tag": "streamed"}) as stream:
        streamed = stream.get_final_message()
    assert streamed.stop_reason == "tool_use" and streamed.content[0].input == answer.content[0].input


def test_server_tools_and_citations_survive(proxy: Proxy) -> None:
    client, call = proxy.anthropic(defer=True), message("sim-search for the bus")
    answer = client.messages.create(**call)
    with client.messages.stream(**call) as stream:
        streamed = stream.get_final_message()
    shape = [block.type for block in answer.content]
    assert shape == ["server_tool_use", "web_search_tool_result", "text"]
    assert [block.type for block in streamed.content] == shape
    assert streamed.content[0].input == answer.content[0].input
    assert streamed.content[2].citations == answer.content[2].citations


def test_errors_raise_what_the_live_call_raises(proxy: Proxy) -> None:
    client = proxy.anthropic(defer=True)
    with pytest.raises(anthropic.BadRequestError) as refused:
        client.messages.create(**message("fail-400"))
    assert refused.value.body["error"]["type"] == "invalid_request_error"
    with pytest.raises(anthropic.APIStatusError), client.messages.stream(**message("fail-400, streamed")) as stream:
        stream.get_final_message()
    with pytest.raises(anthropic.BadRequestError) as own:
        client.messages.create(**message("x"), extra_headers={"x-nightbus-deadline": "yesterday"})
    assert own.value.body["error"]["code"] == "invalid_request"


async def test_many_calls_share_a_batch(own_simulator: Simulator, start_proxy: Callable[..., Proxy]) -> None:
    proxy = start_proxy(batching__idle="1s")
    words = [marker() for _ in range(40)]
    async with proxy.async_anthropic(defer=True) as client:
        answers = await asyncio.gather(*(client.messages.create(**message(f"say {word}")) for word in words))
    for word, answer in zip(words, answers, strict=True):
        assert word in answer.content[0].text
    assert [word for word in words if own_simulator.executions(word) != 1] == []
    assert 1 <= len(own_simulator.batches()) <= 2


@pytest.mark.parametrize("streamed", [False, True])
def test_held_beyond_the_clients_own_timeout(
    own_simulator: Simulator, start_proxy: Callable[..., Proxy], streamed: bool
) -> None:
    """The batch takes several times as long as the client would wait for silence."""
    own_simulator.settings(batch_seconds=9)
    proxy = start_proxy(hold__heartbeat="1s")
    client, word = proxy.anthropic(defer=True, timeout=3), marker()
    if streamed:
        with client.messages.stream(**message(word)) as stream:
            answer = stream.get_final_message()
    else:
        answer = client.messages.create(**message(word))
    assert word in answer.content[0].text
    assert own_simulator.executions(word) == 1


def test_a_retry_after_a_crash_finds_its_request(own_simulator: Simulator, start_proxy: Callable[..., Proxy]) -> None:
    own_simulator.settings(batch_seconds=4)
    proxy, word = start_proxy(), marker()
    headers = {"authorization": "Bearer sk-suite", "anthropic-version": "2023-06-01", **DEFER}
    with pytest.raises(httpx.TimeoutException):
        httpx.post(f"{proxy.url}/v1/messages", json=message(word), headers=headers, timeout=1.5, trust_env=False)
    proxy.kill()
    proxy.start()
    answer = httpx.post(f"{proxy.url}/v1/messages", json=message(word), headers=headers, timeout=60, trust_env=False)
    assert answer.status_code == 200 and word in answer.json()["content"][0]["text"]
    assert own_simulator.executions(word) == 1
