"""What one peer counts, in the text format that Prometheus reads.

Names follow Prometheus' conventions: one prefix, base units, `_total` for what only grows.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from settings import VERSION


class Family(NamedTuple):
    """One metric: what it is, and from which of the peer's counters."""

    name: str
    kind: str  # gauge, or counter
    meaning: str
    counter: str


FAMILIES = [
    Family("p2p_neighbours", "gauge", "Peers that this one holds a link to.", "neighbours"),
    Family("p2p_suspects", "gauge", "Peers that may be dead; their case is open.", "suspects"),
    Family("p2p_contacts", "gauge", "Addresses in the book.", "contacts"),
    Family("p2p_tree_hops", "gauge", "Links between this peer and the root.", "hops_to_root"),
    Family("p2p_streams", "gauge", "Origins whose messages are held.", "streams"),
    Family("p2p_messages_said_total", "counter", "Messages this peer said.", "broadcast"),
    Family("p2p_messages_delivered_total", "counter", "Messages of others heard.", "delivered"),
    Family("p2p_messages_surplus_total", "counter", "Copies of messages already had.", "surplus"),
    Family("p2p_received_bytes_total", "counter", "Bytes read from neighbours.", "received_bytes"),
    Family("p2p_sent_bytes_total", "counter", "Bytes written to neighbours.", "sent_bytes"),
    Family("p2p_history_bytes", "gauge", "What is held for others.", "history_bytes"),
    Family("p2p_inbox_bytes", "gauge", "Heard, and not yet handed on.", "waiting_bytes"),
]


def exposition(
    stats: Mapping[str, int],
    links: Iterable[Mapping[str, Any]],
    events: Mapping[str, int],
    streams: int,
) -> str:
    """The page: the peer's counters, each link, how often each event came, and open streams."""
    links = list(links)
    lags = [(("neighbour", link["neighbour"]), link["lag"]) for link in links]
    trips = [(("neighbour", link["neighbour"]), link["round_trip_s"]) for link in links]
    counts = [(("event", event), count) for event, count in sorted(events.items())]
    delivered = stats["delivered"]
    redundancy = stats["surplus"] / delivered if delivered else 0.0
    lines = _family("p2p_build_info", "gauge", "What runs.", [(("version", VERSION), 1)])
    started: list[Sample] = [(None, stats["boot_ms"] / 1000)]
    lines += _family("p2p_start_time_seconds", "gauge", "When it began, since 1970.", started)
    for family in FAMILIES:
        plain: list[Sample] = [(None, stats[family.counter])]
        lines += _family(family.name, family.kind, family.meaning, plain)
    lines += _family(
        *("p2p_redundancy_ratio", "gauge", "Copies beyond the one needed, per message heard."),
        [(None, redundancy)],
    )
    lines += _family("p2p_link_lag_messages", "gauge", "Messages a neighbour is owed.", lags)
    lines += _family(
        *("p2p_link_round_trip_seconds", "gauge", "How long a neighbour's latest answer took."),
        [(label, trip_s) for label, trip_s in trips if trip_s is not None],
    )
    lines += _family("p2p_events_total", "counter", "What happened, by event.", counts)
    lines += _family("p2p_http_streams", "gauge", "Readers over HTTP.", [(None, streams)])
    return "".join(f"{line}\n" for line in lines)


Sample = tuple[tuple[str, str] | None, float]  # a label, if any, and the value


def _family(name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> list[str]:
    head = [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
    return head + [f"{name}{_labelled(label)} {value}" for label, value in samples]


def _labelled(label: tuple[str, str] | None) -> str:
    if label is None:
        return ""
    value = label[1].replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{{{label[0]}="{value}"}}'
