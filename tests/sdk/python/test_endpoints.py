"""The other endpoints that can be batched. A deferred answer is compared with the live one to the same call."""

from __future__ import annotations

import pytest

from harness import DEFER, MODEL, Proxy, Simulator, marker

EMBEDDING_MODEL = "text-embedding-3-small"


def test_embeddings_default_encoding(proxy: Proxy, simulator: Simulator) -> None:
    """The SDK asks for base64 unless told otherwise, and decodes it."""
    word = marker()
    raw = proxy.openai().embeddings.with_raw_response.create(model=EMBEDDING_MODEL, input=word, extra_headers=DEFER)
    assert raw.headers["x-nightbus-service"] == "batch"
    assert isinstance(raw.http_response.json()["data"][0]["embedding"], str), "base64 must stay base64"
    deferred = raw.parse()
    assert simulator.executions(word) == 1
    live = proxy.openai().embeddings.create(model=EMBEDDING_MODEL, input=word)
    assert len(deferred.data[0].embedding) == 1536
    assert all(isinstance(value, float) for value in deferred.data[0].embedding)
    assert deferred.data[0].embedding == live.data[0].embedding


def test_embeddings_as_floats(proxy: Proxy, simulator: Simulator) -> None:
    words = [marker(), marker()]
    call = {"model": EMBEDDING_MODEL, "input": words, "encoding_format": "float", "dimensions": 64}
    deferred = proxy.openai(defer=True).embeddings.create(**call)
    assert [simulator.executions(word) for word in words] == [1, 1]
    live = proxy.openai().embeddings.create(**call)
    assert [len(item.embedding) for item in deferred.data] == [64, 64]
    assert [item.index for item in deferred.data] == [0, 1]
    assert deferred.data[0].embedding != deferred.data[1].embedding
    for one, other in zip(deferred.data, live.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding)


def test_responses(proxy: Proxy, simulator: Simulator) -> None:
    word = marker()
    raw = proxy.openai().responses.with_raw_response.create(model=MODEL, input=f"say {word}", extra_headers=DEFER)
    assert raw.headers["x-nightbus-service"] == "batch"
    response = raw.parse()
    assert response.object == "response" and response.status == "completed"
    assert word in response.output_text
    assert simulator.executions(word) == 1


def test_responses_stream(proxy: Proxy, simulator: Simulator) -> None:
    word = marker()
    events = list(proxy.openai(defer=True).responses.create(model=MODEL, input=f"say {word}", stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert word in "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert word in events[-1].response.output_text
    assert simulator.executions(word) == 1


def test_moderations(proxy: Proxy, simulator: Simulator) -> None:
    word = marker()
    raw = proxy.openai().moderations.with_raw_response.create(
        model="omni-moderation-latest", input=f"is {word} harmless?", extra_headers=DEFER
    )
    assert raw.headers["x-nightbus-service"] == "batch"
    moderation = raw.parse()
    assert moderation.id.startswith("modr-")
    assert moderation.results[0].flagged is False
    assert simulator.executions(word) == 1


def test_completions(proxy: Proxy, simulator: Simulator) -> None:
    word = marker()
    raw = proxy.openai().completions.with_raw_response.create(
        model="gpt-3.5-turbo-instruct", prompt=f"say {word}", extra_headers=DEFER
    )
    assert raw.headers["x-nightbus-service"] == "batch"
    completion = raw.parse()
    assert completion.object == "text_completion"
    assert word in completion.choices[0].text
    assert simulator.executions(word) == 1
