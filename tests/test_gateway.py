"""The gateway: messages in and out over HTTP, and what it cannot take."""

import base64
import socket
from contextlib import closing

import pytest

import feed
import gateway
from embedding import Embedded
from helpers import free_port, wait_until
from programs import EVENT_KEYS, Programs
from visits import Stream, answer_to, knock, metric, say, served, visit

# ---- messages ------------------------------------------------------------------------------------


def test_what_is_posted_is_heard_by_a_peer_in_a_terminal(programs: Programs) -> None:
    _, [peer] = programs.network(1)
    terminal = programs.terminal("peer.py", free_port(), "--gossip-every", 0)
    terminal.wait_to_see("linked with")
    dashboard = programs.start("dashboard.py", free_port())
    assert say(served(dashboard), "Grüße, everybody") == 1
    assert say(served(dashboard), "and again") == 2
    terminal.wait_to_see("says: and again")
    peer.wait_for("message", text="and again")
    assert peer.heard() == [
        (dashboard.address, 1, "Grüße, everybody".encode()),
        (dashboard.address, 2, b"and again"),
    ]


def test_a_stream_gives_the_message_events(programs: Programs) -> None:
    _, [peer] = programs.network(1)
    dashboard = programs.start("dashboard.py", free_port())
    dashboard.wait_for("neighbour_up")
    with closing(Stream(served(dashboard))) as stream:
        assert stream.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        peer.say("two\u2028lines?", b"\xff\xfe")
        first, second = stream.next(), stream.next()
    assert (first["origin"], first["seq"], first["text"]) == (peer.address, 1, "two\u2028lines?")
    assert base64.b64decode(second["base64"]) == b"\xff\xfe"
    for event in (first, second):
        assert event["event"] == "message"
        assert {"at", "self", *EVENT_KEYS["message"]} <= event.keys()
    dashboard.wait_for("message", count=2)
    assert dashboard.all("message") == [first, second]


def test_a_stream_gives_what_this_peer_says_itself(url: str) -> None:
    with closing(Stream(url)) as stream:
        say(url, "to whom it may concern")
        event = stream.next()
    assert (event["text"], event["seq"], event["origin"]) == (
        "to whom it may concern",
        1,
        event["self"],
    )


def test_a_stream_begins_now_or_with_the_latest(url: str) -> None:
    for number in range(5):
        say(url, f"old {number}")
    with closing(Stream(url)) as now, closing(Stream(url, "?last=2")) as later:
        say(url, "new")
        assert now.next()["text"] == "new"
        assert [later.next()["text"] for _ in range(3)] == ["old 3", "old 4", "new"]


def test_a_stream_is_resumed_without_loss_and_without_repetition(url: str) -> None:
    with closing(Stream(url)) as stream:
        say(url, "one")
        assert stream.next()["text"] == "one"
    say(url, "two")
    say(url, "three")
    with closing(Stream(url, "?last=10", {"Last-Event-ID": stream.last_id})) as resumed:
        say(url, "four")
        assert [resumed.next()["text"] for _ in range(3)] == ["two", "three", "four"]


def test_a_reader_of_an_earlier_life_is_told_and_given_all(url: str) -> None:
    say(url, "one")
    with closing(Stream(url, headers={"Last-Event-ID": "1a2b3c-77"})) as stream:
        assert stream.next("notice") == {"notice": "restarted"}
        assert stream.next()["text"] == "one"


@pytest.mark.parametrize("given", ["x", "1-", "-1", "1-2-3", "z-1", "1-" + "9" * 40])
def test_a_last_event_id_that_is_none_is_refused(url: str, given: str) -> None:
    answer = visit(url, "/api/messages", headers={"Last-Event-ID": given})
    assert answer.status == 400
    assert given[:20] in answer.error


@pytest.mark.parametrize("last", ["x", "-1", "10001", "9" * 40, "1.5"])
def test_a_number_of_latest_that_is_none_is_refused(url: str, last: str) -> None:
    answer = visit(url, f"/api/messages?last={last}")
    assert answer.status == 400
    assert last[:20] in answer.error


def test_a_reader_that_fell_behind_is_told_how_many_it_missed(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "MAX_MESSAGES", 3)
    url = embedded.dashboard()
    say(url, "one")
    with closing(Stream(url, "?last=1")) as stream:
        stream.next()
    for number in range(10):
        say(url, f"missed {number}")
    with closing(Stream(url, headers={"Last-Event-ID": stream.last_id})) as resumed:
        assert resumed.next("notice") == {"notice": "skipped", "messages": 7}
        assert resumed.next()["text"] == "missed 7"


def test_a_reader_that_takes_nothing_holds_nobody_up_and_is_let_go_of(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "SEND_TIMEOUT_S", 0.5)
    url = embedded.dashboard()
    with (
        closing(knock(url, b"GET /api/messages HTTP/1.1\r\nHost: localhost\r\n\r\n")) as lazy,
        closing(Stream(url)) as eager,
    ):
        wait_until(lambda: metric(url, "p2p_http_streams") == 2, what="two readers")
        for number in range(20):
            say(url, str(number) + "x" * 1_000_000)
            assert eager.next()["seq"] == number + 1
        wait_until(lambda: metric(url, "p2p_http_streams") == 1, what="one reader")
        assert lazy


def test_a_quiet_stream_shows_that_it_lives(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "HEARTBEAT_S", 0.1)
    with closing(Stream(embedded.dashboard())) as stream:
        fields = [next(stream.blocks) for _ in range(3)]
    assert fields[0] == {"retry": "1000"}
    assert fields[1].keys() == fields[2].keys() == {""}


def test_there_are_only_so_many_streams(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "MAX_STREAMS", 2)
    monkeypatch.setattr(gateway, "HEARTBEAT_S", 0.1)
    url = embedded.dashboard()
    first, second = Stream(url), Stream(url)
    refused = visit(url, "/api/messages")
    assert (refused.status, refused.headers["retry-after"]) == (503, "5")
    assert "2" in refused.error
    first.close()
    wait_until(lambda: metric(url, "p2p_http_streams") == 1, what="room for another")
    Stream(url).close()
    second.close()


# ---- what is refused -----------------------------------------------------------------------------


def test_a_message_has_a_greatest_size(url: str) -> None:
    assert visit(url, "/api/messages", "POST", bytes(1 << 20)).status == 202
    answer = visit(url, "/api/messages", "POST", bytes((1 << 20) + 1))
    assert answer.status == 413
    assert "1048576" in answer.error
    assert "1048577" in answer.error


def test_who_asks_before_sending_too_much_sends_nothing(url: str) -> None:
    head = b"POST /api/messages HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
    with closing(knock(url, head + b"Content-Length: 2000000\r\n\r\n")) as visitor:
        assert visitor.recv(100).startswith(b"HTTP/1.1 413 ")
    with closing(knock(url, head + b"Content-Length: 2\r\n\r\n")) as visitor:
        assert visitor.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        visitor.sendall(b"hi")
        assert visitor.recv(100).startswith(b"HTTP/1.1 202 ")


@pytest.mark.parametrize(
    ("headers", "body", "status", "words"),
    [
        ("Content-Length: 0", "", 400, "empty"),
        ("", "", 411, "Content-Length"),
        ("Transfer-Encoding: chunked", "2\r\nhi\r\n0\r\n\r\n", 411, "Content-Length"),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked", "hi", 411, "Content-Length"),
        ("Content-Length: 2\r\nContent-Length: 3", "hi!", 411, "one Content-Length"),
        ("Content-Length: two", "hi", 400, "'two'"),
        ("Content-Length: -2", "hi", 400, "'-2'"),
        ("Content-Length: 99999999999999", "hi", 413, "99999999999999"),
        ("Content-Length: 5", "hi", 400, "only 2"),
    ],
)
def test_a_body_that_is_none_is_refused(
    url: str, headers: str, body: str, status: int, words: str
) -> None:
    lines = "\r\n".join(filter(None, ["POST /api/messages HTTP/1.1", "Host: localhost", headers]))
    answer = answer_to(url, f"{lines}\r\n\r\n{body}".encode())
    assert answer.status == status
    assert words in answer.error


def test_a_refused_body_is_not_taken_for_the_next_request(url: str) -> None:
    smuggled = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    answer = answer_to(url, head % len(smuggled) + smuggled)
    assert answer.status == 404
    assert b"p2p_" not in answer.body


def test_one_connection_serves_many_requests(url: str) -> None:
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with closing(knock(url, request * 3)) as visitor:
        visitor.shutdown(socket.SHUT_WR)
        data = b""
        while part := visitor.recv(1 << 16):
            data += part
    assert data.count(b"HTTP/1.1 200 OK\r\n") == 3


@pytest.mark.parametrize("path", ["/nowhere", "/api", "/page/../x.py", "/../x.py", "/%2e%2e/x"])
def test_what_is_not_there_is_not_found(url: str, path: str) -> None:
    answer = visit(url, path)
    assert answer.status == 404
    assert "/api/messages" in answer.error


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/", "GET"),
        ("DELETE", "/api/network", "GET"),
        ("PUT", "/api/messages", "GET, POST"),
        ("OPTIONS", "/metrics", "GET"),
    ],
)
def test_what_cannot_be_done_says_what_can(url: str, method: str, path: str, allowed: str) -> None:
    answer = visit(url, path, method)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)
    assert method in answer.error


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x00\xc8\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_no_request_ends_the_connection(url: str, request_bytes: bytes) -> None:
    with closing(knock(url, request_bytes)) as visitor:
        visitor.shutdown(socket.SHUT_WR)
        data = b""
        while part := visitor.recv(1 << 16):
            data += part
    assert b'"error"' in data or data == b""
    assert b" 200 " not in data.partition(b"\r\n")[0]
    assert visit(url).status == 200


def test_a_request_that_drips_is_not_waited_for(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "REQUEST_TIMEOUT_S", 0.5)
    with closing(knock(embedded.dashboard(), b"GET / HTTP/1.1\r\nHost: localhost\r\n")) as visitor:
        visitor.settimeout(0.1)

        def is_closed() -> bool:
            try:
                visitor.sendall(b"A: b\r\n")
                return visitor.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(is_closed, what="the end of a request that never ends", timeout_s=10)


def test_there_are_only_so_many_connections(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "MAX_CONNECTIONS", 3)
    url = embedded.dashboard()
    idle = [knock(url, b"") for _ in range(3)]
    wait_until(lambda: visit(url).status == 503, what="a refusal")
    assert "too many" in visit(url).error
    for visitor in idle:
        visitor.close()
    wait_until(lambda: visit(url).status == 200, what="room again")
