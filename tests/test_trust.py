"""Folders of certificates: what `trust.py` makes of them, and what a program thinks of one."""

import os
import shutil
import socket
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import trust as trust_module
from authorities import Authority
from helpers import ROOT, let_pass, wait_until
from messages import Address, BadCertificate
from programs import Programs
from tls import Certificate, plain_name
from trust import Trust

DAY_S = 86_400


@pytest.fixture
def own(tmp_path: Path, certificate: Path) -> Path:
    """A copy of the certificate's folder, to be changed."""
    return Path(shutil.copytree(certificate, tmp_path / "own"))


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def made(
    programs: Programs, *arguments: object, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    """`trust.py`, once it has ended. Whoever runs it lets others read what is made, by default."""
    environment = {**programs.environment, "PATH": path or programs.environment["PATH"]}
    done = subprocess.run(
        [sys.executable, str(ROOT / "trust.py"), *map(str, arguments)],
        cwd=programs.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        umask=0o022,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def refused(programs: Programs, *arguments: object, path: str | None = None) -> str:
    """The one line with which it refuses these arguments."""
    done = made(programs, *arguments, path=path)
    assert done.returncode == 2, done
    [line] = done.stderr.splitlines()
    return line


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ---- new


def test_an_authority_is_for_its_owner_alone(programs: Programs) -> None:
    assert made(programs, "new", "trust").returncode == 0
    folder = programs.folder / "trust"
    assert mode(folder) == 0o700
    assert {path.name: mode(path) for path in folder.iterdir()} == {
        "ca.key": 0o600,
        "ca.pem": 0o600,
    }


def test_an_authority_is_never_overwritten(programs: Programs) -> None:
    folder = programs.folder / "trust"
    made(programs, "new", folder)
    made(programs, "issue", folder, "localhost")
    before = contents(folder)
    assert "new or empty folder" in refused(programs, "new", folder)
    (folder / "ca.key").unlink()
    assert "new or empty folder" in refused(programs, "new", folder)
    del before["ca.key"]
    assert contents(folder) == before


def test_an_empty_folder_will_do(programs: Programs) -> None:
    (programs.folder / "trust").mkdir()
    assert made(programs, "new", "trust").returncode == 0
    assert mode(programs.folder / "trust") == 0o700


def test_two_authorities_are_strangers_to_each_other(tmp_path: Path) -> None:
    one, other = (Authority(tmp_path / name).issue("localhost") for name in ("one", "other"))
    shutil.copy(other / "ca.pem", one)
    with pytest.raises(BadCertificate, match="from another authority"):
        Trust(str(one))


def test_one_authority_can_take_the_place_of_another_step_by_step(tmp_path: Path) -> None:
    """First everybody believes both; then one after the other gets a certificate of the new one."""
    old, new = (Authority(tmp_path / name).issue("localhost") for name in ("old", "new"))
    both = (old / "ca.pem").read_text() + (new / "ca.pem").read_text()
    for folder in (old, new):
        (folder / "ca.pem").write_text(both)
    left, right = (Trust(str(folder)) for folder in (old, new))
    assert _shaken(left, right) == (right._papers.own, left._papers.own)
    assert _shaken(right, left) == (left._papers.own, right._papers.own)


def _shaken(dialling: Trust, accepting: Trust) -> tuple[Certificate, Certificate]:
    """What each of two that shook hands has seen of the other."""
    near, far = socket.socketpair()
    with near, far, ThreadPoolExecutor() as threads:
        accepted = threads.submit(accepting.accept(far).shake_hands, 20)
        return dialling.connect(near).shake_hands(20).certificate, accepted.result().certificate


# ---- issue


def test_a_key_is_for_its_owner_alone(programs: Programs) -> None:
    made(programs, "new", "trust")
    assert made(programs, "issue", "trust", "192.0.2.10", "a.example").returncode == 0
    folder = programs.folder / "trust" / "192.0.2.10"
    assert mode(folder) == 0o700
    assert {path.name: mode(path) for path in folder.iterdir()} == dict.fromkeys(
        ["ca.pem", "node.key", "node.pem"], 0o600
    )
    assert list((programs.folder / "trust").glob(".*")) == []


@pytest.mark.parametrize(
    ("hosts", "names"),
    [
        (["a.example"], {"a.example"}),
        (["A.Example.", "192.0.2.10", "2001:db8::7"], {"a.example", "192.0.2.10", "2001:db8::7"}),
        (["localhost"], {"localhost", "127.0.0.1", "::1"}),
        (["::1", "a.example"], {"localhost", "127.0.0.1", "::1", "a.example"}),
    ],
)
def test_a_certificate_is_for_the_hosts_it_was_issued_to(
    authority: Authority, hosts: list[str], names: set[str]
) -> None:
    authority.issue(*hosts)
    folder = authority.folder / plain_name(hosts[0])
    assert Trust(str(folder))._papers.own.names == names


def test_a_certificate_is_good_for_a_year_and_a_month(certificate: Path) -> None:
    own = Trust(str(certificate))._papers.own
    expected_s = own.expires_s - 397 * DAY_S
    assert abs(expected_s - (certificate / "node.pem").stat().st_mtime) < 60


def test_a_new_certificate_of_the_same_host_replaces_the_old_one(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "trust")
    folder = authority.issue("a.example")
    before = contents(folder)
    authority.issue("a.example", "192.0.2.10")
    after = contents(folder)
    assert before["ca.pem"] == after["ca.pem"]
    assert before["node.key"] != after["node.key"]
    assert Trust(str(folder))._papers.own.names == {"a.example", "192.0.2.10"}


@pytest.mark.parametrize("host", ["", "two words", "../escape", "a/b", "*.example", "x" * 300])
def test_what_is_no_host_gets_no_certificate(programs: Programs, host: str) -> None:
    made(programs, "new", "trust")
    before = contents(programs.folder)
    assert "expected a host name" in refused(programs, "issue", "trust", host)
    assert contents(programs.folder) == before


def test_only_an_authority_issues_and_revokes(programs: Programs, certificate: Path) -> None:
    for command in ("issue", "revoke"):
        line = refused(programs, command, certificate, "localhost")
        assert "ca.key is missing: expected the folder of an authority" in line


def test_without_openssl_it_says_that_this_is_what_is_missing(programs: Programs) -> None:
    nowhere = str(programs.folder)
    assert "openssl was not found" in refused(programs, "new", "trust", path=nowhere)
    assert not (programs.folder / "trust").exists()


# ---- revoke


def test_all_that_a_host_was_issued_is_denied_and_what_it_gets_later_is_not(
    tmp_path: Path, programs: Programs
) -> None:
    authority = Authority(tmp_path / "trust")
    folder, other = authority.issue("a.example"), authority.issue("b.example")
    first = Trust(str(folder))._papers.own.serial
    authority.issue("a.example")
    second = Trust(str(folder))._papers.own.serial
    assert made(programs, "revoke", authority.folder, "a.example").returncode == 0
    for each in (folder, other):
        assert Trust(str(each))._papers.denied == {first, second}
    authority.issue("a.example")
    papers = Trust(str(folder))._papers
    assert papers.own.serial not in papers.denied
    assert made(programs, "revoke", authority.folder, "b.example").returncode == 0
    assert len(Trust(str(folder))._papers.denied) == 3


def test_who_was_issued_nothing_cannot_be_revoked(programs: Programs) -> None:
    made(programs, "new", "trust")
    assert "nothing was issued to a.example" in refused(programs, "revoke", "trust", "a.example")


def test_a_machine_that_joins_later_knows_who_is_denied(tmp_path: Path, programs: Programs) -> None:
    authority = Authority(tmp_path / "trust")
    denied = Trust(str(authority.issue("a.example")))._papers.own.serial
    made(programs, "revoke", authority.folder, "a.example")
    assert Trust(str(authority.issue("b.example")))._papers.denied == {denied}


# ---- what a program thinks of a folder


@pytest.mark.parametrize("name", ["ca.pem", "node.pem", "node.key"])
def test_a_folder_that_lacks_something_is_not_good(own: Path, name: str) -> None:
    (own / name).unlink()
    with pytest.raises(BadCertificate, match=f"{name} is missing: expected ca"):
        Trust(str(own))


@pytest.mark.parametrize("name", ["ca.pem", "node.pem", "node.key"])
@pytest.mark.parametrize("text", ["", "no certificate\n", "\0" * 100])
def test_a_file_that_is_not_what_it_should_be_is_not_good(own: Path, name: str, text: str) -> None:
    (own / name).write_text(text)
    with pytest.raises(BadCertificate, match=r"hold.? no certificate"):
        Trust(str(own))


def test_a_key_of_another_certificate_is_not_good(authority: Authority, own: Path) -> None:
    shutil.copy(authority.issue("a.example") / "node.key", own)
    with pytest.raises(BadCertificate, match=r"not the certificate of the key in node\.key"):
        Trust(str(own))


def test_a_key_with_a_password_is_not_asked_for_it(own: Path) -> None:
    subprocess.run(
        ["openssl", "ec", "-in", "node.key", "-aes128", "-passout", "pass:secret", "-out", "x"],
        cwd=own,
        check=True,
        capture_output=True,
    )
    os.replace(own / "x", own / "node.key")
    with pytest.raises(BadCertificate, match="without a password"):
        Trust(str(own))


def test_an_expired_certificate_of_ones_own_is_not_good(
    authority: Authority, tmp_path: Path
) -> None:
    folder = authority.issue_odd(tmp_path / "odd", begins_s=-7200, ends_s=-3600)
    with pytest.raises(BadCertificate, match=r"node\.pem: the certificate has expired"):
        Trust(str(folder))


def test_a_certificate_that_does_not_name_ones_own_address_is_not_good(certificate: Path) -> None:
    trust = Trust(str(certificate))
    trust.check_own(Address("127.0.0.1", 6001))
    trust.check_own(Address("LOCALHOST", 6001))
    with pytest.raises(BadCertificate, match=r"known? .*this program as 192\.0\.2\.10"):
        trust.check_own(Address("192.0.2.10", 6001))


@pytest.mark.parametrize(
    ("text", "serials"),
    [
        ("", set()),
        ("# nobody yet\n\n", set()),
        ("0a1B\n", {0x0A1B}),
        ("  ff  # stolen\n01", {0xFF, 1}),
    ],
)
def test_the_list_of_denied_ones(own: Path, text: str, serials: set[int]) -> None:
    (own / "denied.txt").write_text(text)
    assert Trust(str(own))._papers.denied == serials


@pytest.mark.parametrize("line", ["xyz", "0x12", "12 34", "1" * 41, "-1", "é"])
def test_a_bad_line_in_it_is_not_passed_over(own: Path, line: str) -> None:
    """Whoever wrote it meant to deny somebody."""
    (own / "denied.txt").write_text(f"01\n{line}\n")
    with pytest.raises(BadCertificate, match=r"denied\.txt, line 2: expected a serial number"):
        Trust(str(own))


@pytest.mark.parametrize("script", ["seed.py", "peer.py", "seedspawner.py", "dashboard.py"])
def test_a_program_does_not_start_with_a_folder_that_is_not_good(
    programs: Programs, script: str
) -> None:
    done = programs.run(script, "--tls", "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert "nowhere/ca.pem is missing" in line


@pytest.mark.parametrize("script", ["seed.py", "peer.py"])
def test_a_program_does_not_start_at_an_address_its_certificate_does_not_name(
    programs: Programs, certificate: Path, script: str
) -> None:
    done = programs.run(script, 5999, "--tls", certificate, "--advertise", "192.0.2.10")
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert "node.pem is for 127.0.0.1, ::1, localhost, but others know this" in line
    assert programs.listed() == []


# ---- while it changes


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look as often as one is asked to."""
    monkeypatch.setattr(trust_module, "LOOK_INTERVAL_S", 0.0)


@pytest.mark.usefixtures("impatient")
def test_a_change_is_read_once_it_has_settled(authority: Authority, own: Path) -> None:
    trust = Trust(str(own))
    assert trust.look() == ""
    newer = authority.issue("127.0.0.1")
    shutil.copy(newer / "node.pem", own)  # and only then the key: a copy takes its time
    assert trust.look() == ""
    shutil.copy(newer / "node.key", own)
    assert trust.look() == ""
    assert "read anew" in trust.look()
    assert trust._papers.own.serial == Trust(str(newer))._papers.own.serial
    assert trust.look() == ""


@pytest.mark.usefixtures("impatient")
def test_what_is_not_good_is_said_once_and_changes_nothing(own: Path) -> None:
    trust = Trust(str(own))
    before = trust._papers
    (own / "ca.pem").write_text("")
    said = [trust.look() for _ in range(5)]
    assert [bool(line) for line in said] == [False, True, False, False, False]
    assert "going on with what was read before" in said[1]
    assert trust._papers is before


@pytest.mark.usefixtures("impatient")
def test_a_certificate_that_ends_soon_is_said_once_a_day(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = authority.issue_odd(tmp_path / "odd", ends_s=29 * DAY_S)
    trust = Trust(str(folder))
    assert "issue another" in trust.look()
    assert trust.look() == ""
    monkeypatch.setattr(trust_module, "WARN_INTERVAL_S", 0.0)
    assert "issue another" in trust.look()


@pytest.mark.usefixtures("impatient")
def test_a_certificate_that_lasts_is_not_talked_about(certificate: Path) -> None:
    assert Trust(str(certificate)).look() == ""


def test_files_are_not_looked_at_all_the_time(own: Path) -> None:
    trust = Trust(str(own))
    (own / "denied.txt").write_text("01")
    for _ in range(100):
        assert trust.look() == ""
    assert trust._papers.denied == set()
    let_pass(0.1)
    wait_until(lambda: "read anew" in trust.look(), what="the change, read")


def test_nothing_older_than_tls_1_3_and_nobody_unnamed(certificate: Path) -> None:
    papers = Trust(str(certificate))._papers
    for context in (papers.dialling, papers.accepting):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.verify_flags & ssl.VERIFY_X509_STRICT
    assert papers.accepting.num_tickets == 0
