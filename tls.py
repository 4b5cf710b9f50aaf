"""A blocking socket under TLS 1.3, which two threads share, and what can go wrong there, in words.

Knows how two ends prove who they are and keep everybody else from what they say. Whom to believe is
the business of `trust.py`; what is said is that of `link.py`.
"""

from __future__ import annotations  # so that nothing of `ssl` is needed before its time

import contextlib
import errno
import importlib.util
import ipaddress
import socket
import sys
import threading
import time
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self, cast

RECEIVE_BYTES = 256 * 1024  # taken by one `recv`: some 16 records of TLS
MAX_UNSENT_BYTES = 64 * 1024  # answers to somebody who asks for new keys and does not read

TLS_ALERT, TLS_HANDSHAKE = 0x15, 0x16  # the first byte of who speaks TLS; a frame of ours has 0


def _loaded_when_used(name: str) -> ModuleType:
    """The module, which is loaded when something of it is first looked at."""
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} is in the standard library"
    assert spec.loader is not None, f"{name} is a module, not a folder"
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    import ssl
else:  # 3 MiB of memory, for those alone who ask for TLS
    ssl = sys.modules.get("ssl") or _loaded_when_used("ssl")


class NotTrusted(ConnectionAbortedError):
    """There is no trust between the two ends of a connection; the text says why.

    `told` is what the other end should be told, where TLS itself does not do that.
    """

    def __init__(self, reason: str, told: str = "") -> None:
        super().__init__(reason)
        self.told = told


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says, once it was verified."""

    serial: int
    names: frozenset[str]  # the hosts it is for, as `plain_name` spells them
    expires_s: float  # since the epoch

    def __str__(self) -> str:
        return f"for {', '.join(sorted(self.names)) or 'nobody'}"

    def require(self, host: str) -> None:
        """See that it is for this host. Raises NotTrusted."""
        if plain_name(host) not in self.names:
            fault = f"certificate is not for {host}, but {self}"
            raise NotTrusted(f"its {fault}", f"your {fault}")


def plain_name(host: str) -> str:
    """The one spelling by which hosts are compared. There are no wildcards."""
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return host.lower().removesuffix(".")


class TlsSocket:
    """A connected socket under TLS. One thread may receive while another sends.

    An `SSLSocket` that two threads use at once is nothing to rely on. Here the records are made and
    read in memory, under a lock that nobody holds while the real socket blocks.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, is_server: bool) -> None:
        self._socket = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=is_server)
        self._lock = threading.Lock()  # guards the three above
        self._sending = threading.Lock()  # records leave in the order in which they were made
        self._has_begun = False  # the other side has, and it speaks TLS
        self._received = memoryview(bytearray(RECEIVE_BYTES))  # the receiving thread's alone
        self._has_rest = False  # of a record that did not fit into the space it was read into
        self._is_closed = False  # the other side has said its last
        self._is_finished = False  # we have said our last; what still comes is thrown away
        self._ended: NotTrusted | None = None
        self.certificate = Certificate(0, frozenset(), 0.0)  # the other side's, once it was shown

    def shake_hands(self, timeout_s: float) -> Self:
        """Prove to each other who we are, all within the time-out. Raises NotTrusted, OSError.

        After a TimeoutError, another call goes on where this one was.
        """
        deadline_s = time.monotonic() + timeout_s
        while not self._has_shaken():
            self._socket.settimeout(time_left(deadline_s))
            count = self._socket.recv_into(self._received)
            if count == 0:
                raise ConnectionResetError(errno.ECONNRESET, "closed while shaking hands")
            if not self._has_begun and self._received[0] not in (TLS_ALERT, TLS_HANDSHAKE):
                raise NotTrusted(
                    "it does not speak TLS: was it started without --tls?",
                    "here everybody speaks TLS: start with --tls",
                )
            self._has_begun = True
            self._incoming.write(self._received[:count])
        self.certificate = certificate_of(self._tls)
        return self

    def _has_shaken(self) -> bool:
        """One step: whether it was the last. Whatever is to be said to the other side is sent."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise NotTrusted(_in_words(error)) from error
        finally:
            with contextlib.suppress(OSError):  # what was received says more
                self._socket.sendall(self._outgoing.read())
        return True

    def sendall(self, data: bytes) -> None:
        """Send all of it. Raises OSError."""
        with self._sending:
            with self._lock:
                self._tls.write(data)
                records = self._outgoing.read()
            self._socket.sendall(records)

    def recv_into(self, space: memoryview) -> int:
        """Fill some of the space; 0 at the end. Raises OSError, NotTrusted."""
        while True:
            with self._lock:
                count = 0 if self._is_finished else self._decrypt(space)
                is_over, unsent = self._is_closed, self._outgoing.pending
            if unsent:
                self._answer(unsent)
            if count or is_over:
                return count
            received = self._receive()
            if received == 0:
                return 0
            with self._lock:
                self._incoming.write(self._received[:received])

    def _decrypt(self, space: memoryview) -> int:
        """What the complete records say, as far as there is space. The caller holds the lock."""
        count = 0
        try:
            while count < len(space) and (self._has_rest or self._incoming.pending):
                self._has_rest = False
                read = cast(int, self._tls.read(len(space) - count, space[count:]))
                if read == 0:
                    self._is_closed = True
                    break
                count += read
            self._has_rest = count == len(space)
        except ssl.SSLWantReadError:
            pass  # the rest of that record is still on its way
        except ssl.SSLError as error:
            is_said = "ALERT" in (error.reason or "")  # at first, it may say that it trusts us not
            kind = NotTrusted if is_said else ConnectionAbortedError
            raise kind(_in_words(error)) from error
        return count

    def _answer(self, unsent: int) -> None:
        """Send what TLS itself has to say. If another thread is sending, it does that as well."""
        if unsent > MAX_UNSENT_BYTES:
            raise ConnectionAbortedError("it asks for new keys again and again, and does not read")
        if self._sending.acquire(blocking=False):
            try:
                with self._lock:
                    records = self._outgoing.read()
                self._socket.sendall(records)
            finally:
                self._sending.release()

    def _receive(self) -> int:
        """Wait for bytes; 0 when there will be none, and we said our last. Raises OSError."""
        try:
            received = self._socket.recv_into(self._received)
            if received == 0 and not self._is_finished:  # TCP has ended, which anybody can bring
                raise ConnectionResetError(errno.ECONNRESET, "closed without a goodbye")
        except OSError:
            if self._ended is not None:
                raise self._ended from None
            raise
        return received

    def finish_sending(self) -> None:
        """The other side reads to the end of what was sent; nothing from it is wanted any more."""
        with self._sending:
            with self._lock:
                self._is_finished = True
                with contextlib.suppress(ssl.SSLError):  # its own goodbye is still to come
                    self._tls.unwrap()
                records = self._outgoing.read()
            self._socket.sendall(records)
        self._socket.shutdown(socket.SHUT_WR)

    def end(self, reason: NotTrusted) -> None:
        """End it at once, from any thread; whoever receives is told the reason."""
        self._ended = reason
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


def time_left(deadline_s: float) -> float:
    """The seconds until then (`time.monotonic`). Raises TimeoutError when there are none.

    A socket's own time-out is not enough: somebody who always has one byte more never meets it.
    """
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def certificate_of(tls: ssl.SSLObject) -> Certificate:
    """What the other side has shown."""
    shown = cast(dict[str, Any], tls.getpeercert())
    names = frozenset(plain_name(name) for _, name in shown.get("subjectAltName", ()))
    return Certificate(
        int(shown["serialNumber"], 16), names, ssl.cert_time_to_seconds(shown["notAfter"])
    )


# ---- what went wrong, in words -------------------------------------------------------------------

_FOREIGN = "certificate is from another authority"
_FAULTS = {  # by OpenSSL's number of what is wrong with a certificate
    7: _FOREIGN,  # an authority of the same name
    9: "certificate is not valid yet: do the clocks agree?",
    10: "certificate has expired",
    18: _FOREIGN,
    19: _FOREIGN,
    20: _FOREIGN,
    21: _FOREIGN,
}
_SAID = {  # by part of the name that OpenSSL gives to an alert; what the other side means by it
    "ALERT_UNKNOWN_CA": f"your {_FOREIGN}",
    "ALERT_DECRYPT_ERROR": f"your {_FOREIGN}",
    "ALERT_CERTIFICATE_EXPIRED": "your certificate has expired",
    "ALERT_CERTIFICATE_REQUIRED": "you showed no certificate",
    "ALERT_BAD_CERTIFICATE": "your certificate is not accepted: do the clocks agree?",
    "ALERT_UNSUPPORTED_CERTIFICATE": "your certificate is not made for this",
    "ALERT_CERTIFICATE_UNKNOWN": "your certificate is not accepted",
}


def fault_of(error: ssl.SSLCertVerificationError) -> str:
    """What is wrong with a certificate: `certificate has expired`."""
    text = f"certificate is not accepted: {error.verify_message}"
    return _FAULTS.get(error.verify_code, text)


def _in_words(error: ssl.SSLError) -> str:
    """The error in words for a person."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its {fault_of(error)}"
    name = error.reason or "no reason given"
    for alert, meaning in _SAID.items():
        if alert in name:
            return f"it says: {meaning}"
    if "DID_NOT_RETURN_A_CERTIFICATE" in name:
        return "it shows no certificate"
    if "VERSION" in name or "UNSUPPORTED_PROTOCOL" in name:
        return "it does not speak TLS 1.3"
    return f"its TLS is not understood: {name.lower().replace('_', ' ')}"
