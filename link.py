"""Blocking TCP sockets that carry frames: listening, dialling, and one connection.

The only module that touches sockets. It knows how messages get from one process to another, and
nothing of why. Every call here may block; none is made while a lock is held.
"""

import contextlib
import errno
import ipaddress
import logging
import os
import random
import socket
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from liveness import Tried
from messages import (
    Address,
    AddressInUse,
    BadAddress,
    Echo,
    Message,
    PortForbidden,
    Probe,
    Untrusted,
    WireError,
    has_port,
)
from tls import TLS_HANDSHAKE, Certificate, NotTrusted, TlsSocket, time_left
from trust import Trust
from wire import FrameBuffer, Run, encode

_log = logging.getLogger("peer-to-peer")

USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)  # here
LARGE_BYTES = 16 << 10  # more than that is sent as it lies: to copy it would cost more than a call
BACKLOG = 512  # connections the kernel holds for us while we accept others
LOOK_TIMEOUT_S = 0.001  # for what has arrived already
PARTING_TIMEOUT_S = 1.0  # for whom we do not trust to read why


class Connection:
    """One connected socket. One thread may receive while another sends."""

    def __init__(self, sock: socket.socket, source: str = "") -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self.source = source  # whom to count it to; empty if we dialled
        self.sent_bytes = 0  # written by the thread that sends
        self.received_bytes = 0  # and by the one that receives
        self._carrier: socket.socket | TlsSocket = sock  # what the bytes go through
        self._tls: TlsSocket | None = None  # from the first of shaking hands on
        self._certificate: Certificate | None = None  # shown by the other side
        self._frames = FrameBuffer()
        self._waiting: list[Message | Run] = []  # received with an earlier frame, not yet given out

    def send(self, items: Sequence[Message | Run]) -> None:
        """Send all of it; blocks while the other side does not read. Raises OSError."""
        small: list[bytes] = []  # many of them go in one call
        for item in items:
            data = item.data if isinstance(item, Run) else encode(item)
            if len(data) < LARGE_BYTES:
                small.append(data)
                continue
            if small:
                self.send_frames(b"".join(small))
                small = []
            self.send_frames(data)
        if small:
            self.send_frames(b"".join(small))

    def send_frames(self, data: bytes) -> None:
        """Send what is encoded already. Raises OSError."""
        self._carrier.sendall(data)
        self.sent_bytes += len(data)

    def frames(self) -> Iterator[list[Message | Run]]:
        """Whatever arrives, in lists, until the other side closes. Raises OSError, WireError."""
        if self._waiting:
            yield self._waiting
        while count := self._carrier.recv_into(self._frames.space()):
            self.received_bytes += count
            if items := self._frames.received(count):
                yield items

    def secure(self, trust: Trust, dialled: Address | None, timeout_s: float) -> None:
        """Speak TLS from now on, if both sides trust each other. Raises NotTrusted, OSError.

        `dialled` is the address that we dialled; the other side's certificate has to name it. After
        a TimeoutError, another call goes on where this one was.
        """
        try:
            if self._tls is None:
                begin = trust.accept if dialled is None else trust.connect
                self._tls = begin(self.socket)
            self._carrier = tls = self._tls.shake_hands(timeout_s)
            self._certificate = tls.certificate
            trust.check(tls)
            if dialled is not None:
                self._certificate.require(dialled.host)
        except NotTrusted as error:
            self._turn_away(error)
            raise

    @property
    def is_secure(self) -> bool:
        """Whether it speaks TLS, and both have shaken hands."""
        return self._certificate is not None

    def require(self, address: Address) -> None:
        """See that the other side may call itself so. Raises NotTrusted; over plain TCP it may."""
        if self._certificate is not None:
            try:
                self._certificate.require(address.host)
            except NotTrusted as error:
                self._turn_away(error)
                raise

    def _turn_away(self, error: NotTrusted) -> None:
        """Say why, and see that it can be read before the connection is closed."""
        deadline_s = time.monotonic() + PARTING_TIMEOUT_S
        with contextlib.suppress(OSError):
            self.socket.settimeout(PARTING_TIMEOUT_S)
            if error.told:
                self.send([Untrusted(error.told)])
            self.finish_sending()
            while self.socket.recv(LARGE_BYTES):  # whatever it is: it is not wanted
                self.socket.settimeout(time_left(deadline_s))

    def receive_first(self, trust: Trust | None, timeout_s: float) -> Message:
        """The first message of who dialled us, behind TLS if that is spoken here.

        All of it within the time-out. Raises NotTrusted, OSError, WireError.
        """
        deadline_s = time.monotonic() + timeout_s
        if trust is not None:
            self.secure(trust, None, timeout_s)
        try:
            return self.receive_one(time_left(deadline_s))
        except WireError:
            if trust is not None or not self._frames.begins_with(TLS_HANDSHAKE):
                raise
        error = NotTrusted(
            "it speaks TLS: was this program started without --tls?",
            "here nobody speaks TLS: start without --tls",
        )
        self._turn_away(error)
        raise error

    def receive_one(self, timeout_s: float) -> Message:
        """The next message, whole within the time-out. Raises NotTrusted, OSError, WireError."""
        deadline_s = time.monotonic() + timeout_s
        while not self._waiting:
            self.socket.settimeout(time_left(deadline_s))
            count = self._carrier.recv_into(self._frames.space())
            if count == 0:
                raise ConnectionResetError(errno.ECONNRESET, "closed by the other side")
            self._waiting = self._frames.received(count)
        self.socket.settimeout(None)
        first = self._waiting.pop(0)
        if isinstance(first, Run):
            raise WireError("broadcast: expected another message first")
        if isinstance(first, Untrusted):
            raise NotTrusted(f"it says: {first.reason:.200}")
        return first

    def ask(self, message: Message, timeout_s: float) -> Message:
        """Send a message and wait for its answer. Raises NotTrusted, OSError, WireError."""
        self.socket.settimeout(timeout_s)
        with contextlib.suppress(ConnectionError):  # it may have said why, which is read below
            self.send([message])
        return self.receive_one(timeout_s)

    def is_over(self) -> bool:
        """Whether the other side has closed; does not wait. What has come is kept."""
        self.socket.settimeout(0)
        try:
            count = self._carrier.recv_into(self._frames.space())
            self._waiting += self._frames.received(count)
            return count == 0
        except BlockingIOError:
            return False
        except (OSError, WireError):
            return True
        finally:
            with contextlib.suppress(OSError):
                self.socket.settimeout(None)

    def finish_sending(self) -> None:
        """The other side reads to the end of what was sent, and then sees that it is the end.

        What still comes from it may be thrown away.
        """
        with contextlib.suppress(OSError):
            if isinstance(self._carrier, TlsSocket):
                self._carrier.finish_sending()
            else:
                self.socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """End it at once, from any thread: whoever waits in a call here is woken."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give it up. Only for the last thread that uses it: its descriptor may be reused."""
        self.abort()
        self.socket.close()


_WHY_NOT = {
    errno.EADDRNOTAVAIL: "that is no address of this machine",
    errno.EACCES: "ports below 1024 are for the administrator",
}


def cannot_listen(host: str, port: int, error: OSError) -> BadAddress | AddressInUse:
    """What to raise when binding or listening failed."""
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(f"port {port} on {host} is in use")
    why = _WHY_NOT.get(error.errno or 0) or os.strerror(error.errno or 0)
    kind = PortForbidden if error.errno in (errno.EACCES, errno.EPERM) else BadAddress
    return kind(f"cannot listen on {host} port {port}: {why}")


class Listener:
    """A bound socket that accepts connections."""

    def __init__(self, host: str, port: int) -> None:
        """Bind and listen; port 0 takes a free one. Raises BadAddress, AddressInUse."""
        family, found = resolve(host, port)
        try:
            self._socket = socket.create_server(
                found, family=family, backlog=BACKLOG, dualstack_ipv6=host == "::"
            )
        except OSError as error:
            raise cannot_listen(host, port, error) from error
        host, port = self._socket.getsockname()[:2]
        self.address = Address(host, port)

    def accept(self) -> Connection:
        """The next connection. Raises OSError when closed, or when no descriptor is left."""
        sock, address = self._socket.accept()
        return Connection(sock, source_of(address[0]))

    def abort(self) -> None:
        """Accept no more, from any thread: whoever waits in `accept` is woken."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the port back. Only for the last thread that uses it."""
        self._socket.close()


def _looked_up(host: str, port: int, flags: int = 0) -> list[Any]:
    """All there is behind a name. Raises OSError, UnicodeError.

    `localhost` is this machine even where no file says so, as in a bare chroot (RFC 6761, 6.3).
    """
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror:
        if host != "localhost":
            socket.socket().close()  # raises if no descriptor is left, which a look-up keeps quiet
            raise
        return socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM, flags=flags)


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """What to bind for a host: its first IPv4 address, else its first IPv6 one."""
    if not 0 <= port <= 65535:
        raise BadAddress(f"expected a port from 0 to 65535, got {port}")
    try:
        found = _looked_up(host, port, socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise BadAddress(f"no address found for the host {host!r:.80}") from error
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, (str(address[0]), int(address[1]))


def each_of(address: Address) -> list[Address]:
    """The addresses behind a name that stands for many machines; else this one as it is.

    A name with one IPv4 and one IPv6 address is one machine. Raises OSError when the name is not
    known, or the name service is silent.
    """
    try:
        found = _looked_up(*address)
    except UnicodeError as error:
        raise OSError(errno.EINVAL, "no host name") from error
    hosts = [str(entry[4][0]) for entry in found]
    families = [[h for h in hosts if ":" not in h], [h for h in hosts if ":" in h]]
    most = max(families, key=len)
    return [Address(host, address.port) for host in most] if len(most) > 1 else [address]


def source_of(host: str) -> str:
    """Whom a connection from there is counted to: one IPv4 address, or one IPv6 network of 2^64."""
    found = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(found, ipaddress.IPv4Address):
        return host
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, 64), strict=False))


class Waiting:
    """Where some threads wait for other sides; any thread can end all of it, for good."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self.is_over = False

    def begin(self, sock: socket.socket) -> None:
        """It is waited there from now on. Raises OSError when that is over."""
        with self._lock:
            self._sockets.add(sock)
            is_over = self.is_over
        if is_over:
            raise ConnectionAbortedError(errno.ECONNABORTED, "Told to stop")

    def end(self) -> None:
        """Nothing more is received, so whoever waits is woken; last words may still be sent."""
        with self._lock:
            self.is_over = True
            sockets = list(self._sockets)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RD)  # Linux gives up connecting, too


def dial(
    address: Address, timeout_s: float, trust: Trust | None, waiting: Waiting | None = None
) -> Connection:
    """Connect, and prove who we are if there is trust to be made; `waiting` can be ended.

    Raises ConnectionRefusedError when nobody listens there, NotTrusted, OSError otherwise.
    """
    deadline_s = time.monotonic() + timeout_s
    connection = _reach(address, timeout_s, waiting)
    if trust is not None:
        try:
            connection.secure(trust, address, time_left(deadline_s))
        except BaseException:
            connection.close()
            raise
    return connection


def _reach(address: Address, timeout_s: float, waiting: Waiting | None = None) -> Connection:
    """Connect, and say nothing yet."""
    sock = _connected(address, timeout_s, waiting)
    if sock.getsockname() == sock.getpeername():  # TCP may connect a free local port to itself
        sock.close()
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    return Connection(sock)


def _connected(address: Address, timeout_s: float, waiting: Waiting | None) -> socket.socket:
    """As `socket.create_connection`; but the port it takes on our side is kept from nobody.

    The system may give a connection a port that a peer is to listen on next, and holds it for a
    minute after the end.
    """
    failure = OSError(errno.EADDRNOTAVAIL, "this machine has no address or port to dial it from")
    for family, kind, protocol, _, found in _looked_up(*address):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.settimeout(timeout_s)
            if waiting is not None:
                waiting.begin(sock)
            sock.connect(found)
            return sock
        except OSError as error:
            sock.close()
            if error.errno != errno.EADDRNOTAVAIL:  # that says nothing of the other side
                failure = error
    raise failure


def ask(address: Address, message: Message, timeout_s: float, trust: Trust | None) -> Message:
    """One question over a connection of its own. Raises NotTrusted, OSError, WireError."""
    connection = dial(address, timeout_s, trust)
    try:
        return connection.ask(message, timeout_s)
    finally:
        connection.close()


def try_address(address: Address, timeout_s: float, trust: Trust | None, tries: int = 1) -> Tried:
    """Whether a live process answers there: a stopped one is connected to, but cannot echo.

    Silence has so many chances, each over a connection of its own. Those before it stay open: an
    echo that comes late, on any of them, is an echo; be it that shaking hands took too long.
    """
    number = random.getrandbits(63)
    asked: list[Connection] = []
    try:
        for _ in range(tries):
            outcome = _try_once(address, number, timeout_s, trust, asked)
            if outcome is not Tried.SILENT:
                return outcome
            if any(_echoes_late(connection, address, number, trust) for connection in asked):
                return Tried.ECHOED
        return Tried.SILENT
    finally:
        for connection in asked:
            connection.close()


def _try_once(
    address: Address,
    number: int,
    timeout_s: float,
    trust: Trust | None,
    asked: list[Connection],
) -> Tried:
    """Try it over one more connection, which joins those that were asked."""
    deadline_s = time.monotonic() + timeout_s
    try:
        connection = _reach(address, timeout_s)
        asked.append(connection)
        if trust is not None:
            connection.secure(trust, address, time_left(deadline_s))
        reply = connection.ask(Probe(number), timeout_s)
    except ConnectionRefusedError:
        return Tried.REFUSED
    except NotTrusted:
        return Tried.UNTRUSTED
    except WireError:
        return Tried.SILENT
    except OSError as error:
        return Tried.UNTRIED if error.errno in USED_UP else Tried.SILENT
    return Tried.ECHOED if reply == Echo(number) else Tried.SILENT


def _echoes_late(
    connection: Connection, address: Address, number: int, trust: Trust | None
) -> bool:
    """Go on where it was left: shaking hands, or waiting for the echo. Whether it has come."""
    try:
        if trust is not None and not connection.is_secure:
            connection.secure(trust, address, LOOK_TIMEOUT_S)
            return connection.ask(Probe(number), LOOK_TIMEOUT_S) == Echo(number)
        return connection.receive_one(LOOK_TIMEOUT_S) == Echo(number)
    except (OSError, WireError):
        return False


def advertised(bound: Address, advertise: str | None, trust: Trust | None) -> Address:
    """The address that others are told to dial: as given (`HOST[:PORT]`), else what was bound.

    Bound to every address of the machine, it is the one that routes to other machines. Raises
    BadAddress, and BadCertificate when our certificate is not for that host.
    """
    address = _advertised(bound, advertise)
    if trust is not None:
        trust.check_own(address)
    return address


def _advertised(bound: Address, advertise: str | None) -> Address:
    if advertise is not None:
        text = advertise if has_port(advertise) else f"{advertise}:{bound.port}"
        return Address.parse(text)
    if bound.host in ("0.0.0.0", "::"):
        return Address(_own_host(bound.host), bound.port)
    return bound


def _own_host(wildcard: str) -> str:
    """The address this machine would use towards others. Connecting UDP sends nothing."""
    family, elsewhere = (
        (socket.AF_INET6, "2001:db8::1") if wildcard == "::" else (socket.AF_INET, "192.0.2.1")
    )
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((elsewhere, 9))
            return str(sock.getsockname()[0])
    except OSError:
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        _log.warning("no way to other machines found: known as %s; --advertise names another", host)
        return host


def reason_of(error: Exception) -> str:
    """The error in a few words, without numbers that only a programmer knows."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    return str(error)
