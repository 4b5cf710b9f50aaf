"""The network over HTTP: messages in and out, the state as JSON, metrics, and the files of a page.

Knows HTTP and whom to let in; what it serves is handed to it as a `Service`. It takes no request
that another site's page makes a browser send, and everything a visitor may take has a bound.
"""

import base64
import binascii
import contextlib
import hmac
import io
import ipaddress
import json
import logging
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from feed import Feed
from link import advertised, cannot_listen, resolve
from messages import (
    MAX_PAYLOAD_BYTES,
    Address,
    BadAddress,
    BroadcastTimeout,
    NotRunning,
)
from threads import Threads

MAX_CONNECTIONS = 100  # a browser holds up to six
MAX_STREAMS = 32  # of them, those that read messages as they come
REQUEST_TIMEOUT_S = 10.0  # for a request's head to arrive, the wait for it included; and a body
SEND_TIMEOUT_S = 20.0  # who takes nothing for so long is let go of
HEARTBEAT_S = 5.0  # a comment on a quiet stream; it also finds readers that are gone
LINGER_S = 1.0  # a refused sender has so long to stop sending and read why
STOP_POLL_S = 0.1
MAX_LAST = 10_000  # messages of the past that a stream may begin with

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
JSON = "application/json"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b'Connection: close\r\nRetry-After: 5\r\n\r\n{"error": "too many connections"}\n'
)
_EVENT_ID = re.compile(r"([0-9a-f]{1,16})-([0-9]{1,18})")
_log = logging.getLogger("peer-to-peer")


class Page(NamedTuple):
    """A file that is served as it is."""

    kind: str  # its media type
    data: bytes


@dataclass(frozen=True, slots=True)
class Service:
    """What there is to serve."""

    pages: dict[str, Page]  # by path
    network: Callable[[], dict[str, Any]]
    metrics: Callable[[], str]
    broadcast: Callable[[bytes], int]  # raises BroadcastTimeout, NotRunning
    feed: Feed
    life: str  # hexadecimal; another each time the feed begins anew


class Refusal(Exception):
    """The request is not granted: the answer's status, and why, in one line."""

    def __init__(self, status: HTTPStatus, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Gateway(socketserver.TCPServer):
    """Listens and serves, a thread for each connection. With a token only those who have it.

    Raises BadAddress, AddressInUse; also when it would listen to other machines without a token.
    """

    allow_reuse_address = True
    request_queue_size = 64

    def __init__(
        self, host: str, port: int, token: str | None, service: Service, threads: Threads
    ) -> None:
        self.address_family, found = resolve(host, port)
        self.is_local = ipaddress.ip_address(found[0].partition("%")[0]).is_loopback
        if not self.is_local and token is None:
            raise BadAddress(
                f"{host} can be reached by other machines: name a file with --token, "
                "so that only those who have it get in"
            )
        self.token = token
        self.service = service
        self._threads = threads
        self._lock = threading.Lock()  # guards what follows
        self._connections: set[socket.socket] = set()
        self.streams = 0
        try:
            super().__init__(found, _Visit)
        except OSError as error:
            raise cannot_listen(host, port, error) from error
        shown = advertised(Address(found[0], self.server_address[1]), None, None)
        if host in ("localhost", "127.0.0.1"):
            shown = Address("localhost", shown.port)
        self.url = f"http://{shown}/"

    def serve(self) -> None:
        """Accept visitors until closed."""
        self.serve_forever(STOP_POLL_S)

    def close(self) -> None:
        """End every connection, and `serve`."""
        self.service.feed.close()
        self.shutdown()
        self.server_close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            _shut(connection, socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A connection was accepted: a thread for it, unless there are too many of either."""
        with self._lock:
            is_full = len(self._connections) >= MAX_CONNECTIONS
            if not is_full:
                self._connections.add(request)
        if is_full:
            self._turn_away(request)
            return
        try:
            self._threads.start("visit", self._visit, request, client_address)
        except OSError:  # the system gives no further thread
            with self._lock:
                self._connections.discard(request)
            self._turn_away(request)

    def _turn_away(self, request: socket.socket) -> None:
        with contextlib.suppress(OSError):
            request.settimeout(STOP_POLL_S)
            request.sendall(TOO_MANY)
        self.shutdown_request(request)

    def _visit(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError as error:
            _log.debug("a visitor is gone: %s", error)
        finally:
            with self._lock:
                self._connections.discard(request)
            self.shutdown_request(request)

    def open_stream(self) -> bool:
        """One stream more, if there is room for it; `close_stream` gives the room back."""
        with self._lock:
            has_room = self.streams < MAX_STREAMS
            self.streams += has_room
            return has_room

    def close_stream(self) -> None:
        with self._lock:
            self.streams -= 1


class _Timely(io.RawIOBase):
    """What arrives on a socket before a deadline, however slowly it drips."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.deadline_s = 0.0

    def allow(self, seconds: float) -> None:
        self.deadline_s = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._socket.settimeout(max(0.001, self.deadline_s - time.monotonic()))
        return self._socket.recv_into(buffer)


class _Visit(BaseHTTPRequestHandler):
    """One connection, and the requests on it one after the other."""

    protocol_version = "HTTP/1.1"
    server_version = "peer-to-peer"
    sys_version = ""
    server: Gateway

    # ---- requests ----

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._arriving = _Timely(self.connection)
        self.rfile = io.BufferedReader(self._arriving)

    def handle_one_request(self) -> None:
        self._arriving.allow(REQUEST_TIMEOUT_S)
        self._is_body_read = False
        super().handle_one_request()

    def handle_expect_100(self) -> bool:
        """Whoever asks before it sends a body is answered when the body is wanted."""
        return True

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815

    def _serve(self) -> None:
        try:
            self._check_host()
            self._check_origin()
            self._check_token()
            self._route(*self._target())
        except Refusal as refusal:
            self._refuse(refusal)

    def _target(self) -> tuple[str, str]:
        path, _, query = self.path.partition("?")
        return path, query

    def _route(self, path: str, query: str) -> None:
        service = self.server.service
        routes: dict[str, dict[str, Callable[[], None]]] = {
            name: {"GET": partial(self._answer, page.data, page.kind)}
            for name, page in service.pages.items()
        }
        routes["/api/network"] = {"GET": lambda: self._answer_json(service.network())}
        routes["/metrics"] = {"GET": lambda: self._answer(service.metrics().encode(), PROMETHEUS)}
        routes["/api/messages"] = {"GET": lambda: self._stream(query), "POST": self._broadcast}
        methods = routes.get(path)
        if methods is None:
            raise Refusal(
                HTTPStatus.NOT_FOUND,
                f"expected /, /api/network, /api/messages or /metrics, got {path:.80}",
            )
        is_head = self.command == "HEAD" and "GET" in methods and path != "/api/messages"
        method = methods.get("GET" if is_head else self.command)
        if method is None:
            allowed = ", ".join(methods)
            raise Refusal(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"expected {allowed}, got {self.command:.20}",
                Allow=allowed,
            )
        method()

    # ---- whom to let in ----

    def _check_host(self) -> None:
        """A page of another site may have its own name lead here (DNS rebinding).

        With a token no name matters: that page has none.
        """
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"expected one Host header, got {len(hosts)}")
        found = _HOST.fullmatch(hosts[0])
        if found is None:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"expected a host name, got {hosts[0]!r:.80}")
        if self.server.token is None and found[1].lower() not in LOCAL_NAMES:
            raise Refusal(
                HTTPStatus.MISDIRECTED_REQUEST, f"expected the host localhost, got {found[1]:.80}"
            )

    def _check_origin(self) -> None:
        """A browser says which site's page a request comes from; only our own may ask."""
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site")
        if origin is not None and origin.partition("://")[2] != self.headers["Host"]:
            raise Refusal(HTTPStatus.FORBIDDEN, f"expected no other site's page, got {origin:.80}")
        is_followed_link = (
            self.command == "GET"
            and self._target()[0] == "/"
            and self.headers.get("Sec-Fetch-Mode") == "navigate"
        )
        if site not in (None, "same-origin", "none") and not is_followed_link:
            raise Refusal(HTTPStatus.FORBIDDEN, f"expected no other site's page, got {site:.80}")

    def _check_token(self) -> None:
        """As `Authorization: Bearer TOKEN`; or as a password, which browsers ask for themselves."""
        token = self.server.token
        if token is None:
            return
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            given = _password(given)
        if not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise Refusal(
                HTTPStatus.UNAUTHORIZED,
                "expected the token, as a bearer token or as the password of any user",
                WWW_Authenticate='Basic realm="peer-to-peer: the token is the password"',
            )

    # ---- messages ----

    def _broadcast(self) -> None:
        payload = self._body()
        try:
            self._answer_json({"seq": self.server.service.broadcast(payload)}, HTTPStatus.ACCEPTED)
        except (BroadcastTimeout, NotRunning) as error:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error), Retry_After="1") from error

    def _body(self) -> bytes:
        lengths = self.headers.get_all("Content-Length", [])
        if len(lengths) != 1 or "Transfer-Encoding" in self.headers:
            raise Refusal(
                HTTPStatus.LENGTH_REQUIRED, "expected a body with one Content-Length header"
            )
        length = lengths[0].strip()
        if not (length.isascii() and length.isdigit()):
            raise Refusal(
                HTTPStatus.BAD_REQUEST, f"expected a Content-Length in bytes, got {length!r:.40}"
            )
        if len(length) > 9 or int(length) > MAX_PAYLOAD_BYTES:
            raise Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"expected at most {MAX_PAYLOAD_BYTES} bytes, got {length:.40}",
            )
        if int(length) == 0:
            raise Refusal(HTTPStatus.BAD_REQUEST, "expected a message, got an empty body")
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
        self._arriving.allow(REQUEST_TIMEOUT_S)
        payload = self.rfile.read(int(length))
        if len(payload) < int(length):
            raise Refusal(
                HTTPStatus.BAD_REQUEST, f"expected {length} bytes, got only {len(payload)}"
            )
        self._is_body_read = True
        return payload

    def _stream(self, query: str) -> None:
        """Messages as server-sent events, until the reader goes or the feed is over."""
        place, notice = self._place(query)
        if not self.server.open_stream():
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"there are {MAX_STREAMS} streams already, which is the most",
                Retry_After="5",
            )
        self.close_connection = True
        try:
            self._start("text/event-stream; charset=utf-8", X_Accel_Buffering="no")
            self._write(f"retry: 1000\n\n{notice}".encode())
            self._follow(place)
        finally:
            self.server.close_stream()

    def _follow(self, place: int) -> None:
        service = self.server.service
        while (batch := service.feed.after(place, HEARTBEAT_S)) is not None:
            parts = [_notice("skipped", messages=batch.skipped).encode()] if batch.skipped else []
            for number, data in enumerate(batch.messages, start=batch.first):
                parts += [f"id: {service.life}-{number}\ndata: ".encode(), data, b"\n\n"]
            self._write(b"".join(parts) or b": still here\n\n")
            place = batch.last

    def _place(self, query: str) -> tuple[int, str]:
        """Where a stream begins, and what its reader must know first."""
        service, given = self.server.service, self.headers.get("Last-Event-ID")
        if given:
            found = _EVENT_ID.fullmatch(given)
            if found is None:
                raise Refusal(
                    HTTPStatus.BAD_REQUEST, f"Last-Event-ID: expected an id, got {given!r:.60}"
                )
            if found[1] == service.life:
                return min(int(found[2]), service.feed.place(0)), ""
            return service.feed.place(MAX_LAST), _notice("restarted")
        last = parse_qs(query).get("last", ["0"])[-1]
        if not (last.isascii() and last.isdigit() and len(last) < 6 and int(last) <= MAX_LAST):
            raise Refusal(
                HTTPStatus.BAD_REQUEST, f"last: expected 0 to {MAX_LAST}, got {last!r:.40}"
            )
        return service.feed.place(int(last)), ""

    # ---- answers ----

    def _answer_json(self, value: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._answer(json.dumps(value, ensure_ascii=False).encode() + b"\n", JSON, status)

    def _answer(
        self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, **headers: str
    ) -> None:
        if self._has_unread_body():  # what follows on this connection would be taken for a request
            self.close_connection = True
        self._start(kind, status, Content_Length=str(len(data)), **headers)
        if self.command != "HEAD":
            self._write(data)
        if self._has_unread_body():
            self._linger()

    def _refuse(self, refusal: Refusal) -> None:
        text = json.dumps({"error": str(refusal)}).encode() + b"\n"
        self._answer(text, JSON, refusal.status, **refusal.headers)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What `http.server` finds wrong with a request."""
        self.close_connection = True
        status = HTTPStatus(code)
        self._refuse(Refusal(status, message or explain or status.phrase))

    def _start(self, kind: str, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Type": kind, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        for name, value in SECURITY_HEADERS.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.connection.settimeout(SEND_TIMEOUT_S)
        self.end_headers()

    def _write(self, data: bytes) -> None:
        self.connection.settimeout(SEND_TIMEOUT_S)
        self.wfile.write(data)

    def _has_unread_body(self) -> bool:
        headers = getattr(self, "headers", None)  # none when the request's head made no sense
        if headers is None or self._is_body_read:
            return False
        return headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers

    def _linger(self) -> None:
        """Let the sender of an unwanted body read why, before the connection is gone."""
        _shut(self.connection, socket.SHUT_WR)
        self._arriving.allow(LINGER_S)
        with contextlib.suppress(OSError):
            while self.rfile.read1():
                pass

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Visits are no events of the network."""
        _log.debug("%s " + format, self.client_address[0], *args)


def _password(credentials: str) -> str:
    """The password in what a browser sends; nothing if it makes no sense."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _notice(what: str, **details: Any) -> str:
    """Something about the stream itself, for its reader."""
    return f"event: notice\ndata: {json.dumps({'notice': what, **details})}\n\n"


def _shut(sock: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):  # the other side was faster
        sock.shutdown(how)
