"""HTTP as a program sees it: one request and its answer, or a stream of events."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from helpers import PATIENCE_S
from programs import Program

Event = dict[str, Any]


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """Why it was refused; that is one line of JSON and nothing else."""
        assert self.headers["content-type"] == "application/json"
        assert self.body.count(b"\n") == 1
        assert self.json.keys() == {"error"}
        return str(self.json["error"])


def served(dashboard: Program) -> str:
    """Where its page is."""
    return str(dashboard.wait_for("serving")["url"])


def visit(
    url: str,
    path: str = "/",
    method: str = "GET",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """One request over a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())
    finally:
        connection.close()


def say(url: str, text: str) -> int:
    """Broadcast a text; its number."""
    answer = visit(url, "/api/messages", "POST", text.encode())
    assert answer.status == 202, answer
    return int(answer.json["seq"])


def knock(url: str, request: bytes) -> socket.socket:
    """A connection of its own, and these bytes on it."""
    host, _, port = url.removeprefix("http://").rstrip("/").rpartition(":")
    visitor = socket.create_connection((host, int(port)), timeout=20)
    visitor.sendall(request)
    return visitor


def answer_to(url: str, request: bytes) -> Answer:
    """What is answered to exactly these bytes; the connection is closed then."""
    with closing(knock(url, request)) as visitor:
        visitor.shutdown(socket.SHUT_WR)
        data = b""
        while part := visitor.recv(1 << 16):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answer(int(first.split(" ")[1]), headers, body)


def metric(url: str, name: str, **labels: str) -> float:
    """The value of one sample."""
    text = visit(url, "/metrics").body.decode()
    [value] = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return float(value)


class Stream:
    """Server-sent events, read one by one."""

    def __init__(self, url: str, query: str = "", headers: dict[str, str] | None = None) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
        self._connection.request("GET", f"/api/messages{query}", headers=headers or {})
        self.response = self._connection.getresponse()
        assert self.response.status == 200, self.response.read()
        self.last_id = ""
        self.blocks = self._read_blocks()

    def _read_blocks(self) -> Iterator[dict[str, str]]:
        """Each block of lines as its fields; a comment is the field with no name."""
        fields: dict[str, str] = {}
        for line in self.response:
            name, _, value = line.decode().rstrip("\n").partition(":")
            if line != b"\n":
                fields[name] = value.removeprefix(" ")
            elif fields:
                yield fields
                fields = {}

    def next(self, name: str = "message") -> Event:
        """The data of the next event of that name; heartbeats are passed over."""
        for fields in self.blocks:
            self.last_id = fields.get("id", self.last_id)
            if "data" in fields:
                assert fields.get("event", "message") == name, fields
                event = json.loads(fields["data"])
                assert isinstance(event, dict)
                return event
        raise AssertionError(f"the stream ended before it gave a {name}")

    def close(self) -> None:
        self.response.close()
        self._connection.close()
