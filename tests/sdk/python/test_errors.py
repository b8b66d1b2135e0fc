"""Errors reach the caller as the SDK's own exceptions, with the provider's words or nightbus's."""

from __future__ import annotations

import json

import openai
import pytest

from harness import DEFER, MODEL, Proxy, Simulator, chat, marker


def test_a_line_that_the_provider_refuses(proxy: Proxy, simulator: Simulator) -> None:
    """The deferred call raises what the live one raises; a neighbour in the same batch is not affected."""
    word, neighbour = marker(), marker()
    bad = chat(word, temperature=7)
    with pytest.raises(openai.BadRequestError) as live:
        proxy.openai().chat.completions.create(**bad)
    pending = proxy.openai().chat.completions.with_raw_response.create(
        **chat(neighbour), extra_headers={**DEFER, "Prefer": "respond-async"}
    )
    assert pending.status_code == 202
    with pytest.raises(openai.BadRequestError) as deferred:
        proxy.openai(defer=True).chat.completions.create(**bad)
    assert deferred.value.code == live.value.code
    assert deferred.value.type == live.value.type == "invalid_request_error"
    assert deferred.value.param == live.value.param
    assert deferred.value.body["message"] == live.value.body["message"]
    assert deferred.value.response.headers["x-nightbus-state"] == "completed"
    assert simulator.executions(word) == 0
    result = proxy.http().get(pending.headers["location"], params={"wait": 30})
    assert result.status_code == 200 and neighbour in result.text


def test_an_unknown_model(proxy: Proxy) -> None:
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as caught:
        proxy.openai(defer=True).chat.completions.create(**chat(marker(), model="no-such-model"))
    assert "no-such-model" in caught.value.message


def test_no_model(proxy: Proxy) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        proxy.openai(defer=True).post("/chat/completions", body={"messages": []}, cast_to=object)
    assert caught.value.code == "invalid_request"
    assert caught.value.type == "nightbus_error"
    assert "model" in caught.value.message
    assert caught.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("body", [b"{", b"", b"[]", b'{"model": 7, "messages": []}', b'{"model":"x"} {}', b"\xff\xfe"])
def test_a_deferred_body_that_is_no_request(proxy: Proxy, body: bytes) -> None:
    with proxy.http() as http:
        answer = http.post("/v1/chat/completions", content=body, headers={**DEFER, "content-type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("nightbus_error", "invalid_request")
    assert error["message"]


def test_a_live_error_is_the_providers_own(proxy: Proxy, simulator: Simulator) -> None:
    body = json.dumps({"model": MODEL}).encode()
    headers = {"authorization": "Bearer sk-suite", "content-type": "application/json"}
    direct = simulator.http.post("/v1/chat/completions", content=body, headers=headers)
    with proxy.http() as http:
        through = http.post("/v1/chat/completions", content=body, headers=headers)
    assert direct.status_code == through.status_code == 400
    assert through.content == direct.content
    assert not [name for name in through.headers if name.startswith("x-nightbus")]


@pytest.mark.parametrize(
    "headers",
    [
        {"x-nightbus-tag": "two words"},
        {"x-nightbus-deadline": "soon"},
        {"x-nightbus-fallback": "carrier-pigeon"},
    ],
)
def test_a_header_that_makes_no_sense(proxy: Proxy, simulator: Simulator, headers: dict[str, str]) -> None:
    word = marker()
    with pytest.raises(openai.BadRequestError) as caught:
        proxy.openai(defer=True).chat.completions.create(**chat(word), extra_headers=headers)
    assert caught.value.code == "invalid_request"
    assert next(iter(headers)) in caught.value.message
    assert simulator.executions(word) == 0


def test_a_web_page_may_not_spend(proxy: Proxy, simulator: Simulator) -> None:
    word = marker()
    with pytest.raises(openai.PermissionDeniedError) as caught:
        proxy.openai().chat.completions.create(**chat(word), extra_headers={"Origin": "https://example.com"})
    assert caught.value.code == "forbidden_origin"
    assert simulator.executions(word) == 0
