"""Many calls at once by the asynchronous client: they ride together, and each gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx2
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from harness import Proxy, Simulator, chat, marker

CALLS = 200


def client_for(proxy: Proxy, key: str) -> AsyncOpenAI:
    limits = httpx2.Limits(max_connections=CALLS * 2, max_keepalive_connections=CALLS)
    return proxy.async_openai(key=key, defer=True, http_client=DefaultAsyncHttpxClient(limits=limits, timeout=100))


async def test_two_hundred_calls_ride_in_at_most_two_batches(
    own_simulator: Simulator, start_proxy: Callable[..., Proxy]
) -> None:
    proxy = start_proxy(batching__idle="1s", flight__enabled="false")
    words = [marker() for _ in range(CALLS)]
    async with client_for(proxy, "sk-many") as client:
        answers = await asyncio.gather(*(client.chat.completions.create(**chat(f"say {word}")) for word in words))
    for word, answer in zip(words, answers, strict=True):
        text = answer.choices[0].message.content
        assert word in text, f"the answer to {word} is {text!r}"
        assert text.count("probe-") == text.count(word), f"somebody else's answer is in {text!r}"
    assert [word for word in words if own_simulator.executions(word) != 1] == []
    batches = own_simulator.batches()
    assert 1 <= len(batches) <= 2, batches
    assert sum(batch["request_counts"]["total"] for batch in batches) == CALLS


async def test_equal_calls_on_the_line_together_are_executed_each(
    own_simulator: Simulator, start_proxy: Callable[..., Proxy]
) -> None:
    """Sampling n answers by n calls must give n answers."""
    proxy = start_proxy()
    word = marker()
    async with client_for(proxy, "sk-many") as client:
        answers = await asyncio.gather(*(client.chat.completions.create(**chat(word)) for _ in range(5)))
    assert len({answer.id for answer in answers}) == 5
    assert own_simulator.executions(word) == 5


async def test_credentials_do_not_share_a_batch(own_simulator: Simulator, start_proxy: Callable[..., Proxy]) -> None:
    proxy = start_proxy(batching__idle="1s")
    words = {key: marker() for key in ("sk-one", "sk-two")}
    async with client_for(proxy, "sk-one") as one, client_for(proxy, "sk-two") as two:
        answers = await asyncio.gather(
            one.chat.completions.create(**chat(words["sk-one"])),
            two.chat.completions.create(**chat(words["sk-two"])),
        )
    assert [word in answer.choices[0].message.content for word, answer in zip(words.values(), answers)] == [True, True]
    assert len(own_simulator.batches()) == 2
