"""`--bless` writes what was observed into docs/clients.md; without it the tests compare with what is written there."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import document
import matrix
from matrix import Seen


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bless", action="store_true", help="write the observed table into docs/clients.md")


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Seen]:
    """The whole matrix, played once; with what differs from the document played once more."""
    # So that a run that is stopped stops what it has started.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(SystemExit(143)))
    folder: Path = tmp_path_factory.mktemp("clients")
    found: dict[Any, Any] = asyncio.run(matrix.play(folder / "first"))
    if request.config.getoption("--bless"):
        document.write(found)
    else:
        # How often a client came depends on its own clock, and on a machine that may have been busy. What must never
        # happen is not tried again.
        written = document.read()
        again = {name for (client, name), cell in found.items() if cell in allowed(name) and cell != written.get((client, name))}
        if again:
            found |= asyncio.run(matrix.play(folder / "again", lambda _client, name: name in again))
    yield found


def allowed(name: str) -> set[str]:
    return matrix.SITUATIONS[name][2]
