"""Fixtures: one simulator and one proxy for most tests, and factories for tests that need their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import Proxy, Simulator


@pytest.fixture(scope="session")
def shared_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    simulator = Simulator(tmp_path_factory.mktemp("simulator") / "simulator.log")
    yield simulator
    simulator.stop()


@pytest.fixture(scope="session")
def shared_proxy(shared_simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    proxy = Proxy(shared_simulator, tmp_path_factory.mktemp("proxy"))
    yield proxy
    proxy.kill()


@pytest.fixture
def proxy(shared_proxy: Proxy) -> Proxy:
    """The proxy that all tests share: do not stop it, do not count its batches."""
    assert shared_proxy.run.process.poll() is None, f"the proxy has ended: {shared_proxy.run.log()}"
    return shared_proxy


@pytest.fixture
def simulator(shared_simulator: Simulator) -> Simulator:
    return shared_simulator


@pytest.fixture
def own_simulator(tmp_path: Path) -> Iterator[Simulator]:
    """A simulator for one test, whose settings, faults and counters nobody else sees."""
    simulator = Simulator(tmp_path / "simulator.log")
    yield simulator
    simulator.stop()


@pytest.fixture
def start_proxy(own_simulator: Simulator, tmp_path: Path) -> Iterator[Callable[..., Proxy]]:
    """Starts a proxy for one test, in front of `own_simulator`: `start_proxy(batching__idle="1s")`."""
    started: list[Proxy] = []

    def start(**settings: str) -> Proxy:
        folder = tmp_path / f"proxy-{len(started)}"
        folder.mkdir()
        started.append(Proxy(own_simulator, folder, **settings))
        return started[-1]

    yield start
    for proxy in started:
        proxy.kill()
