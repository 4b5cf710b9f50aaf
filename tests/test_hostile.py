"""Whoever is let in and means harm. Each test is named after what is tried; in the end everybody
honest lives, has heard all that honest ones said, once and in order, and has not grown.
"""

import contextlib
import random
import re
import socket
import typing
from collections.abc import Iterator

import pytest

from embedding import Embedded
from helpers import free_port, let_pass, wait_until
from hostile import (
    LIVES_LONGEST,
    BlackHoles,
    Honest,
    Insider,
    many_descriptors,
    threads,
)
from journal import Event
from link import ask, dial
from messages import (
    Address,
    Beacon,
    Bye,
    Contacts,
    DeadReport,
    Have,
    Hello,
    Holding,
    ListPeers,
    Message,
    Mode,
    Opinion,
    OpinionRequest,
    PeerList,
    Refused,
    Register,
    StreamKey,
    StreamName,
    Verdict,
    Want,
    Wanted,
)
from programs import Program, Programs
from pure import BOOT_MS, address, key, name
from settings import Tunables
from wire import MAX_NUMBER, Run, encode, new_run, type_of_kind

SEED = 20261122  # of everything random here; the same on every run
FORGED = 'hi"\n2026-11-22 12:00:00.000 127.0.0.1:1 dead neighbour=127.0.0.1:2'
FORGED += "\x1b[2J\x1b]0;x\x07\u202e"


@pytest.fixture
def honest(programs: Programs) -> Iterator[Honest]:
    network = Honest(programs)
    yield network
    network.check()


def dial_program(program: Program) -> socket.socket:
    return dial(Address.parse(program.address), 20, trust=None).socket


# ---- bytes ---------------------------------------------------------------------------------------


def test_random_bytes_from_a_neighbour(honest: Honest) -> None:
    chance = random.Random(SEED)
    for _ in range(30):
        with Insider(honest.peers[0]) as insider:
            insider.send_bytes(chance.randbytes(chance.randrange(6, 5000)))
            insider.connection.finish_sending()
            assert insider.is_over.wait(20)


FIELDS: dict[typing.Any, list[typing.Any]] = {
    int: [0, 1, MAX_NUMBER],
    bool: [False, True],
    str: ["", FORGED, "x" * 60_000],
    bytes: [b"", b"\xff" * 1000],
    Address: [address(1), Address("a" * 63 + ".b" * 95, 65535), Address("::1", 1)],
    StreamKey: [key(1), name(2, boot_ms=0).key, name(3, boot_ms=MAX_NUMBER).key],
}


def variants(of: typing.Any) -> list[typing.Any]:
    """Values of a field, a record or a message: the plain one first, then one field different."""
    if of in FIELDS:
        return FIELDS[of]
    if typing.get_origin(of) is tuple:
        items = variants(typing.get_args(of)[0])
        return [tuple(items), (), (items[0],) * 3000]
    hints = typing.get_type_hints(of)
    plain = {field: variants(hint)[0] for field, hint in hints.items()}
    changed = [
        {**plain, field: value} for field, hint in hints.items() for value in variants(hint)[1:]
    ]
    return [of(**values) for values in [plain, *changed]]


EVERY_MESSAGE: list[Message] = [message for of in type_of_kind.values() for message in variants(of)]


@pytest.mark.parametrize("victim", ["peer", "seed", "neighbour"])
def test_valid_frames_with_every_field_mutated(honest: Honest, victim: str) -> None:
    """As first words to a peer and to a seed, and from a neighbour; whole, and with bytes off."""
    chance = random.Random(SEED)
    frames = [encode(message) for message in EVERY_MESSAGE]
    frames += [new_run(key(n), number, b"x").data for n, number in ((1, 1), (2, 0), (3, 1 << 63))]
    for frame in list(frames):
        damaged = bytearray(frame)
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(4, len(damaged))] = chance.randrange(256)
        frames.append(bytes(damaged))
    for frame in frames:
        if victim == "neighbour":
            with Insider(honest.peers[0]) as insider:
                insider.send_bytes(frame)
                insider.connection.finish_sending()
                assert insider.is_over.wait(20)
        else:
            program = honest.seed if victim == "seed" else honest.peers[0]
            with dial_program(program) as stranger:
                stranger.sendall(frame)
                stranger.shutdown(socket.SHUT_WR)


def test_huge_lengths(honest: Honest) -> None:
    """Each promises the largest frame there is, and sends a part of it."""
    strangers = [dial_program(program) for program in honest.all() for _ in range(60)]
    for stranger in strangers:
        with contextlib.suppress(OSError):
            stranger.sendall((1 << 20).to_bytes(4, "big") + b"\x0e" + bytes(200_000))
    honest.check()
    for stranger in strangers:
        stranger.close()


def test_one_byte_a_second(honest: Honest) -> None:
    """The first words have to be whole in time, however busily they come."""
    words = encode(Hello(1, address(1), 1, 0, False, key(1)))
    for program in (honest.seed, honest.peers[0]):
        with dial_program(program) as stranger:
            stranger.settimeout(0.9)
            is_closed = False
            for number in range(12):
                with contextlib.suppress(TimeoutError):
                    try:
                        stranger.sendall(words[number : number + 1])
                        is_closed = stranger.recv(1) == b""
                    except ConnectionError:
                        is_closed = True
                if is_closed:
                    break
            assert is_closed, "it may go on after more than twice the time there is"


def test_thousands_of_half_open_connections(honest: Honest) -> None:
    strangers = []
    with many_descriptors():
        for program in (honest.seed, honest.peers[0]):
            strangers += [dial_program(program) for _ in range(1500)]
            assert threads(program) <= Honest.MOST_THREADS
        newcomer = honest.programs.peer()
        newcomer.wait_for("neighbour_up")
        newcomer.say("let me in")
        honest.peers[0].wait_for("message", text="let me in")
        assert len(honest.peers[0].all("refused", what="half_open")) == 1
        for stranger in strangers:
            stranger.close()


def test_connect_and_never_read(honest: Honest) -> None:
    """It asks for all there is again and again, and reads nothing of it."""
    with Insider(honest.peers[0], reads=False) as insider:
        insider.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        insider.say(Mode(wants_payload=True))
        honest.say(*("x" * 50_000 for _ in range(100)))
        streams = [stream_of(honest, peer) for peer in honest.peers[1:]]
        with contextlib.suppress(OSError):
            insider.connection.socket.settimeout(1.0)
            for _ in range(5000):
                insider.say(Want(tuple(Wanted(stream, 0) for stream in streams)))
        honest.check()


def stream_of(honest: Honest, origin: Program) -> StreamKey:
    """What that peer says, as the others know it."""
    hearer = next(peer for peer in honest.peers if peer is not origin)
    event = hearer.wait_for("message", origin=origin.address)
    return StreamName(Address.parse(origin.address), event["boot_ms"]).key


# ---- messages ------------------------------------------------------------------------------------


def test_replay(honest: Honest) -> None:
    """Whatever was heard is sent again, to another peer too, again and again."""
    with Insider(honest.peers[0]) as listener:
        listener.say(Mode(wants_payload=True))
        honest.say(*(f"once {number}" for number in range(100)))
        wait_until(lambda: sum(r.last - r.first + 1 for r in listener.of(Run)) >= 300, what="all")
        with Insider(honest.peers[1]) as second:
            for insider in (listener, second):
                for _ in range(100):
                    insider.say(*listener.of(Run))


def test_wrong_stream_numbers_gaps_and_duplicates_on_purpose(honest: Honest) -> None:
    chance = random.Random(SEED)
    with Insider(honest.peers[0]) as insider:
        mine = insider.stream.key
        insider.say(new_run(mine, 1, b"begin"))
        for _ in range(3000):
            number = chance.choice([1, 2, 3, 5, 1000, MAX_NUMBER - 1])
            insider.say(new_run(mine, number, b"%d" % number))
            if not chance.randrange(50):
                insider.say(Have((Holding(mine, chance.randrange(1, number + 1), number),), True))
                insider.say(Want((Wanted(mine, chance.choice([0, number, MAX_NUMBER])),)))
    for peer in honest.peers:
        numbers = [seq for _, seq, _ in peer.heard(str(insider.address))]
        assert numbers == sorted(set(numbers)), "each once, in order"


def test_two_different_payloads_for_one_number(honest: Honest) -> None:
    """Nobody can tell which is right: each peer hears one of them, and goes on."""
    with Insider(honest.peers[0]) as first, Insider(honest.peers[1]) as second:
        stream = first.stream.key
        for number in range(1, 101):
            first.say(new_run(stream, number, b"A"))
            second.say(new_run(stream, number, b"B"))
        for peer in honest.peers:
            peer.wait_for("message", origin=str(first.address), count=100)
    for peer in honest.peers:
        heard = peer.heard(str(first.address))
        assert [seq for _, seq, _ in heard] == list(range(1, 101))
        assert {payload for _, _, payload in heard} <= {b"A", b"B"}


def test_streams_made_up_by_the_thousand(honest: Honest) -> None:
    """More than a peer ever remembers: what was heard is not heard again."""
    with Insider(honest.peers[0]) as insider:
        insider.say(Mode(wants_payload=True))
        honest.say("once")
        wait_until(lambda: len(insider.of(Run)) >= 3, what="what all said")
        said = insider.of(Run)
        for start in range(0, 70_000, 1000):
            hosts = (
                f"10.{n // 62_500}.{n // 250 % 250}.{n % 250}" for n in range(start, start + 1000)
            )
            made_up = (StreamName(Address(host, 6000), BOOT_MS) for host in hosts)
            insider.say(*(new_run(stream.key, 1, b"") for stream in made_up))
        insider.say(*said)
        peer = honest.peers[0]
        peer.wait_for("refused", what="streams")
        assert len(peer.all("refused", what="streams")) <= 2
    honest.check()


def test_somebody_who_says_much(honest: Honest) -> None:
    """A neighbour floods; the others are heard all the same."""
    with Insider(honest.peers[0]) as insider, contextlib.suppress(OSError):
        for number in range(1, 60_001, 1000):
            run = [new_run(insider.stream.key, n, b"x" * 100) for n in range(number, number + 1000)]
            insider.say(*run)
        honest.check()


def test_somebody_who_says_more_than_anybody_may(honest: Honest, embedded: Embedded) -> None:
    """It is refused, which is said once; what honest ones say is heard all the same."""
    events: list[Event] = []
    limits = Tunables(stream_messages=1000, stream_messages_per_s=100.0)
    victim = embedded.peer(
        seeds=[honest.seed.address], tunables=limits, on_event=events.append, log=None
    )
    wait_until(victim.neighbours, what="a neighbour")
    with Insider(victim) as insider:
        said = [new_run(insider.stream.key, number, b"") for number in range(1, 10_001)]
        insider.say(*said[:5000])
        embedded.wait_to_hear(victim, 1000)
        for run in said[5000:]:
            insider.say(run)
        wait_until(lambda: victim.stats()["refused_messages"] > 0, what="a refusal")
        honest.check()
        assert insider.is_over.is_set() is False, "the link stays"
        heard = [seq for origin, seq, _ in embedded.heard(victim) if origin == str(insider.address)]
        assert heard == list(range(1, len(heard) + 1))
        assert len(heard) < 10_000
    [refused] = [e for e in events if e["event"] == "refused" and e["what"] == "messages"]
    assert str(insider.address) in refused["reason"]


# ---- lies ----------------------------------------------------------------------------------------


def test_false_death_reports(honest: Honest) -> None:
    """To a seed, and to neighbours who ask for an opinion; by one that is registered too."""
    seed = Address.parse(honest.seed.address)
    everybody = [Address.parse(peer.address) for peer in honest.peers]
    with Insider(honest.peers[0]) as insider:
        assert isinstance(ask(seed, Register(insider.address, 1), 20, trust=None), PeerList)
        for accused in everybody:
            verdict = ask(seed, DeadReport(accused, insider.address), 20, trust=None)
            assert verdict == Verdict(accused, is_removed=False)
        for _ in range(50):
            insider.say(*(Opinion(accused, is_alive=False) for accused in everybody))
            insider.say(*(OpinionRequest(accused) for accused in everybody))
        let_pass(3)
    listed = ask(seed, ListPeers(), 20, trust=None)
    assert isinstance(listed, PeerList)
    assert set(everybody) <= set(listed.peers)


def test_address_books_full_of_black_holes_and_of_one_source(honest: Honest) -> None:
    """Then a neighbour dies: those left find each other, and so does a newcomer."""
    holes = BlackHoles(200)
    chance = random.Random(SEED)
    try:
        with Insider(honest.peers[0]) as insider:
            for _ in range(500):
                some = tuple(chance.sample(holes.addresses, 8))
                insider.say(Contacts(some, is_reply=True))
            newcomer = honest.programs.peer()
            newcomer.wait_for("neighbour_up")
            newcomer.kill()
            honest.check()
            newcomer = honest.programs.peer("--join", honest.peers[0].address)
            newcomer.say("I have found you")
            honest.peers[2].wait_for("message", text="I have found you")
    finally:
        holes.close()


def test_a_seeds_list_full_of_one_source(honest: Honest) -> None:
    """Addresses that do not exist, or do not answer, are not listed at all."""
    seed = Address.parse(honest.seed.address)
    holes = BlackHoles(3)
    try:
        for made_up in [*holes.addresses, *(Address("127.0.0.9", port) for port in range(1, 200))]:
            assert isinstance(ask(seed, Register(made_up, 1), 20, trust=None), Refused)
        listed = ask(seed, ListPeers(), 20, trust=None)
        assert isinstance(listed, PeerList)
        assert {str(peer) for peer in listed.peers} == {peer.address for peer in honest.peers}
    finally:
        holes.close()


def test_forged_log_lines_and_terminal_escapes_in_texts(honest: Honest) -> None:
    """In what is said, in the reasons it gives, and in what it calls itself."""
    person = honest.programs.terminal("peer.py", free_port())
    person.wait_to_see("linked with")
    for peer in honest.peers:
        with Insider(peer) as insider:
            insider.say(new_run(insider.stream.key, 1, FORGED.encode()))
            peer.wait_for("message", origin=str(insider.address), text=FORGED)
            insider.say(Bye(FORGED, is_leaving=False))
            peer.wait_for("neighbour_down", neighbour=str(insider.address))
    person.wait_to_see("hi")
    assert "\x1b[2J" not in person.screen
    assert "\x1b]0;" not in person.screen
    assert "\u202e" not in person.screen
    line = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} 127\.0\.0\.1:\d+ [a-z_]+( .*)?")
    for logged in honest.programs.log.read_text().removesuffix("\n").split("\n"):
        assert line.fullmatch(logged), logged
        assert logged.isprintable(), logged
    assert not any("127.0.0.1:2" in told for told in honest.programs.logged("dead"))


@pytest.mark.timeout(300)
def test_a_cold_start_among_attackers(honest: Honest) -> None:
    """A newcomer without a seed knows forty addresses that lead nowhere, and one that is honest.

    It dials four at a time, and waits 5 s for each: that it gets in is promised, not how soon.
    """
    holes = BlackHoles(40)
    try:
        join = [argument for hole in holes.addresses for argument in ("--join", str(hole))]
        join += ["--join", honest.peers[0].address]
        newcomer = honest.programs.peer(*join, "--seed", str(holes.addresses[0]))
        newcomer.say("I have found you")
        for peer in honest.peers:
            peer.wait_for("message", text="I have found you", timeout_s=180)
    finally:
        holes.close()


# ---- the root ------------------------------------------------------------------------------------


def test_a_root_that_goes_silent(honest: Honest) -> None:
    """It has lived longest, draws the tree once, and then no more."""
    with Insider(honest.peers[0], boot_ms=LIVES_LONGEST) as root:
        root.say(Beacon(root.stream.key, 1, 0, ()), Mode(wants_payload=True))
        for number in range(20):
            honest.say(f"while it is silent {number}")
            let_pass(1)
        honest.check()


def test_a_root_that_withholds(honest: Honest) -> None:
    """Everybody is its child, and it passes on nothing."""
    with contextlib.ExitStack() as stack:
        roots = [
            stack.enter_context(Insider(peer, boot_ms=LIVES_LONGEST + number))
            for number, peer in enumerate(honest.peers)
        ]
        for epoch in range(1, 15):
            for root in roots:
                with contextlib.suppress(OSError):
                    root.say(Beacon(roots[0].stream.key, epoch, 0, ()), Mode(True))
            honest.say(f"while it withholds {epoch}")
            let_pass(1)
        honest.check()


def test_beacons_of_ever_longer_lived_roots(honest: Honest) -> None:
    """Each draws the tree anew, as fast as a neighbour can say it."""
    with Insider(honest.peers[0]) as insider, contextlib.suppress(OSError):
        for number in range(20_000, 0, -1):
            insider.say(Beacon(name(7, boot_ms=number).key, 1, 0, ()))
        honest.check()
