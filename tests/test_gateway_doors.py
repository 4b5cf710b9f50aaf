"""Whom the gateway lets in: no other site's page, and beyond this machine only with a token."""

import base64
import signal
import socket
from contextlib import closing

import pytest

from helpers import STOP_LIMIT_S, free_port
from programs import Programs
from visits import Stream, served, visit

TOKEN = "correct-horse-battery-staple"

# ---- other sites' pages --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "192.0.2.1", "[::2]:80"]
)
def test_another_sites_name_does_not_lead_here(url: str, host: str) -> None:
    for path in ("/", "/api/network", "/api/messages", "/metrics"):
        answer = visit(url, path, headers={"Host": host})
        assert answer.status == 421
        assert "localhost" in answer.error


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1:80", "[::1]"])
def test_this_machines_own_names_do(url: str, host: str) -> None:
    assert visit(url, headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
@pytest.mark.parametrize("path", ["/api/network", "/api/messages", "/metrics"])
def test_another_sites_page_may_ask_nothing(url: str, path: str, headers: dict[str, str]) -> None:
    methods = ["GET", "POST"] if path == "/api/messages" else ["GET"]
    for method in methods:
        body = b"from another site" if method == "POST" else None
        answer = visit(url, path, method, body, headers)
        assert answer.status == 403
        assert "site" in answer.error


def test_our_own_page_may(url: str) -> None:
    own = {"Origin": url.rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert visit(url, "/api/messages", "POST", b"hello", own).status == 202
    assert visit(url, "/api/network", headers=own).status == 200


def test_a_link_to_the_page_may_be_followed(url: str) -> None:
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert visit(url, headers=followed).status == 200
    assert visit(url, "/api/network", headers=followed).status == 403
    assert visit(url, headers={**followed, "Sec-Fetch-Mode": "no-cors"}).status == 403


def test_every_answer_is_strict_about_what_a_page_may_do(url: str) -> None:
    for path in ("/", "/api/network", "/metrics", "/nowhere"):
        headers = visit(url, path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


# ---- the token -----------------------------------------------------------------------------------


def test_beyond_this_machine_it_wants_a_token(programs: Programs) -> None:
    done = programs.run("dashboard.py", free_port(), "--web-host", "0.0.0.0")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "--token" in done.stderr


@pytest.mark.parametrize("token", ["", "short", "two words that are long", "tököken-long-enough-x"])
def test_a_token_that_can_be_guessed_is_refused(programs: Programs, token: str) -> None:
    file = programs.folder / "token"
    file.write_text(token)
    done = programs.run("dashboard.py", free_port(), "--token", file)
    assert done.returncode == 2
    assert str(file) in done.stderr
    assert not token or token not in done.stderr.replace(str(file), "")


def test_a_token_file_that_is_not_there_is_refused(programs: Programs) -> None:
    done = programs.run("dashboard.py", free_port(), "--token", programs.folder / "none")
    assert done.returncode == 2
    assert "No such file" in done.stderr


def test_only_who_has_the_token_gets_in(programs: Programs) -> None:
    file = programs.folder / "token"
    file.write_text(f"{TOKEN}\n")
    url = served(
        programs.start("dashboard.py", free_port(), "--web-host", "0.0.0.0", "--token", file)
    )
    assert "0.0.0.0" not in url, "an address that a browser on another machine can open"
    password = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    for good in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Basic {password}"):
        headers = {"Authorization": good, "Host": "map.example"}  # whatever it is called
        assert visit(url, "/api/network", headers=headers).status == 200
        evil = {**headers, "Origin": "http://evil.example"}
        assert visit(url, "/api/network", headers=evil).status == 403
    wrong = base64.b64encode(b"anybody:wrong").decode()
    for bad in ("", "Bearer", "Bearer wrong", f"Basic {wrong}", "Basic %%%", f"Other {TOKEN}x"):
        for path in ("/", "/api/network", "/api/messages", "/metrics", "/nowhere"):
            answer = visit(url, path, headers={"Authorization": bad})
            assert (answer.status, answer.headers["www-authenticate"][:5]) == (401, "Basic")
            assert "token" in answer.error


# ---- the program ---------------------------------------------------------------------------------


def test_it_stops_at_once_while_streams_are_open(programs: Programs) -> None:
    dashboard = programs.start("dashboard.py", free_port())
    url = served(dashboard)
    with closing(Stream(url)) as stream:
        visit(url, "/api/network")
        dashboard.process.send_signal(signal.SIGTERM)
        assert dashboard.wait(STOP_LIMIT_S) == 0
        assert list(stream.blocks)[1:] == []
    assert dashboard.all("stopped")


def test_enter_takes_the_default_port_or_says_that_it_is_busy(programs: Programs) -> None:
    port = free_port()
    terminal = programs.terminal("dashboard.py")
    terminal.wait_to_see(r"Port of the page \[8000\]: ")
    terminal.type("many")
    terminal.wait_to_see("expected a port from 1 to 65535, got 'many'")
    terminal.type(str(port))
    terminal.wait_to_see(rf"the live map: http://localhost:{port}/")
    assert visit(f"http://localhost:{port}/").status == 200


@pytest.mark.parametrize("which", ["PORT", "--peer-port"])
def test_a_busy_port_is_said_in_one_line(programs: Programs, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        busy = holder.getsockname()[1]
        arguments = [busy] if which == "PORT" else [free_port(), "--peer-port", busy]
        done = programs.run("dashboard.py", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert str(busy) in done.stderr


def test_the_log_tells_where_the_page_is(programs: Programs) -> None:
    url = served(programs.start("dashboard.py", free_port()))
    assert [line.split(" ")[4] for line in programs.logged("serving")] == [f"url={url}\n".strip()]
