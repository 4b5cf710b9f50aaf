"""The program `trust.py`: an authority, and certificates for the machines of a network.

All cryptography is the system's `openssl`, which is needed here and nowhere else. The authority's
folder holds its key, which is to leave that machine never; and for each host a folder, which is
what the programs there are given as `--tls DIR`.
"""

import argparse
import contextlib
import ipaddress
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from command_line import BAD_INPUT, FAILURE, SUCCESS, Parser, argument, complain
from messages import checked_host
from settings import VERSION
from tls import plain_name
from trust import AUTHORITY_FILE, CERTIFICATE_FILE, DENIED_FILE, KEY_FILE

AUTHORITY_KEY_FILE = "ca.key"
ISSUED_FILE = "issued.txt"  # each certificate's serial number, last day and hosts

AUTHORITY_DAYS = 3650  # another one means a visit to every machine
CERTIFICATE_DAYS = (
    397  # a year, and a month to be late; a machine that nobody looks after drops out
)
SERIAL_BITS = 159  # RFC 5280 section 4.1.2.2 allows 20 octets, of a positive number

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")  # one and the same to whoever says one of them

AUTHORITY_EXTENSIONS = """\
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""
NODE_EXTENSIONS = """\
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


class _Failed(Exception):
    """The command cannot be carried out; the text says why."""


def main() -> int:
    """The program. Returns its exit code."""
    arguments = _parser().parse_args()
    os.umask(0o077)  # what is made here is for this user alone, unless told otherwise
    try:
        arguments.carry_out(arguments)
    except _Failed as error:
        complain(str(error))
        return BAD_INPUT
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}")
        return BAD_INPUT
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or ["nothing"]
        complain(f"openssl failed: {said[-1]}")
        return FAILURE
    return SUCCESS


def _parser() -> argparse.ArgumentParser:
    trust_parser = Parser(
        prog="trust.py",
        description="Make the certificates that let a network's programs in, and keep others out.",
        allow_abbrev=False,
    )
    trust_parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    commands = trust_parser.add_subparsers(metavar="COMMAND", required=True)
    host = argument(checked_host)

    new = commands.add_parser("new", help="make an authority in a new folder")
    new.add_argument("folder", metavar="DIR", type=Path, help="new or empty")
    new.set_defaults(carry_out=lambda arguments: new_authority(arguments.folder))

    issue = commands.add_parser("issue", help="make a certificate, in DIR/HOST")
    issue.add_argument("folder", metavar="DIR", type=Path, help="the authority's")
    issue.add_argument(
        "hosts", metavar="HOST", type=host, nargs="+", help="a name or address, and others of it"
    )
    issue.set_defaults(
        carry_out=lambda arguments: issue_certificate(arguments.folder, arguments.hosts)
    )

    revoke = commands.add_parser("revoke", help="deny all certificates that a host was issued")
    revoke.add_argument("folder", metavar="DIR", type=Path, help="the authority's")
    revoke.add_argument("host", metavar="HOST", type=host, help="as it was issued, the first name")
    revoke.set_defaults(carry_out=lambda arguments: revoke_host(arguments.folder, arguments.host))
    return trust_parser


# ---- commands ------------------------------------------------------------------------------------


def new_authority(folder: Path) -> None:
    """Make an authority. The folder appears whole or not at all; none is ever overwritten."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise _Failed(f"{folder}: expected a new or empty folder; an authority is not overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _workplace(folder.parent) as work:
        made = work / "authority"
        made.mkdir(mode=0o700)
        _make_key(made / AUTHORITY_KEY_FILE)
        name = f"peer-to-peer authority {secrets.token_hex(4)}"
        _openssl(
            *("req", "-x509", "-new", "-sha256", "-days", AUTHORITY_DAYS),
            *("-config", _request(work, name, AUTHORITY_EXTENSIONS)),
            *("-key", made / AUTHORITY_KEY_FILE, "-set_serial", _serial()),
            *("-out", made / AUTHORITY_FILE),
        )
        os.replace(made, folder)
    print(
        f"{folder / AUTHORITY_KEY_FILE}: the key to the network. It is not to leave this machine."
    )
    print(f"Next: python3 trust.py issue {folder} HOST, for each machine.")


def issue_certificate(folder: Path, hosts: Sequence[str]) -> None:
    """Make a certificate for a host, and what its programs need beside it; a new key each time."""
    _check_authority(folder)
    names = list(dict.fromkeys(plain_name(host) for host in hosts))
    if any(name in LOCAL_NAMES for name in names):
        names = list(dict.fromkeys([*names, *LOCAL_NAMES]))
    target = folder / names[0]
    with _workplace(folder) as work:
        serial = _serial()
        extensions = f"{NODE_EXTENSIONS}subjectAltName = {', '.join(map(_alternative, names))}\n"
        config = _request(work, names[0], extensions)
        _make_key(work / KEY_FILE)
        _openssl(
            *("req", "-new", "-sha256", "-config", config),
            *("-key", work / KEY_FILE, "-out", work / "request"),
        )
        _openssl(
            *("x509", "-req", "-sha256", "-days", CERTIFICATE_DAYS, "-in", work / "request"),
            *("-CA", folder / AUTHORITY_FILE, "-CAkey", folder / AUTHORITY_KEY_FILE),
            *("-set_serial", serial, "-extfile", config, "-extensions", "extensions"),
            *("-out", work / CERTIFICATE_FILE),
        )
        last_day = time.strftime("%Y-%m-%d", time.gmtime(time.time() + CERTIFICATE_DAYS * 86_400))
        with (folder / ISSUED_FILE).open("a") as issued:  # first of all, or it cannot be revoked
            issued.write(f"{serial[2:]} {last_day} {' '.join(names)}\n")
        target.mkdir(mode=0o700, exist_ok=True)
        os.replace(work / KEY_FILE, target / KEY_FILE)
        os.replace(work / CERTIFICATE_FILE, target / CERTIFICATE_FILE)
    _hand_out(folder, target)
    print(f"{target}: a certificate for {', '.join(names)}, good until {last_day}.")
    print(f"Next: start its programs with --tls {target}; on another machine, copy it there first.")


def revoke_host(folder: Path, host: str) -> None:
    """Deny all that this host was issued so far; what it is issued from now on is good."""
    _check_authority(folder)
    name = plain_name(host)
    issued = (folder / ISSUED_FILE).read_text() if (folder / ISSUED_FILE).exists() else ""
    rows = [line.split() for line in issued.splitlines()]
    serials = [serial for serial, _, first, *_ in rows if first == name]
    if not serials:
        raise _Failed(f"{folder / ISSUED_FILE}: nothing was issued to {name}")
    denied = folder / DENIED_FILE
    before = denied.read_text() if denied.exists() else ""
    today = time.strftime("%Y-%m-%d")
    news = [f"{serial}  # {name}, revoked {today}\n" for serial in serials if serial not in before]
    with _workplace(folder) as work:
        (work / DENIED_FILE).write_text(before + "".join(news))
        os.replace(work / DENIED_FILE, denied)
    for target in sorted(path.parent for path in folder.glob(f"*/{CERTIFICATE_FILE}")):
        _hand_out(folder, target)
    print(f"{denied}: denies all that {name} was issued; so does each folder below {folder}.")
    print("Next: copy it into the folder of each other machine. It is read at once.")


# ---- how -----------------------------------------------------------------------------------------


def _check_authority(folder: Path) -> None:
    for name in (AUTHORITY_FILE, AUTHORITY_KEY_FILE):
        if not (folder / name).is_file():
            raise _Failed(f"{folder / name} is missing: expected the folder of an authority")


def _hand_out(folder: Path, target: Path) -> None:
    """What everybody is to have: the authority's certificate, and who is denied."""
    for name in (AUTHORITY_FILE, DENIED_FILE):
        if (folder / name).exists():
            with _workplace(target) as work:
                (work / name).write_bytes((folder / name).read_bytes())
                os.replace(work / name, target / name)


@contextlib.contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A folder for this user alone, on the same disk, gone at the end."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".trust-") as work:
        yield Path(work)


def _request(work: Path, name: str, extensions: str) -> Path:
    """What openssl is to be told: whom the certificate is for, and what it may do."""
    path = work / "request.cnf"
    path.write_text(
        "[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = extensions\n"
        f"[name]\nCN = {name[:64]}\n[extensions]\n{extensions}"
    )
    return path


def _alternative(name: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


def _serial() -> str:
    return f"0x{secrets.randbits(SERIAL_BITS) | 1:040x}"


def _make_key(path: Path) -> None:
    _openssl(
        *("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"), *("-out", path)
    )


def _openssl(*arguments: object) -> None:
    command = ["openssl", *map(str, arguments)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise _Failed(
            "openssl was not found: expected it installed, to make certificates"
        ) from error
