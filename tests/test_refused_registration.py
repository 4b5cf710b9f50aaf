"""A seed that does not list a peer says so, and the peer says why, goes on, and tries again."""

from embedding import Embedded
from helpers import free_port, wait_until
from journal import Event
from programs import Programs
from relays import Relay
from settings import Tunables

HASTY = Tunables(first_backoff_s=0.05, longest_backoff_s=0.1)


def kinds(events: list[Event]) -> list[str]:
    """The names of the events."""
    return [event["event"] for event in events]


def test_who_cannot_be_dialled_is_told_so_and_joins_all_the_same(programs: Programs) -> None:
    """As with `--advertise` for a router that passes nothing on."""
    seed, [other] = programs.network(1)
    seed.wait_for("peer_registered", peer=other.address)
    nobody = f"127.0.0.1:{free_port()}"
    peer = programs.peer("--advertise", nobody)
    reason = peer.wait_for("seed_unreachable", seed=seed.address)["reason"]
    assert "does not list this peer" in reason
    assert f"{nobody}: it refused a connection" in reason
    peer.wait_for("neighbour_up", neighbour=other.address)
    peer.say("here all the same")
    other.wait_for("message", text="here all the same")
    assert peer.all("registered") == []
    assert peer.all("isolated") == []


def test_a_refusal_is_said_once_and_tried_again_until_the_seed_lists_it(embedded: Embedded) -> None:
    events: list[Event] = []
    seed = embedded.seed(tunables=Tunables(probe_timeout_s=0.05))
    port = free_port()
    with Relay(port) as relay:
        relay.hold()
        peer = embedded.peer(
            port=port,
            seeds=[seed.address],
            advertise=relay.address,
            tunables=HASTY,
            on_event=events.append,
        )
        wait_until(lambda: seed.stats()["refused_registrations"] >= 3, what="three refusals")
        assert peer.seeds() == {seed.address: False}
        assert kinds(events).count("seed_unreachable") == 1
        assert kinds(events).count("isolated") == 1
        assert "registered" not in kinds(events)
        relay.release()
        wait_until(lambda: peer.seeds() == {seed.address: True}, what="its registration")
        wait_until(lambda: "registered" in kinds(events), what="a word about it")
    assert kinds(events).count("seed_unreachable") == 1


def test_who_quits_at_once_does_nothing_that_a_seed_complains_of(programs: Programs) -> None:
    seed = programs.seed()
    for _ in range(5):
        peer = programs.peer()
        peer.say("/quit")
        assert peer.wait() == 0
    seed.terminate()
    assert seed.wait() == 0
    assert [event for event in seed.all("refused") if event["what"] == "frames"] == []
