"""Clients that know no API: requests, aiohttp, curl."""

from __future__ import annotations

import json
import subprocess
import tempfile
from typing import Any

import aiohttp as aiohttp_client
import requests as requests_client

import protocol
from protocol import Call, Outcome

PATHS = {"chat": "chat/completions"}


class Refused(Exception):
    """An HTTP status that is not a success."""


def sent(call: Call) -> tuple[str, dict[str, str], dict[str, Any]]:
    body = dict(call["body"])
    if call.get("stream"):
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    headers = {"authorization": f"Bearer {call['key']}", **call["headers"]}
    return f"{call['base_url']}/{PATHS[call['kind']]}", headers, body


def told(call: Call, status: int, text: str) -> Outcome:
    if status != 200:
        # A peer in between has its own pages for its own errors.
        error = json.loads(text)["error"] if text.startswith("{") else {"message": text[:200], "code": None}
        return protocol.failure(Refused(error["message"]), status, error["code"])
    if not text.strip():
        # Whoever reads no further than the status takes this for a success.
        return protocol.answer(None, "nothing")
    return protocol.rebuilt(text) if call.get("stream") else protocol.whole(json.loads(text))


def requests(call: Call) -> Outcome:
    url, headers, body = sent(call)
    with requests_client.Session() as session:
        session.trust_env = False
        response = session.post(url, headers=headers, json=body, timeout=call["timeout"])
        return told(call, response.status_code, response.text)


async def aiohttp(call: Call) -> Outcome:
    url, headers, body = sent(call)
    timeout = aiohttp_client.ClientTimeout(total=None, sock_connect=5, sock_read=call["timeout"])
    async with aiohttp_client.ClientSession(timeout=timeout) as session:
        async with session.post(url, headers=headers, json=body) as response:
            return told(call, response.status, await response.text())


def curl(call: Call) -> Outcome:
    """`--max-time` is a total limit. `--retry` starts again after it, and after 429 and 503 as `Retry-After` says; the
    output goes to a file because curl empties that before it starts again, which it cannot do with a pipe."""
    url, headers, body = sent(call)
    with tempfile.NamedTemporaryFile() as file:
        command = ["curl", "--silent", "--show-error", "--noproxy", "*", "--retry", "5", "--output", file.name]
        command += ["--write-out", "%{http_code}", "--max-time", str(call["timeout"]), "--json", json.dumps(body), url]
        for name, value in headers.items():
            command += ["--header", f"{name}: {value}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        text = file.read().decode()
    if done.returncode != 0:
        return protocol.failure(Refused(done.stderr.strip()), code=f"exit {done.returncode}")
    return told(call, int(done.stdout), text)


protocol.run({"requests": requests, "aiohttp": aiohttp, "curl": curl})
