"""The real binary as a simulated provider and as the proxy, nginx in front of it, and the drivers of the clients.

Ports are free ones, read from the lines that the binary prints. Nothing waits for a fixed time.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
KEY = "sk-clients"
MODEL = "gpt-6-luna"
# Twelve drivers import at once, and a machine may be busy; only a run that fails anyway waits for it.
START_SECONDS = 300.0


def binary() -> str:
    """The binary under test: `NIGHTBUS_BIN`, or the release build."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    path = Path(os.environ.get("NIGHTBUS_BIN") or target / "release" / "nightbus")
    if not path.is_file():
        raise RuntimeError(f"{path} does not exist: run `cargo build --release`, or set NIGHTBUS_BIN")
    return str(path)


def environment(**more: str) -> dict[str, str]:
    """The caller's environment without what would change a run."""
    names = ("NIGHTBUS_", "OPENAI_", "RUST_LOG", "LANGCHAIN_", "LANGSMITH_", "LITELLM_")
    kept = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY") and not k.startswith(names)}
    return {**kept, **more}


def marker() -> str:
    """A word that the simulator finds in a request, repeats in its answer, and counts executions by."""
    return f"probe-{uuid.uuid4().hex}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def until(what: str, check: Callable[[], T | None], seconds: float = 60.0) -> T:
    """Calls `check`, off the loop, until it gives something, at most for `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = await asyncio.to_thread(check)
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        await asyncio.sleep(0.1)


def get(url: str, key: str | None = None, body: Any = None, headers: dict[str, str] | None = None) -> Any:
    """A JSON call, past all proxies."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **(headers or {})})
    if key:
        request.add_header("authorization", f"Bearer {key}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as response:
        return json.load(response)


class Process:
    """A child process whose standard output is read line by line."""

    def __init__(self, log: Path) -> None:
        self.log = log

    async def start(self, *command: str, env: dict[str, str]) -> Process:
        with self.log.open("ab") as errors:
            self.child = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=env,
                limit=2**26,
                start_new_session=True,
            )
        return self

    async def line(self) -> str:
        assert self.child.stdout is not None
        line = await asyncio.wait_for(self.child.stdout.readline(), START_SECONDS)
        if not line:
            raise RuntimeError(f"ended early: {self.log.read_text(errors='replace')[-2000:]}")
        return line.decode().strip()

    async def address(self, who: str) -> str:
        """The URL in the line `WHO listening on URL`."""
        while True:
            name, _, url = (await self.line()).partition(" listening on ")
            if name == who:
                return url.rstrip("/")

    async def kill(self) -> None:
        """`kill -9`, children and all."""
        if not hasattr(self, "child"):
            return
        if self.child.returncode is None:
            os.killpg(self.child.pid, signal.SIGKILL)
        await self.child.wait()
        self.child._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001: asyncio leaves it to chance

    async def terminate(self) -> int:
        self.child.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.child.wait(), 30)


class Stage:
    """A simulator whose batches take `batch_seconds`, and a proxy in front of it."""

    DEFAULTS = {"batching__idle": "300ms", "batching__poll": "500ms"}

    def __init__(self, folder: Path, batch_seconds: float, **settings: str) -> None:
        self.folder = folder
        self.batch_seconds = batch_seconds
        self.settings = {**self.DEFAULTS, **settings}
        self.port = free_port()
        self.simulator, self.proxy = Process(folder / "simulator.log"), Process(folder / "proxy.log")

    async def start(self) -> Stage:
        self.folder.mkdir(parents=True)
        seconds = str(self.batch_seconds)
        await self.simulator.start(
            *(binary(), "simulate", "--listen", "127.0.0.1:0", "--batch-seconds", seconds), env=environment()
        )
        self.sim_url = await self.simulator.address("simulator")
        await self.start_proxy()
        return self

    async def start_proxy(self) -> None:
        """Starts the proxy (again), on the same port and the same data."""
        settings = {f"NIGHTBUS_{name.upper()}": value for name, value in self.settings.items()}
        await self.proxy.start(
            *(binary(), "serve", "--listen", f"127.0.0.1:{self.port}", "--admin-listen", "127.0.0.1:0"),
            *("--upstream", f"{self.sim_url}/v1", "--data-dir", str(self.folder / "data")),
            env=environment(**settings),
        )
        self.url = await self.proxy.address("nightbus")

    def executions(self, probe: str) -> int:
        """How often a request with this marker was executed, and so would have been billed."""
        return get(f"{self.sim_url}/sim/executions?probe={probe}")["executions"]

    def requests(self, tag: str) -> list[dict[str, Any]]:
        """What the proxy has accepted under a tag."""
        return get(f"{self.url}/nightbus/v1/requests?tag={tag}&limit=100", KEY)["data"]

    def end_batches_after(self, seconds: float) -> None:
        """Counted from each batch's creation, those under way too."""
        get(f"{self.sim_url}/sim/settings", body={"batch_seconds": seconds})

    def flush(self) -> None:
        get(f"{self.url}/nightbus/v1/flush", KEY, {})

    async def stop(self) -> None:
        for process in (self.proxy, self.simulator):
            await process.kill()


NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log; {user}
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  proxy_read_timeout 10s;
  upstream nightbus {{ server {target}; keepalive 8; }}
  # As nginx is without a word: HTTP/1.0 (before 1.29.7), a connection for each call.
  server {{ listen 127.0.0.1:{plain}; location / {{ proxy_pass http://{target}; }} }}
  # As tuning guides have it: HTTP/1.1, kept connections, and nothing that says that nginx is there.
  server {{
    listen 127.0.0.1:{tuned};
    location / {{ proxy_pass http://nightbus; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


class Nginx:
    """Two servers in front of `target`, which give up after 10 s of silence."""

    def __init__(self, folder: Path, target: str) -> None:
        self.folder = folder
        self.target = target.removeprefix("http://")
        self.process = Process(folder / "nginx.log")
        self.plain, self.tuned = free_port(), free_port()

    async def start(self) -> Nginx:
        self.folder.mkdir(parents=True)
        config = self.folder / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        ports = {"plain": self.plain, "tuned": self.tuned}
        config.write_text(NGINX.format(folder=self.folder, target=self.target, user=user, **ports))
        await self.process.start(
            "nginx", "-c", str(config), "-p", str(self.folder), env=environment()
        )

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.tuned)) == 0

        await until("nginx listens", listens)
        return self

    async def stop(self) -> None:
        await self.process.kill()


class Driver:
    """A process that makes calls with client libraries (drivers/protocol.py)."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.process = Process(log)
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}

    @staticmethod
    def command(name: str) -> list[str]:
        if name == "node":
            return ["node", str(HERE / "node" / "driver.mjs")]
        environment_name, script = name.split("/")
        python = os.environ[f"NIGHTBUS_CLIENTS_{environment_name.upper()}"]
        return [f"{python}/bin/python", str(HERE / "drivers" / f"{script}.py")]

    async def start(self) -> Driver:
        # LiteLLM would fetch its price list, LangChain would send traces.
        env = environment(LITELLM_LOCAL_MODEL_COST_MAP="True", LANGSMITH_TRACING="false", PYTHONDONTWRITEBYTECODE="1")
        await self.process.start(*self.command(self.name), env=env)
        assert json.loads(await self.process.line()) == {"ready": True}
        self._reader = asyncio.create_task(self._read())
        return self

    async def _read(self) -> None:
        assert self.process.child.stdout is not None
        async for line in self.process.child.stdout:
            outcome = json.loads(line)
            self._waiting.pop(outcome.pop("call")).set_result(outcome)
        for waiting in self._waiting.values():
            waiting.cancel()

    def call(self, **call: Any) -> asyncio.Future[dict[str, Any]]:
        """Starts a call; the result is its outcome."""
        identity = uuid.uuid4().hex
        outcome = asyncio.get_running_loop().create_future()
        self._waiting[identity] = outcome
        assert self.process.child.stdin is not None
        self.process.child.stdin.write(json.dumps({"call": identity, **call}).encode() + b"\n")
        return outcome

    async def kill(self) -> None:
        await self.process.kill()
