"""Errors reach the caller as the SDK's own exceptions, with the provider's words or nightbus's."""

from __future__ import annotations

import json

import openai
import pytest

from harness import DEFER, MODEL, Proxy, Simulator, chat, marker, result, submit


@pytest.mark.parametrize(
    ("text", "more", "code", "param"),
    [
        ("fail-400", {}, "context_length_exceeded", "messages"),
        ("", {"temperature": 7}, "invalid_value", "temperature"),
    ],
)
def test_a_line_that_the_provider_refuses(
    proxy: Proxy, simulator: Simulator, text: str, more: dict[str, object], code: str, param: str
) -> None:
    """The deferred call raises what the live one raises; a neighbour in the same batch is not affected."""
    word, neighbour = marker(), marker()
    bad = chat(f"{text} {word}", **more)
    with pytest.raises(openai.BadRequestError) as live:
        proxy.openai().chat.completions.create(**bad)
    request = submit(proxy, neighbour)
    with pytest.raises(openai.BadRequestError) as deferred:
        proxy.openai(defer=True).chat.completions.create(**bad)
    assert (deferred.value.code, deferred.value.type, deferred.value.param) == (code, "invalid_request_error", param)
    assert deferred.value.body == live.value.body, "every word is the provider's"
    assert deferred.value.response.headers["x-nightbus-state"] == "completed"
    assert simulator.executions(word) == 0
    with proxy.http() as http:
        answer = result(http, request)
    assert answer.status_code == 200 and neighbour in answer.text


def test_a_model_that_does_not_exist(proxy: Proxy) -> None:
    with pytest.raises(openai.NotFoundError) as live:
        proxy.openai().chat.completions.create(**chat(marker(), model="missing-model"))
    with pytest.raises(openai.APIStatusError) as deferred:
        proxy.openai(defer=True).chat.completions.create(**chat(marker(), model="missing-model"))
    assert live.value.code == "model_not_found"
    assert 400 <= deferred.value.status_code < 500, "a retry would not help"
    assert deferred.value.code == "model_not_found"
    assert "missing-model" in deferred.value.message


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
