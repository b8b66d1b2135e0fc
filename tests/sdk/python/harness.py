"""Starts the real binary, as a simulated provider and as the proxy, for the suites of this folder.

Both print one line on standard output when they are ready; the ports are free ones and are read from there. Nothing
here waits for a fixed time: `until` polls with a deadline.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Callable, TypeVar

import httpx
from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 20.0
MODEL = "gpt-6-luna"
DEFER = {"x-nightbus-defer": "true"}
ASYNC = {**DEFER, "Prefer": "respond-async"}
ROUTES = "/nightbus/v1"


def binary() -> str:
    """The binary under test: `NIGHTBUS_BIN`, or the release build."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    path = Path(os.environ.get("NIGHTBUS_BIN") or target / "release" / "nightbus")
    if not path.is_file():
        raise RuntimeError(f"{path} does not exist: run `cargo build --release`, or set NIGHTBUS_BIN")
    return str(path)


def marker() -> str:
    """A word that the simulator finds in a request, repeats in its answer, and counts executions by."""
    return f"probe-{uuid.uuid4().hex}"


def until(what: str, check: Callable[[], T | None], seconds: float = 30.0) -> T:
    """Calls `check` until it gives something, at most for `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what} (last: {found!r})")
        time.sleep(0.05)


class Process:
    """One run of the binary."""

    def __init__(self, *arguments: str, environment: dict[str, str], log: Path) -> None:
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [binary(), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**clean_environment(), **environment},
                text=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip())
                self._news.notify_all()
        with self._news:
            self.lines.append("<end of output>")
            self._news.notify_all()

    def address(self, who: str) -> str:
        """The URL in the line `WHO listening on URL`."""
        pattern = re.compile(rf"^{who} listening on (http://\S+?)/?$")

        def found() -> str | None:
            return next((match[1] for line in self.lines if (match := pattern.match(line))), None)

        with self._news:
            self._news.wait_for(lambda: found() or "<end of output>" in self.lines, START_SECONDS)
        url = found()
        if url is None:
            self.kill()
            raise RuntimeError(f"no line '{who} listening on …'\nstdout: {self.lines}\nlog: {self.log()}")
        return url

    def log(self) -> str:
        """The last of what it wrote to standard error."""
        return self._log.read_text(errors="replace")[-4000:]

    def kill(self) -> None:
        """`kill -9`."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)

    def terminate(self, seconds: float = 20.0) -> int:
        """SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def clean_environment() -> dict[str, str]:
    """The caller's environment without what would change a run."""
    kept = {}
    for name, value in os.environ.items():
        if name.upper().endswith("_PROXY") or name.startswith(("NIGHTBUS_", "OPENAI_", "ANTHROPIC_", "RUST_LOG")):
            continue
        kept[name] = value
    return kept


class Simulator:
    """`nightbus simulate`, and its admin routes."""

    def __init__(self, log: Path, batch_seconds: float = 1.0) -> None:
        self.run = Process(
            "simulate", "--listen", "127.0.0.1:0", "--batch-seconds", str(batch_seconds), environment={}, log=log
        )
        self.url = self.run.address("simulator")
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=10)

    def counters(self) -> dict[str, Any]:
        return self.http.get("/sim/counters").raise_for_status().json()

    def executions(self, word: str) -> int:
        """How often a request with the marker `word` was executed, and so would have been billed."""
        return self.http.get("/sim/executions").raise_for_status().json().get(word, 0)

    def batches(self) -> list[dict[str, Any]]:
        answer = self.http.get("/sim/batches").raise_for_status().json()
        return answer["data"] if isinstance(answer, dict) else answer

    def faults(self, *names: str) -> None:
        self.http.post("/sim/faults", json={"faults": list(names)}).raise_for_status()

    def settings(self, **values: Any) -> None:
        self.http.post("/sim/settings", json=values).raise_for_status()

    def stop(self) -> None:
        self.http.close()
        self.run.kill()


class Proxy:
    """`nightbus serve` in front of a simulator. `settings` are configuration keys such as `batching__idle="1s"`."""

    DEFAULTS = {"batching__idle": "300ms", "batching__poll": "500ms"}

    def __init__(self, simulator: Simulator, folder: Path, **settings: str) -> None:
        self.simulator = simulator
        self.folder = folder
        self.start(**settings)

    def start(self, **settings: str) -> None:
        """Starts it (again) on the same data directory; on ports of their own."""
        settings = {"providers__anthropic__base_url": f"{self.simulator.url}/v1", **self.DEFAULTS, **settings}
        environment = {f"NIGHTBUS_{key.upper()}": value for key, value in settings.items()}
        self.run = Process(
            *("serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"),
            *("--upstream", f"{self.simulator.url}/v1", "--data-dir", str(self.folder / "data")),
            environment=environment,
            log=self.folder / "proxy.log",
        )
        self.url = self.run.address("nightbus")
        self.admin = self.run.address("admin")

    def kill(self) -> None:
        self.run.kill()

    def terminate(self) -> int:
        return self.run.terminate()

    def openai(self, path: str = "/v1", key: str = "sk-suite", defer: bool = False, **options: Any) -> OpenAI:
        """A client of the SDK. It does not retry, so that a retry cannot hide an error."""
        return OpenAI(**self._options(path, key, defer, options))

    def async_openai(self, path: str = "/v1", key: str = "sk-suite", defer: bool = False, **options: Any) -> AsyncOpenAI:
        return AsyncOpenAI(**self._options(path, key, defer, options))

    def anthropic(self, path: str = "", key: str = "sk-suite", defer: bool = False, **options: Any) -> Anthropic:
        return Anthropic(**self._options(path, key, defer, options))

    def async_anthropic(
        self, path: str = "", key: str = "sk-suite", defer: bool = False, **options: Any
    ) -> AsyncAnthropic:
        return AsyncAnthropic(**self._options(path, key, defer, options))

    def _options(self, path: str, key: str, defer: bool, options: dict[str, Any]) -> dict[str, Any]:
        defaults = {"max_retries": 0, "timeout": 60, "default_headers": DEFER if defer else {}}
        return {"base_url": f"{self.url}{path}", "api_key": key, **defaults, **options}

    def http(self, key: str = "sk-suite") -> httpx.Client:
        """A plain client with the same credential, for nightbus's own routes."""
        headers = {"authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=60)


def chat(text: str, **more: Any) -> dict[str, Any]:
    """Arguments of a chat call."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}


def message(text: str, **more: Any) -> dict[str, Any]:
    """Arguments of a Messages call."""
    messages = [{"role": "user", "content": text}]
    return {"model": "claude-haiku-5-5", "max_tokens": 256, "messages": messages, **more}


def submit(proxy: Proxy, text: str, headers: dict[str, str] = ASYNC, key: str = "sk-suite") -> dict[str, object]:
    """Sends a call that is answered 202 and gives its request object."""
    raw = proxy.openai(key=key).chat.completions.with_raw_response.create(**chat(text), extra_headers=headers)
    assert raw.status_code == 202, raw.text
    request = raw.http_response.json()
    assert raw.headers["location"] == f"{ROUTES}/requests/{request['id']}/result"
    return request


def result(http: httpx.Client, request: dict[str, object]) -> httpx.Response:
    """Polls until the result is there."""

    def answer() -> httpx.Response | None:
        answer = http.get(f"{ROUTES}/requests/{request['id']}/result")
        return None if answer.status_code == 202 else answer

    return until("the result", answer)
