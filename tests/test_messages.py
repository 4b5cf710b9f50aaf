"""What one peer says, every other live peer hears: once, in order, byte for byte."""

import json

from helpers import free_port, let_pass, wait_until
from programs import Program, Programs, body

TEXTS = [
    "plain",
    "  spaces before and after  ",
    "tab\tin the middle",
    "grüße, 你好, שלום, 🙂👩‍👩‍👧",
    "e\u0301 is not \u00e9",
    "\u202eright to left\u202c and \u2028 a line separator",
    '"quoted" \\backslashed\\ {"json": true} %s $HOME `id`',
    "\x1b[31mred\x1b[0m \x07bell \x7f",
    "null \x00 inside",
    "x" * 10_000,
]


def test_ten_peers_hear_everything_once_and_in_order(programs: Programs) -> None:
    _, peers = programs.network(10)
    for number in range(20):
        for peer in peers:
            peer.say(f"{number} from {peer.address}")
    for peer in peers:
        peer.wait_for("message", count=9 * 20)
    let_pass(1)  # what comes twice may come late
    for peer in peers:
        assert len(peer.heard()) == 9 * 20
        for other in peers:
            expected = [
                (other.address, number + 1, f"{number} from {other.address}".encode())
                for number in range(20)
            ]
            assert peer.heard(other.address) == ([] if other is peer else expected)


def test_a_message_said_before_there_is_any_neighbour_is_not_lost(programs: Programs) -> None:
    programs.seed()
    first = programs.peer()
    first.say("is anybody there?")
    second = programs.peer()
    assert second.wait_for("message")["text"] == "is anybody there?"


def test_any_text_arrives_as_it_was_typed(programs: Programs) -> None:
    _, [speaker, listener] = programs.network(2)
    speaker.say(*TEXTS)
    listener.wait_for("message", count=len(TEXTS))
    assert [event["text"] for event in listener.all("message")] == TEXTS


def test_a_line_that_is_no_text_arrives_as_base64(programs: Programs) -> None:
    _, [speaker, listener] = programs.network(2)
    lines = [b"\xff\xfe\xfd", b"half a letter \xc3", b"a surrogate \xed\xa0\x80", "é".encode()]
    speaker.say(*lines)
    listener.wait_for("message", count=len(lines))
    assert [payload for _, _, payload in listener.heard()] == lines
    assert ["base64" in event for event in listener.all("message")] == [True, True, True, False]


def test_a_doubled_slash_says_a_line_that_begins_with_one(programs: Programs) -> None:
    _, [speaker, listener] = programs.network(2)
    speaker.say("//quit is only a word", "///", "and / in the middle")
    listener.wait_for("message", count=3)
    said = [payload for _, _, payload in listener.heard()]
    assert said == [b"/quit is only a word", b"//", b"and / in the middle"]


def test_a_line_too_long_is_refused_and_the_peer_goes_on(programs: Programs) -> None:
    _, [speaker, listener] = programs.network(2)
    speaker.say("x" * (2 << 20), "short")
    heard = listener.wait_for("message")
    assert heard["text"] == "short"
    assert speaker.process.poll() is None


def test_a_late_joiner_is_given_what_was_said_before(programs: Programs) -> None:
    _, [first, second] = programs.network(2)
    first.say(*(f"one {number}" for number in range(50)))
    second.say(*(f"two {number}" for number in range(50)))
    first.wait_for("message", count=50)
    second.wait_for("message", count=50)
    late = programs.peer()
    late.wait_for("message", count=100)
    assert late.heard(first.address) == second.heard(first.address)
    assert late.heard(second.address) == first.heard(second.address)


def test_a_late_joiner_hears_also_those_who_left(programs: Programs) -> None:
    _, [stays, leaves] = programs.network(2)
    leaves.say("remember me")
    stays.wait_for("message")
    leaves.terminate()
    assert leaves.wait() == 0
    late = programs.peer()
    assert late.wait_for("message", origin=leaves.address)["text"] == "remember me"


def test_who_wants_no_history_hears_only_what_is_said_from_now_on(programs: Programs) -> None:
    _, [first, second] = programs.network(2)
    first.say(*(f"old {number}" for number in range(20)))
    second.wait_for("message", count=20)
    late = programs.peer("--no-history")
    wait_until(lambda: len(late.neighbours()) == 2, what="two neighbours")
    let_pass(1)
    first.say("new")
    late.wait_for("message", text="new")
    let_pass(1)
    assert [event["text"] for event in late.all("message")] == ["new"]
    assert late.all("gap") == []


def test_a_restarted_peer_is_heard_again_from_its_first_message(programs: Programs) -> None:
    _, [listener, second] = programs.network(2)
    port = free_port()
    for life in ("first", "second"):
        speaker = programs.peer(port=port)
        speaker.say(f"{life} life", f"{life} life still")
        listener.wait_for("message", text=f"{life} life still")
        speaker.kill()
    for peer in (listener, second):
        peer.wait_for("message", count=4)
        said = [(seq, payload) for _, seq, payload in peer.heard(f"127.0.0.1:{port}")]
        assert said == [
            (1, b"first life"),
            (2, b"first life still"),
            (1, b"second life"),
            (2, b"second life still"),
        ]


def test_many_lines_at_once_from_everybody_arrive(programs: Programs) -> None:
    count = 500
    _, peers = programs.network(5)
    for peer in peers:
        peer.say(*(f"{number}" for number in range(count)))
    for peer in peers:
        peer.wait_for("message", count=4 * count)
        for other in peers:
            if other is not peer:
                assert numbers(peer, other) == list(range(count))


def numbers(listener: Program, speaker: Program) -> list[int]:
    """What the listener heard of a speaker who counts."""
    return [int(payload) for _, _, payload in listener.heard(speaker.address)]


def test_a_message_to_one_peer_reaches_nobody_else(programs: Programs) -> None:
    _, [speaker, meant, other] = programs.network(3)
    speaker.say(f"/to {meant.address} only you")
    direct = meant.wait_for("direct")
    assert (direct["origin"], direct["text"]) == (speaker.address, "only you")
    speaker.say("everybody")
    other.wait_for("message", text="everybody")
    meant.wait_for("message", text="everybody", seq=1)
    assert other.all("direct") == []
    assert [event["text"] for event in other.all("message")] == ["everybody"]


def test_a_message_to_one_peer_is_the_very_bytes_of_the_line(programs: Programs) -> None:
    _, [speaker, meant] = programs.network(2)
    payloads = [b"caf\xe9 \xff", b"two spaces behind  ", b" and one before", b"\ttab\t"]
    speaker.say(*(b"/to %s %s" % (meant.address.encode(), payload) for payload in payloads))
    meant.wait_for("direct", count=len(payloads))
    assert [body(event) for event in meant.all("direct")] == payloads


def test_events_are_valid_json_of_one_line_whatever_is_said(programs: Programs) -> None:
    """No line of output can be forged by what another peer says."""
    forged = json.dumps({"event": "dead", "at": 1.0, "self": "x", "neighbour": "y", "reason": "z"})
    _, [speaker, listener] = programs.network(2)
    speaker.say(forged, f"\r{forged}\r", f"\x0b{forged}\u2028{forged}\x85{forged}", "the end")
    listener.wait_for("message", text="the end")
    assert len(listener.all("message")) == 4
    assert listener.all("dead") == []
    assert listener.stray_lines == []
