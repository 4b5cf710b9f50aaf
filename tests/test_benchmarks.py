"""The benchmarks' own machinery: what is said, checked, counted and shown. Nothing is timed."""

import json
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import conductor
import environment
import hardship
import life
import machine
import many
import named
import publish
import run
import shares
from conductor import DIALS, graph
from figures import delays_ms, percentile, table
from helpers import ROOT
from workloads import WORKLOADS, Check, Workload, payloads

PLAIN = Workload("plain", count=5, size=40)
TIMED = Workload("timed", count=5, size=40, speakers="all", is_timed=True)


# ---- what is said and checked


@pytest.mark.parametrize("workload", [PLAIN, TIMED, *WORKLOADS.values()], ids=lambda w: w.name)
def test_every_payload_said_is_taken_once(workload: Workload) -> None:
    small = workload.scaled(3 / workload.count)
    check = Check(small, me=1, peers=2)
    said = list(payloads(small, me=0))
    assert {len(payload) for payload in said} == {workload.size}
    assert [check.take(payload) for payload in said] == [False, False, True]
    assert (check.delivered, check.wrong, check.duplicates) == (3, 0, 0)
    assert [check.take(payload) for payload in said] == [False] * 3
    assert (check.delivered, check.duplicates) == (3, 3)


@pytest.mark.parametrize("workload", [PLAIN, TIMED], ids=lambda w: w.name)
def test_a_payload_with_any_other_byte_is_wrong(workload: Workload) -> None:
    [payload, *_] = payloads(workload, me=0)
    header_size = 14 if workload.is_timed else 6
    for at in range(header_size, len(payload)):
        check = Check(workload, me=1, peers=2)
        check.take(payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :])
        assert (check.delivered, check.wrong) == (0, 1)


@pytest.mark.parametrize("wrong", [b"", b"x", b"\xff" * 40, b"\0" * 39, b"\0" * 41])
def test_what_nobody_said_is_wrong(wrong: bytes) -> None:
    check = Check(PLAIN, me=1, peers=2)
    check.take(wrong)
    assert (check.delivered, check.wrong) == (0, 1)


def test_who_speaks_expects_the_others_alone() -> None:
    assert [PLAIN.expected(me, peers=3) for me in range(3)] == [0, 5, 5]
    assert [TIMED.expected(me, peers=3) for me in range(3)] == [10, 10, 10]
    others = replace(PLAIN, speakers="others")
    assert [others.expected(me, peers=3) for me in range(3)] == [10, 5, 5]


def test_everybody_dials_four_earlier_ones() -> None:
    dialled = graph(20)
    for peer, earlier in enumerate(dialled):
        assert len(set(earlier)) == min(peer, DIALS)
        assert all(other < peer for other in earlier)
    assert dialled == graph(20)


# ---- figures


def test_percentiles_are_samples_of_that_rank() -> None:
    samples = list(range(1, 101))
    random.Random(1).shuffle(samples)
    assert [percentile(samples, p) for p in (0, 1, 50, 99, 100)] == [1, 1, 50, 99, 100]
    assert percentile([7.0], 99) == 7.0


def test_delays_are_those_to_each_and_to_the_last() -> None:
    near, far = [[0, 0, 1000.0], [0, 1, 2000.0]], [[0, 0, 5000.0], [0, 1, 9000.0]]
    assert delays_ms([near, [], far]) == {
        "each_p50_ms": 2.0,
        "each_p99_ms": 9.0,
        "last_p50_ms": 5.0,
        "last_p99_ms": 9.0,
    }
    assert set(delays_ms([[], []]).values()) == {None}


def test_a_table_has_columns() -> None:
    rows: list[dict[str, Any]] = [{"name": "x", "rate": 12345.6}, {"name": "longer", "rate": None}]
    lines = table(rows, {"name": "who", "rate": "per second"})
    assert lines == ["who     per second", "x           12,346", "longer"]


def test_repeats_are_shown_as_their_median() -> None:
    keys = {"peers": 8, "workload": "b", "system": "ours", "failure": ""}
    rows = run.medians([{**keys, "deliveries_per_s": rate} for rate in (90.0, 100.0, 110.0)])
    assert [(row["deliveries_per_s"], row["spread"]) for row in rows] == [(100.0, "10%")]


# ---- the page


def test_the_page_has_a_place_for_everything_and_its_links_lead_somewhere() -> None:
    page = publish.PAGE.read_text(encoding="utf-8")
    named = [match[2] for match in publish.PART.finditer(page)]
    assert sorted(named) == sorted(publish.parts([], []))
    assert publish.filled(page, {name: ["x"] * 3 for name in named}).count("\nx\nx\nx\n") == len(
        named
    )
    linked = re.findall(r"\]\(([^)#]+)[^)]*\)", page)
    assert [link for link in linked if not (publish.PAGE.parent / link).exists()] == []


def test_the_page_is_what_its_figures_say() -> None:
    """Nobody edited a figure by hand, or forgot to publish."""
    files = sorted(publish.FOLDER.glob("*.json"))
    assert [file.stem for file in files if file.stem not in publish.COMMANDS] == []
    page = publish.PAGE.read_text(encoding="utf-8")
    assert publish.filled(page, publish.parts(*publish.read(files))) == page


def test_what_was_missing_is_said() -> None:
    rows = [{"workload": "b", "missing": 1, "expected": 400}, {"workload": "c", "missing": 0}]
    assert publish.missing(*rows) == "b: 0.2%"
    assert publish.missing({"workload": "d", "missing": 5, "expected": 10}) == "d: 50%"
    assert publish.missing(rows[1]) == "none"


def test_a_system_that_could_not_be_measured_is_on_the_page() -> None:
    failed = [
        {"system": "ours", "workload": name, "peers": 16, "failure": "worker 0 did not join"}
        for name in ("a", "b")
    ]
    report = {"script": "run", "arguments": [], "rows": failed, "machine": machine.described()}
    row = publish.parts([report], [])["standard"][-1]
    assert row.startswith("| ours |")
    assert "a: worker 0 did not join, b: worker 0 did not join" in row


FRAMES = {
    "clear_page_erms ([kernel.kallsyms])": "memory that is touched for the first time",
    "finish_task_switch ([kernel.kallsyms])": "threads that wait for, and wake, each other",
    "tcp_sendmsg ([kernel.kallsyms])": "sending",
    "_copy_to_iter ([kernel.kallsyms])": "receiving",
    "exit_to_user_mode_loop ([kernel.kallsyms])": "the rest of the kernel",
    "__memmove_avx_unaligned (/usr/lib/libc.so.6)": "copies within a program",
    "[unknown] ([unknown])": "Python, the check of each payload included",
}
OUTER = ["asm_exc_page_fault", "__x64_sys_futex", "__x64_sys_sendto", "__x64_sys_recvfrom"]


def test_processor_time_is_sorted_by_what_it_went_to() -> None:
    for number, (innermost, kind) in enumerate(FRAMES.items()):
        frames = [innermost, "_PyEval_EvalFrameDefault (/usr/bin/python3.11)"]
        frames[1:1] = [f"{outer} ([kernel.kallsyms])" for outer in OUTER[number : number + 1]]
        stack = "\n".join(f"\t    ffffffff81000000 {frame}" for frame in frames)
        assert shares.kind_of(stack) == kind


def test_samples_that_perf_did_not_write_end_the_script_with_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    perf = tmp_path / "perf"
    perf.write_text("#!/bin/sh\necho zero-sized data >&2\nexit 255\n")
    perf.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["benchmarks/shares.py"])
    with pytest.raises(SystemExit) as ended:
        named.run(lambda _: shares.count(tmp_path / "samples").total())
    assert ended.value.code == (
        f"shares.py: perf script: expected samples in {tmp_path / 'samples'}; it says: "
        "zero-sized data"
    )


def test_a_line_over_the_logarithm_is_extended() -> None:
    assert publish.extended([(10, 1.0), (100, 2.0), (1000, 3.0)], 1e6) == pytest.approx(6)


# ---- the commands


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new network is not left alone at first."""
    monkeypatch.setattr(conductor, "let_settle", lambda _: None)
    for script in (life, many):
        monkeypatch.setattr(script, "SETTLE_S", 0)


@pytest.mark.parametrize("script", ["run", "life", "many", "hardship", "shares", "publish"])
def test_a_script_explains_itself_without_anything_installed(script: str) -> None:
    file = str(ROOT / "benchmarks" / f"{script}.py")
    code = f"import runpy, sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); "
    code += f"sys.argv = ['{script}.py', '--help']; runpy.run_path({file!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage:" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "none"], "'none'"),
        (["--workloads", "a,e"], "'e'"),
        (["--workloads", "sizes,huge"], "'huge'"),
        (["--peers", "1"], "at least 2"),
        (["--peers", "x"], "'x'"),
        (["--repeat", "0"], "'0'"),
    ],
)
def test_a_bad_argument_is_explained(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_without_the_packages_the_other_systems_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "python", lambda: None)
    assert run.prepared(["ours", "nats", "limit"]) == (["ours", "limit"], sys.executable)
    assert capsys.readouterr().err == "left out: nats\n"
    assert run.prepared(["limit"]) == (["limit"], sys.executable)


def test_every_package_is_pinned() -> None:
    lines = environment.REQUIREMENTS.read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert len(wanted) == len(environment.versions())


def test_a_group_stands_for_its_workloads() -> None:
    options = run.parsed(["--workloads", "d,standard"])
    assert options.workloads == ["d", "a", "b", "c", "d"]


@pytest.mark.parametrize("system", ["ours", "ours_tls", "naive", "limit"])
@pytest.mark.usefixtures("quick")
def test_a_system_is_measured(
    system: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three processes; every workload but the slow one, with a hundredth of the messages."""
    file = tmp_path / "figures.json"
    command = ["--only", system, "--peers", "3", "--workloads", "b,d", "--short"]
    assert run.main([*command, "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert {"cores", "cpu", "memory_gib", "kernel", "python", "commit"} <= report["machine"].keys()
    by_workload = {measured["workload"]: measured for measured in report["rows"]}
    assert by_workload["b"]["delivered"] == 2 * 2000
    assert by_workload["d"]["delivered"] == 3 * 2 * 200
    for measured in report["rows"]:
        assert (measured["missing"], measured["wrong"], measured["duplicates"]) == (0, 0, 0)
        assert measured["cpu_us_per_delivery"] > 0
        assert measured["peak_rss_mib"] > 0
    assert "deliveries/s" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_deaths_are_measured(tmp_path: Path) -> None:
    """The real programs: three seeds and three peers, one of which is killed."""
    file = tmp_path / "figures.json"
    assert life.main(["crash", "--peers", "3", "--repeat", "1", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [row["what"].partition(" ")[0] for row in rows] == ["killed"] * 3
    for row in rows:
        assert row["count"] == 1
        assert 0 < row["median"] == row["worst"]


@pytest.mark.usefixtures("quick")
def test_traffic_a_crowd_and_a_busy_seed_are_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(many, "COMERS", 5)
    file = tmp_path / "figures.json"
    monkeypatch.setattr(many, "FEW", 3)
    few = ["--seconds", "3", "--crowd", "3", "--switch", "0.005"]
    few += ["--registered", "20", "--rate", "10"]
    assert many.main([*few, "--json", str(file)]) == 0
    values = {row["what"]: row["value"] for row in json.loads(file.read_text())["rows"]}
    assert values["a peer of 3 sends its neighbours, at rest"] > 0
    assert values["and for each message of 100 bytes, at 100 a second"] > 0
    assert values["peers in one process"] == 3
    assert values["threads left behind"] == 0
    assert values["peers on the list, and connected"] == 20
    for what in ("first registrations", "renewals", "further registrations"):
        assert values[f"{what} made"] > 0
        assert 0 < values[f"{what}: one took, p50"] <= values[f"{what}: one took, p99"]


@pytest.mark.usefixtures("quick")
def test_hardship_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SMALL", "BULK"):
        monkeypatch.setattr(hardship, name, replace(getattr(hardship, name), count=10))
    monkeypatch.setattr(hardship, "WORKLOADS", {"c": Workload("c", count=10, size=64 << 10)})
    file = tmp_path / "figures.json"
    assert hardship.main(["--peers", "4", "--repeat", "1", "--json", str(file)]) == 0
    values = {row["what"]: row["value"] for row in json.loads(file.read_text())["rows"]}
    assert values["flooded: small messages missing"] == 0
    assert values["flooded: deliveries of 64 KiB missing"] == 0
    assert values["missing at the others"] == 0
    assert values["flooded: liveness reply, p50"] > 0
