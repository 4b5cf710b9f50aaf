"""Who is let in: a folder of certificates of the network's own authority.

Knows whom to believe and what to show; the bytes are the business of `tls.py`. A folder holds what
one program needs: `ca.pem` (the authority it believes), `node.pem` and `node.key` (its own
certificate and key), and `denied.txt` if certificates were revoked. All of it is read again when it
changes. Run it (`python3 trust.py`) to make such folders.
"""

from __future__ import annotations  # so that nothing of `ssl` is needed before its time

import contextlib
import re
import socket
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from messages import Address, BadCertificate
from tls import Certificate, NotTrusted, TlsSocket, certificate_of, fault_of

if TYPE_CHECKING:
    import ssl
else:
    from tls import ssl

AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE = "ca.pem", "node.pem", "node.key"
FILES = (AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE)
DENIED_FILE = "denied.txt"  # may be missing

LOOK_INTERVAL_S = 1.0  # how often the files are looked at; a handful of system calls
WARN_BEFORE_S = 30 * 86_400.0  # our certificate is about to expire: time to make another
WARN_INTERVAL_S = 86_400.0  # and a line about that each day


@dataclass(frozen=True, slots=True)
class _Papers:
    """What one reading of a folder gave."""

    dialling: ssl.SSLContext
    accepting: ssl.SSLContext
    own: Certificate
    denied: frozenset[int]  # serial numbers


class Trust:
    """What one program believes, and what it shows of itself."""

    def __init__(self, folder: str) -> None:
        """Read the folder. Raises BadCertificate that says what is wrong with it."""
        self._folder = Path(folder)
        self._lock = threading.Lock()  # guards the next two
        self._papers = _read(self._folder)  # replaced, never changed
        self._open: weakref.WeakSet[TlsSocket] = weakref.WeakSet()  # whose certificates were good
        self._looked_s = time.monotonic()
        self._warned_s = 0.0  # since the epoch
        self._seen = self._read = self._stamp()

    # ---- for any thread ----

    def connect(self, sock: socket.socket) -> TlsSocket:
        """To speak TLS with whom we dialled, once both have shaken hands."""
        return TlsSocket(sock, self._papers.dialling, is_server=False)

    def accept(self, sock: socket.socket) -> TlsSocket:
        """To speak TLS with who dialled us, once both have shaken hands."""
        return TlsSocket(sock, self._papers.accepting, is_server=True)

    def check(self, tls: TlsSocket) -> None:
        """See that its certificate is not denied; if it will be, `look` ends it. Raises NotTrusted.

        TLS has no word for it here: Python gives it no say in the handshake.
        """
        with self._lock:
            self._open.add(tls)
            is_denied = tls.certificate.serial in self._papers.denied
        if is_denied:
            raise NotTrusted("its certificate was revoked", "your certificate was revoked")

    def check_own(self, address: Address) -> None:
        """See that our certificate is for our own address. Raises BadCertificate."""
        try:
            self._papers.own.require(address.host)
        except NotTrusted:
            raise BadCertificate(
                f"{self._folder / CERTIFICATE_FILE} is {self._papers.own}, but others know this "
                f"program as {address.host}: issue a certificate for that, or --advertise another"
            ) from None

    # ---- for one thread of the program ----

    def look(self) -> str:
        """Read the folder again if it changed; to be called often. What there is to say about it.

        A change is read once the files have stayed the same from one look to the next, for they may
        just be being copied. Whoever is denied from then on is parted from.
        """
        if time.monotonic() < self._looked_s + LOOK_INTERVAL_S:
            return ""
        self._looked_s = time.monotonic()
        stamp = self._stamp()
        is_settled, self._seen = stamp == self._seen, stamp
        if not is_settled or stamp == self._read:
            return self._warning()
        self._read = stamp
        try:
            papers = _read(self._folder)
        except BadCertificate as error:
            return f"{error}; going on with what was read before"
        with self._lock:
            self._papers = papers
            denied = [tls for tls in self._open if tls.certificate.serial in papers.denied]
        for tls in denied:
            tls.end(NotTrusted("its certificate was revoked"))
        return f"{self._folder}: read anew; the certificate is {papers.own}, {self._expiry()}"

    def _warning(self) -> str:
        """Once a day, if our certificate expires soon."""
        now_s = time.time()
        is_soon = now_s > self._papers.own.expires_s - WARN_BEFORE_S
        if not is_soon or now_s < self._warned_s + WARN_INTERVAL_S:
            return ""
        self._warned_s = now_s
        return f"{self._folder / CERTIFICATE_FILE}: {self._expiry()}; issue another"

    def _expiry(self) -> str:
        day = time.strftime("%Y-%m-%d", time.gmtime(self._papers.own.expires_s))
        return f"good until {day}"

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes when a file does."""
        return tuple(_stamp(self._folder / name) for name in (*FILES, DENIED_FILE))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(folder: Path) -> _Papers:
    """Everything in the folder, tried out. Raises BadCertificate."""
    for name in FILES:
        if not (folder / name).is_file():
            raise BadCertificate(f"{folder / name} is missing: expected {', '.join(FILES)} there")
    dialling = _context(folder, ssl.PROTOCOL_TLS_CLIENT)
    accepting = _context(folder, ssl.PROTOCOL_TLS_SERVER)
    accepting.num_tickets = 0  # nobody comes back without being looked at again
    own = _own_certificate(folder, dialling, accepting)
    return _Papers(dialling, accepting, own, _denied(folder / DENIED_FILE))


def _context(folder: Path, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # we do it, and for both sides; OpenSSL does it for one
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # as by default from Python 3.13 on
    path = folder / AUTHORITY_FILE
    try:
        context.load_verify_locations(path)
        path = folder / CERTIFICATE_FILE
        context.load_cert_chain(path, folder / KEY_FILE, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            fault = f"is not the certificate of the key in {KEY_FILE}"
        elif path.name == AUTHORITY_FILE:
            fault = "holds no certificate in PEM"
        else:
            fault = f"and {KEY_FILE} hold no certificate and key in PEM, without a password"
        raise BadCertificate(f"{path} {fault}") from error
    except OSError as error:
        raise BadCertificate(f"{path} cannot be read: {error.strerror}") from error
    return context


def _no_password() -> str:
    """Asked for when a key is encrypted. (Without this, OpenSSL would ask on the terminal.)"""
    return ""


def _own_certificate(
    folder: Path, dialling: ssl.SSLContext, accepting: ssl.SSLContext
) -> Certificate:
    """Our certificate, after shaking hands with ourselves: others will find it good as well."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    dialler = dialling.wrap_bio(back, there)
    accepter = accepting.wrap_bio(there, back, server_side=True)
    try:
        for side in (dialler, accepter, dialler, accepter):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLCertVerificationError as error:
        raise BadCertificate(f"{folder / CERTIFICATE_FILE}: the {fault_of(error)}") from error
    return certificate_of(dialler)


def _denied(path: Path) -> frozenset[int]:
    """The serial numbers in the list; none if there is no list. Raises BadCertificate."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise BadCertificate(f"{path} cannot be read: {error.strerror}") from error
    serials = set()
    for number, line in enumerate(text.splitlines(), start=1):
        serial = line.partition("#")[0].strip()
        if serial and not re.fullmatch("[0-9A-Fa-f]{1,40}", serial):
            expected = "expected a serial number in hexadecimal"
            raise BadCertificate(f"{path}, line {number}: {expected}, got {serial!r:.60}")
        if serial:
            serials.add(int(serial, 16))
    return frozenset(serials)


if __name__ == "__main__":
    import authority

    sys.exit(authority.main())
