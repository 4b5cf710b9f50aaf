"""Certificates for tests: good ones by `trust.py`, and such as it would never make by `openssl`."""

import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path

from helpers import ROOT
from trust import Trust

HOSTS = ("localhost", "127.0.0.1", "::1")


class Authority:
    """An authority in a folder of its own, made by the program that users have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        run(sys.executable, ROOT / "trust.py", "new", folder)

    def issue(self, *hosts: str) -> Path:
        """A certificate as users get it: the folder for `--tls`."""
        run(sys.executable, ROOT / "trust.py", "issue", self.folder, *hosts)
        return self.folder / hosts[0]

    def issue_odd(
        self,
        folder: Path,
        *,
        hosts: tuple[str, ...] = HOSTS,
        begins_s: float = -60,
        ends_s: float = 3600,
        extensions: str = "",
        issuer: Path | None = None,
    ) -> Path:
        """A certificate of the test's own making, good from and to so many seconds from now."""
        folder.mkdir(parents=True)
        names = [f"{'IP' if host[-1].isdigit() else 'DNS'}:{host}" for host in hosts]
        config = folder / "ca.cnf"
        config.write_text(CONFIG.format(folder=folder, names=",".join(names), more=extensions))
        (folder / "index").touch()
        (folder / "serial").write_text(f"{secrets.randbits(120):032x}\n")
        certificate, key = (
            (self.folder / "ca.pem", self.folder / "ca.key")
            if issuer is None
            else (issuer / "node.pem", issuer / "node.key")
        )
        run(
            *("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-config", config, "-keyout", folder / "node.key"),
            *("-out", folder / "request"),
        )
        run(
            *("openssl", "ca", "-batch", "-notext", "-config", config, "-in", folder / "request"),
            *("-cert", certificate, "-keyfile", key, "-out", folder / "node.pem"),
            *("-startdate", stamp(begins_s), "-enddate", stamp(ends_s)),
        )
        shutil.copy(self.folder / "ca.pem", folder)
        if issuer is not None:  # so that the whole chain is shown
            with (folder / "node.pem").open("a") as chain:
                chain.write(certificate.read_text())
        return folder


def disguised(good: Path, other: Path) -> Trust:
    """What believes as with the good folder, and shows the other's certificate, good or not."""
    trust = Trust(str(good))
    wear(trust, other)
    return trust


def wear(trust: Trust, other: Path) -> None:
    """Show the other's certificate from now on. (A program would not start with a bad one.)"""
    for context in (trust._papers.dialling, trust._papers.accepting):
        context.load_cert_chain(other / "node.pem", other / "node.key")


CONFIG = """\
[req]
prompt = no
distinguished_name = name
[name]
CN = made by a test
[ca]
default_ca = this
[this]
database = {folder}/index
serial = {folder}/serial
new_certs_dir = {folder}
default_md = sha256
policy = any
x509_extensions = extensions
[any]
commonName = supplied
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
{more}
"""


def stamp(seconds: float) -> str:
    """That many seconds from now, as openssl wants to be told."""
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + seconds))


def run(*command: object) -> str:
    """What it printed; fails with what it complained about."""
    parts = [str(part) for part in command]
    done = subprocess.run(parts, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
