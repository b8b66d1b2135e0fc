"""What was accepted outlives the process: killed or asked to stop, the next start on the same data goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

import openai

from harness import ROUTES, Proxy, Simulator, chat, marker, result, submit, until


def test_killed_while_queued(own_simulator: Simulator, start_proxy: Callable[..., Proxy]) -> None:
    proxy = start_proxy(batching__idle="60s")
    words = [marker() for _ in range(5)]
    requests = [submit(proxy, word) for word in words]
    proxy.kill()
    assert [own_simulator.executions(word) for word in words] == [0] * 5
    proxy.start()
    with proxy.http() as http:
        for word, request in zip(words, requests):
            answer = result(http, request)
            assert answer.status_code == 200 and word in answer.text
    assert [own_simulator.executions(word) for word in words] == [1] * 5


def test_killed_while_submitted(own_simulator: Simulator, start_proxy: Callable[..., Proxy]) -> None:
    own_simulator.settings(batch_seconds=5)
    proxy = start_proxy()
    word = marker()
    request = submit(proxy, word)
    with proxy.http() as http:
        path = f"{ROUTES}/requests/{request['id']}"
        until("it is submitted", lambda: http.get(path).json()["state"] == "submitted")
    proxy.kill()
    proxy.start()
    with proxy.http() as http:
        answer = result(http, request)
        assert answer.status_code == 200 and word in answer.text
    assert own_simulator.executions(word) == 1
    assert len(own_simulator.batches()) == 1


def test_killed_at_any_moment(own_simulator: Simulator, start_proxy: Callable[..., Proxy]) -> None:
    """Again and again, wherever it happens to be; the answer comes once, from one execution."""
    own_simulator.settings(batch_seconds=0.5)
    proxy = start_proxy(batching__idle="100ms")
    asked: list[tuple[str, dict[str, object]]] = []
    for _ in range(8):
        word = marker()
        asked.append((word, submit(proxy, word)))
        proxy.kill()
        proxy.start(batching__idle="100ms")
    with proxy.http() as http:
        for word, request in asked:
            answer = result(http, request)
            assert answer.status_code == 200 and word in answer.text
    assert {word: own_simulator.executions(word) for word, _ in asked} == {word: 1 for word, _ in asked}


def test_finished_results_are_still_there(start_proxy: Callable[..., Proxy]) -> None:
    proxy = start_proxy()
    word = marker()
    request = submit(proxy, word)
    with proxy.http() as http:
        before = result(http, request).content
    proxy.kill()
    proxy.start()
    with proxy.http() as http:
        assert http.get(f"{ROUTES}/requests/{request['id']}/result").content == before


def test_sigterm_ends_with_0(start_proxy: Callable[..., Proxy]) -> None:
    assert start_proxy().terminate() == 0


def test_sigterm_lets_callers_go_and_keeps_their_requests(
    own_simulator: Simulator, start_proxy: Callable[..., Proxy]
) -> None:
    proxy = start_proxy(batching__idle="60s", shutdown__grace="1s")
    held, kept = marker(), marker()
    outcome: list[BaseException | object] = []

    def call() -> None:
        try:
            outcome.append(proxy.openai(key="sk-held", defer=True).chat.completions.create(**chat(held)))
        except openai.OpenAIError as error:
            outcome.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    request = submit(proxy, kept)
    with proxy.http("sk-held") as http:
        until("the call is held", lambda: http.get(f"{ROUTES}/requests").json()["data"])
    assert proxy.terminate() == 0
    caller.join(20)
    assert not caller.is_alive()
    assert isinstance(outcome[0], openai.OpenAIError), f"a stop was answered as a success: {outcome[0]!r}"
    proxy.start()
    with proxy.http() as http:
        answer = result(http, request)
    assert answer.status_code == 200 and kept in answer.text
    assert own_simulator.executions(kept) == 1
    assert own_simulator.executions(held) <= 1
