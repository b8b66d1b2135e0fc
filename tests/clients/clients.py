"""The clients of the matrix: which driver makes their calls, and what they can do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Client:
    """One row of the table."""

    title: str
    driver: str
    name: str
    # Kinds of calls it can make and stream.
    kinds: tuple[str, ...] = ("chat",)
    # Several choices in one stream.
    choices: bool = True
    # Refusals are shown apart from the text, streamed too.
    refusals: bool = True


API = ("chat", "completions", "responses")

CLIENTS: list[Client] = [
    Client("openai-python 3.54, sync", "current/openai_python", "sync", API),
    Client("openai-python 3.54, async", "current/openai_python", "async", API),
    Client("openai-python 3.54, aiohttp", "current/openai_python", "aiohttp", API),
    Client("openai-python 1.109, sync", "v1/openai_python", "sync", API),
    Client("openai-python 1.109, async", "v1/openai_python", "async", API),
    Client("openai-python 1.109, aiohttp", "v1/openai_python", "aiohttp", API),
    Client("openai-node 6.49, `timeout` of the client", "node", "openai-client", API),
    Client("openai-node 6.49, `timeout` of the call", "node", "openai-call", API),
    Client("LangChain 1.7 `ChatOpenAI`, sync", "langchain/langchain", "sync", choices=False, refusals=False),
    Client("LangChain 1.7 `ChatOpenAI`, async", "langchain/langchain", "async", choices=False, refusals=False),
    Client("LangChain 1.7 `ChatOpenAI`, async, `stream_chunk_timeout`", "langchain/langchain", "chunks", choices=False, refusals=False),
    Client("LiteLLM 1.102, sync", "litellm/lite", "sync", choices=False, refusals=False),
    Client("LiteLLM 1.102, async", "litellm/lite", "async", choices=False, refusals=False),
    Client("Vercel AI SDK 6, chat", "node", "vercel-chat", choices=False, refusals=False),
    Client("Vercel AI SDK 6, responses", "node", "vercel-responses", choices=False, refusals=False),
    Client("requests 2.34", "current/plain", "requests"),
    Client("aiohttp 3.14, `sock_read`", "current/plain", "aiohttp"),
    Client("curl 7.88, `--retry`", "current/plain", "curl"),
]
