"""The tables of docs/clients.md, between their markers."""

from __future__ import annotations

from typing import Any

from clients import CLIENTS
from matrix import SITUATIONS
from stage import ROOT

PATH = ROOT / "docs" / "clients.md"
BEGIN = "<!-- matrix: written by `scripts/clients --bless` -->"
END = "<!-- end of matrix -->"
# One table would be too wide to read.
TABLES = [
    ("held", "held-stream", "silent", "five", "killed"),
    ("late", "late-stream", "full", "restart", "key", "same"),
    ("nginx-plain", "nginx-tuned", "nginx-plain-late", "nginx-tuned-late"),
]


def write(seen: dict[Any, Any]) -> None:
    """Writes the tables; a cell with an exception says only that."""
    lines: list[str] = []
    for names in TABLES:
        lines += ["", "| client | " + " | ".join(SITUATIONS[name][0] for name in names) + " |"]
        lines += ["| --- " * (len(names) + 1) + "|"]
        for client in CLIENTS:
            cells = [seen[client.title, name] for name in names]
            words = [cell if isinstance(cell, str) else f"WRONG: {type(cell).__name__}" for cell in cells]
            lines += [f"| {client.title} | " + " | ".join(words) + " |"]
    before, _, rest = PATH.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PATH.write_text("\n".join([before + BEGIN, *lines, "", END + after]))


def read() -> dict[tuple[str, str], str]:
    """What is written there."""
    text = PATH.read_text().partition(BEGIN)[2].partition(END)[0]
    tables = [block.splitlines() for block in text.strip().split("\n\n")]
    cells = {}
    for names, lines in zip(TABLES, tables, strict=True):
        for line in lines[2:]:
            client, *words = [cell.strip() for cell in line.strip("|").split("|")]
            cells |= {(client, name): word for name, word in zip(names, words, strict=True)}
    return cells
