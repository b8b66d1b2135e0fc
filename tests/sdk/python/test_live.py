"""Calls that nothing marks go through untouched, and so does what cannot be deferred."""

from __future__ import annotations

import io
import json

import httpx
import openai

from harness import DEFER, MODEL, Proxy, Simulator, chat, marker, until


def nightbus_headers(headers: object) -> list[str]:
    return [name for name in headers if name.lower().startswith("x-nightbus")]


def test_an_unmarked_call(proxy: Proxy, simulator: Simulator) -> None:
    word = marker()
    raw = proxy.openai().chat.completions.with_raw_response.create(**chat(word))
    assert nightbus_headers(raw.headers) == []
    assert word in raw.parse().choices[0].message.content
    assert simulator.executions(word) == 1


def test_an_unmarked_stream_arrives_in_chunks(proxy: Proxy) -> None:
    word = marker()
    body = chat(f"sim-chunk-ms=50 say {word} and then some more, so that there is something to cut", stream=True)
    with proxy.http() as http, http.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "content-length" not in answer.headers
        assert nightbus_headers(answer.headers) == []
        pieces = [piece for piece in answer.iter_raw() if piece]
    assert len(pieces) > 1, "the stream came in one piece: it was held back"
    assert b"".join(pieces).rstrip().endswith(b"data: [DONE]")


def test_an_unmarked_stream_by_the_sdk(proxy: Proxy, simulator: Simulator) -> None:
    word = marker()
    stream = proxy.openai().chat.completions.create(**chat(f"say {word}"), stream=True)
    assert word in "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert simulator.executions(word) == 1


def test_models(proxy: Proxy) -> None:
    client = proxy.openai()
    models = [model.id for model in client.models.list()]
    assert MODEL in models
    assert client.models.retrieve(MODEL).id == MODEL


def test_marked_but_not_deferrable_passes_and_says_why(proxy: Proxy) -> None:
    raw = proxy.openai("/batch/v1").models.with_raw_response.list()
    assert MODEL in [model.id for model in raw.parse()]
    assert raw.headers["x-nightbus-passthrough"]
    raw = proxy.openai().models.with_raw_response.list(extra_headers=DEFER)
    assert raw.headers["x-nightbus-passthrough"]


def test_an_unknown_route_is_the_providers_404(proxy: Proxy, simulator: Simulator) -> None:
    headers = {"authorization": "Bearer sk-suite"}
    direct = simulator.http.get("/v1/no/such/route?a=1", headers=headers)
    with proxy.http() as http:
        through = http.get("/v1/no/such/route?a=1")
    assert (through.status_code, through.content) == (direct.status_code, direct.content)


def test_the_users_own_batch_goes_through(proxy: Proxy, simulator: Simulator) -> None:
    """Somebody who uses the Batch API by hand keeps using it, marked or not."""
    for client in (proxy.openai(), proxy.openai("/batch/v1")):
        word = marker()
        line = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": chat(f"say {word}")}
        file = client.files.create(purpose="batch", file=("in.jsonl", io.BytesIO(json.dumps(line).encode() + b"\n")))
        assert file.purpose == "batch"
        assert client.files.retrieve(file.id).bytes == file.bytes
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"mine": "yes"}
        )

        def completed() -> openai.types.Batch | None:
            now = client.batches.retrieve(batch.id)
            assert now.status not in ("failed", "expired", "cancelled"), now
            return now if now.status == "completed" and now.output_file_id else None

        done = until("the batch is completed", completed)
        assert done.metadata == {"mine": "yes"}
        output = client.files.content(done.output_file_id).text
        assert word in output and json.loads(output)["custom_id"] == "one"
        assert simulator.executions(word) == 1
        assert batch.id in [listed.id for listed in client.batches.list(limit=10)]
        assert client.files.delete(file.id).deleted


def test_upstream_that_is_gone(start_proxy, own_simulator: Simulator) -> None:
    proxy = start_proxy()
    own_simulator.run.kill()
    try:
        proxy.openai().chat.completions.create(**chat(marker()))
        raise AssertionError("a call without a provider was answered")
    except openai.InternalServerError as error:
        assert error.status_code == 502
        assert error.code == "upstream_unreachable"
        assert "openai" in error.message


def test_health(proxy: Proxy) -> None:
    assert httpx.get(f"{proxy.admin}/healthz", trust_env=False).status_code == 200
    assert httpx.get(f"{proxy.admin}/readyz", trust_env=False).status_code == 200
    assert "# TYPE" in httpx.get(f"{proxy.admin}/metrics", trust_env=False).text
