"""The metrics: what Prometheus reads, and that it is true."""

from prometheus_client.parser import text_string_to_metric_families

from helpers import free_port, wait_until
from programs import Programs
from visits import metric, say, served, visit


def test_the_metrics_are_what_prometheus_reads(programs: Programs) -> None:
    _, [peer] = programs.network(1)
    dashboard = programs.start("dashboard.py", free_port())
    url = served(dashboard)
    dashboard.wait_for("neighbour_up")
    peer.say("one", "two")
    dashboard.wait_for("message", count=2)
    say(url, "three")
    wait_until(
        lambda: b"p2p_link_round_trip_seconds{" in visit(url, "/metrics").body, what="a round trip"
    )
    answer = visit(url, "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.body.decode()))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    for family in families:
        assert family.name.startswith("p2p_")
        assert family.type in ("counter", "gauge")
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total")
            assert sample.value >= 0
    assert metric(url, "p2p_neighbours") == 1
    assert metric(url, "p2p_messages_delivered_total") == 2
    assert metric(url, "p2p_messages_said_total") == 1
    assert metric(url, "p2p_events_total", event="message") == 2
    assert metric(url, "p2p_suspects") == 0
    assert 0 < metric(url, "p2p_link_round_trip_seconds", neighbour=peer.address) < 5
    assert metric(url, "p2p_link_lag_messages", neighbour=peer.address) == 0
    assert metric(url, "p2p_received_bytes_total") > 100
    assert metric(url, "p2p_sent_bytes_total") > 100
    assert metric(url, "p2p_redundancy_ratio") == 0
    started = dashboard.wait_for("listening")["at"]
    assert abs(metric(url, "p2p_start_time_seconds") - started) < 60


def test_the_bytes_only_grow_also_when_links_end(programs: Programs) -> None:
    _, [first, second] = programs.network(2)
    dashboard = programs.start("dashboard.py", free_port())
    url = served(dashboard)
    wait_until(lambda: metric(url, "p2p_neighbours") == 2, what="two neighbours")
    first.say("x" * 10_000)
    dashboard.wait_for("message")
    before = metric(url, "p2p_received_bytes_total")
    assert before > 10_000
    first.kill()
    second.kill()
    wait_until(lambda: metric(url, "p2p_neighbours") == 0, what="no neighbour")
    assert metric(url, "p2p_received_bytes_total") >= before
