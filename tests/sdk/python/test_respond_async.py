"""`Prefer: respond-async` and nightbus's own routes."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import pytest

from harness import ASYNC, DEFER, MODEL, ROUTES, Proxy, Simulator, chat, marker, result, submit, until

def test_202_then_the_result(proxy: Proxy, simulator: Simulator) -> None:
    word = marker()
    raw = proxy.openai().chat.completions.with_raw_response.create(
        **chat(f"say {word}"), extra_headers={**ASYNC, "x-nightbus-tag": "suite"}
    )
    assert raw.status_code == 202
    assert raw.headers["preference-applied"] == "respond-async"
    assert 0 < int(raw.headers["retry-after"]) <= 60
    request = raw.http_response.json()
    assert re.fullmatch(r"req_[0-9a-f]{32}", request["id"])
    assert raw.headers["x-nightbus-request-id"] == request["id"]
    assert request["object"] == "nightbus.request"
    assert request["state"] in ("queued", "submitted")
    assert (request["model"], request["endpoint"], request["tag"]) == (MODEL, "/v1/chat/completions", "suite")
    assert request["finished_at"] is None and request["created_at"] > 1_700_000_000
    with proxy.http() as http:
        answer = result(http, request)
        assert answer.status_code == 200
        assert answer.headers["x-nightbus-state"] == "completed"
        assert word in answer.json()["choices"][0]["message"]["content"]
        assert http.get(raw.headers["location"]).content == answer.content, "a second look gives the same"
        finished = http.get(f"{ROUTES}/requests/{request['id']}").json()
    assert finished["state"] == "completed" and finished["status_code"] == 200
    assert finished["service"] == "batch" and finished["batch_id"].startswith("bat_")
    assert finished["created_at"] <= finished["submitted_at"] <= finished["finished_at"]
    assert finished["usage"]
    assert simulator.executions(word) == 1


def test_long_poll(proxy: Proxy) -> None:
    word = marker()
    request = submit(proxy, word)
    with proxy.http() as http:
        answer = http.get(f"{ROUTES}/requests/{request['id']}/result", params={"wait": 30})
        assert answer.status_code == 200 and word in answer.text


def test_the_shape_that_xai_clients_poll(proxy: Proxy) -> None:
    word = marker()
    request = submit(proxy, word)
    with proxy.http() as http:

        def answer() -> httpx.Response | None:
            answer = http.get(f"/v1/chat/deferred-completion/{request['id']}")
            if answer.status_code == 202:
                assert answer.content == b""
                return None
            return answer

        found = until("the deferred completion", answer)
    assert found.status_code == 200 and word in found.json()["choices"][0]["message"]["content"]


def test_wait_gives_202_when_it_takes_longer(start_proxy: Callable[..., Proxy]) -> None:
    proxy = start_proxy(batching__idle="60s")
    headers = {**DEFER, "Prefer": "wait=1"}
    request = submit(proxy, marker(), headers)
    assert request["state"] == "queued"


def test_wait_gives_the_answer_when_it_is_quick(proxy: Proxy) -> None:
    word = marker()
    raw = proxy.openai().chat.completions.with_raw_response.create(
        **chat(word), extra_headers={**DEFER, "Prefer": "wait=50"}
    )
    assert raw.status_code == 200
    assert word in raw.parse().choices[0].message.content


def test_another_credential_sees_nothing(proxy: Proxy) -> None:
    request = submit(proxy, marker(), key="sk-owner")
    with proxy.http("sk-owner") as owner, proxy.http("sk-stranger") as stranger:
        assert result(owner, request).status_code == 200
        for answer in (
            stranger.get(f"{ROUTES}/requests/{request['id']}"),
            stranger.get(f"{ROUTES}/requests/{request['id']}/result"),
            stranger.delete(f"{ROUTES}/requests/{request['id']}"),
            stranger.get(f"/v1/chat/deferred-completion/{request['id']}"),
        ):
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "not_found"
        assert stranger.get(f"{ROUTES}/requests").json()["data"] == []


def test_list(proxy: Proxy) -> None:
    key = f"sk-{marker()}"
    made = [submit(proxy, marker(), {**ASYNC, "x-nightbus-tag": tag}, key)["id"] for tag in ("a", "b", "a")]
    newest_first = made[::-1]
    with proxy.http(key) as http:

        def ids(**query: str | int) -> list[str]:
            page = http.get(f"{ROUTES}/requests", params=query).raise_for_status().json()
            assert page["object"] == "list"
            return [request["id"] for request in page["data"]]

        assert ids() == newest_first
        assert ids(tag="a") == [made[2], made[0]]
        until("all are completed", lambda: ids(state="completed") == newest_first)
        assert ids(state="queued") == []
        page = http.get(f"{ROUTES}/requests", params={"limit": 2}).json()
        assert [request["id"] for request in page["data"]] == newest_first[:2] and page["has_more"] is True
        page = http.get(f"{ROUTES}/requests", params={"limit": 2, "after": page["next"]}).json()
        assert [request["id"] for request in page["data"]] == newest_first[2:] and page["has_more"] is False


def test_cancel(start_proxy: Callable[..., Proxy], own_simulator: Simulator) -> None:
    proxy = start_proxy(batching__idle="60s")
    word = marker()
    request = submit(proxy, word)
    with proxy.http() as http:
        cancelled = http.delete(f"{ROUTES}/requests/{request['id']}")
        assert cancelled.status_code == 200 and cancelled.json()["state"] == "cancelled"
        answer = http.get(f"{ROUTES}/requests/{request['id']}/result")
        assert answer.status_code == 410 and answer.json()["error"]["code"] == "cancelled"
        assert http.get(f"{ROUTES}/requests/{request['id']}").json()["state"] == "cancelled"
        http.post(f"{ROUTES}/flush").raise_for_status()
        later = submit(proxy, marker())
        http.post(f"{ROUTES}/flush").raise_for_status()
        assert result(http, later).status_code == 200
    assert own_simulator.executions(word) == 0


def test_cancel_is_too_late_in_a_batch(start_proxy: Callable[..., Proxy], own_simulator: Simulator) -> None:
    own_simulator.settings(batch_seconds=5)
    proxy = start_proxy()
    word = marker()
    request = submit(proxy, word)
    with proxy.http() as http:
        path = f"{ROUTES}/requests/{request['id']}"
        until("it is submitted", lambda: http.get(path).json()["state"] == "submitted")
        answer = http.delete(path)
        assert answer.status_code == 409 and answer.json()["error"]["code"] == "already_submitted"
        assert result(http, request).status_code == 200
    assert own_simulator.executions(word) == 1


def test_flush(start_proxy: Callable[..., Proxy]) -> None:
    proxy = start_proxy(batching__idle="60s")
    word = marker()
    request = submit(proxy, word)
    with proxy.http() as http:
        assert http.get(f"{ROUTES}/requests/{request['id']}").json()["state"] == "queued"
        http.post(f"{ROUTES}/flush").raise_for_status()
        answer = result(http, request)
    assert answer.status_code == 200 and word in answer.text


@pytest.mark.parametrize("path", ["/requests/req_0", "/requests/req_" + "0" * 32, "/requests/x/result", "/nothing"])
def test_routes_that_are_not_there(proxy: Proxy, path: str) -> None:
    with proxy.http() as http:
        answer = http.get(f"{ROUTES}{path}")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"
