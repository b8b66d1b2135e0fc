"""Every client in every situation, against the real binary. The table in docs/clients.md is made from what is seen here."""

from __future__ import annotations

import traceback

import pytest

import document
from clients import CLIENTS
from matrix import SITUATIONS, Seen

CELLS = [(client.title, name) for client in CLIENTS for name in SITUATIONS]


@pytest.mark.parametrize(("client", "situation"), CELLS, ids=lambda value: value.replace("`", ""))
def test_cell(seen: Seen, client: str, situation: str) -> None:
    cell = seen[client, situation]
    if isinstance(cell, BaseException):
        pytest.fail("".join(traceback.format_exception(cell)), pytrace=False)
    assert cell in SITUATIONS[situation][2], "must not happen, whatever is written"
    assert cell == document.read().get((client, situation)), "docs/clients.md says otherwise: scripts/clients --bless"


def test_every_situation_is_in_a_table() -> None:
    assert sorted(name for names in document.TABLES for name in names) == sorted(SITUATIONS)
