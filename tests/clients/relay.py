"""A relay on the wire between one caller and the server: passes every byte on, and remembers what passed.

It counts the arrivals of a call from outside both ends, and shows, when something is wrong, who said what and when. A
side that closes is closed on the other side too, at once.
"""

from __future__ import annotations

import asyncio
import re
import time

REQUEST = re.compile(rb"(?:POST|GET) \S+ HTTP/1\.[01]\r\n")
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r\n")
KEPT = 4_000


class Relay:
    """Listens on a port of its own and connects each caller with `target`, which may change while it runs."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.heads: list[bytes] = []
        self.statuses: list[int] = []
        self.open = 0
        self._events: list[tuple[float, str]] = []
        self._started = time.monotonic()
        self._server: asyncio.Server | None = None

    async def start(self) -> Relay:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    @property
    def arrivals(self) -> int:
        """Requests that came from the caller."""
        return len(self.heads)

    def header(self, name: str, arrival: int = 0) -> str | None:
        """A header of one arrival."""
        found = re.search(rb"(?im)^%s: *(.*?)\r$" % name.encode(), self.heads[arrival])
        return found[1].decode() if found else None

    def trace(self) -> str:
        """What passed, with seconds since the start."""
        return "\n".join(f"{at - self._started:7.2f} s  {text}" for at, text in self._events)

    def close(self) -> None:
        if self._server:
            self._server.close()

    def _note(self, text: str) -> None:
        self._events.append((time.monotonic(), text))

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._note("caller connects")
        try:
            up_reader, up_writer = await asyncio.open_connection(*self.target)
        except OSError as error:
            self._note(f"server: {error}")
            writer.close()
            return
        ways = [
            asyncio.create_task(self._pump(reader, up_writer, ">", self._request)),
            asyncio.create_task(self._pump(up_reader, writer, "<", self._response)),
        ]
        self.open += 1
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # The loop ends.
            pass
        for way in ways:
            way.cancel()
        for end in (writer, up_writer):
            end.close()
        self.open -= 1

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sign: str, look: object) -> None:
        who = "caller" if sign == ">" else "server"
        before = b""
        try:
            while data := await reader.read(65_536):
                self._note(f"{sign} {data[:KEPT]!r}")
                before = look(before, data)  # type: ignore[operator]
                writer.write(data)
                await writer.drain()
            self._note(f"{who} closes")
        except OSError as error:
            self._note(f"{who}: {error}")

    def _request(self, before: bytes, data: bytes) -> bytes:
        """Notes the heads that are complete; gives what may be the beginning of the next."""
        text = before + data
        end = 0
        for found in REQUEST.finditer(text):
            head_end = text.find(b"\r\n\r\n", found.start())
            if head_end < 0:
                return text[found.start() :]
            self.heads.append(text[found.start() : head_end + 2])
            end = head_end + 4
        return text[max(end, len(text) - 200) :]

    def _response(self, _before: bytes, data: bytes) -> bytes:
        self.statuses.extend(int(found[1]) for found in STATUS.finditer(data))
        return b""
