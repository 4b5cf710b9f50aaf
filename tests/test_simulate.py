"""The simulator as a program: its figures, that they can be had again, and its options."""

import json
from typing import Any

import pytest

from helpers import STOP_LIMIT_S
from inhabitants import withholding
from programs import Programs
from scenario import Experiment, Setting, run_for

KEYS = [
    "peers",
    "survivors",
    "reached",
    "last_delivery_s",
    "rmr",
    "ldh",
    "control_per_message",
    "components",
    "duplicates_to_application",
    "order_violations",
    "trace",
    "simulated_s",
    "wall_s",
]
EVERYTHING = ["--peers", 60, "--senders", 2, "--messages", 2, "--fail", 0.2, "--silent", 0.1]
EVERYTHING += ["--withhold", 0.1, "--partition", 0.3, "--heal-after", 8, "--loss", 0.5]
EVERYTHING += ["--latency-ms", "5-80", "--seed", 3]

Figures = dict[str, Any]


def objects(programs: Programs, *arguments: object) -> list[Figures]:
    """What the simulator prints with `--json`, line by line."""
    programs.are_files_named = False
    done = programs.run("simulate.py", *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def figures(programs: Programs, *arguments: object) -> Figures:
    """The only object it prints."""
    [only] = objects(programs, *arguments)
    return only


def but_for_the_clock(told: Figures) -> Figures:
    return {key: value for key, value in told.items() if key != "wall_s"}


# ---- figures -------------------------------------------------------------------------------------


def test_the_figures_have_their_names(programs: Programs) -> None:
    assert list(figures(programs, "--peers", 30)) == KEYS


def test_a_calm_network_brings_one_copy_to_everyone(programs: Programs) -> None:
    calm = figures(programs, "--peers", 100, "--senders", 5, "--messages", 3)
    assert (calm["peers"], calm["survivors"], calm["reached"]) == (100, 100, 1.0)
    assert calm["rmr"] < 0.05
    assert 3 <= calm["ldh"] <= 20
    assert 0 < calm["last_delivery_s"] < 1
    assert calm["control_per_message"] > 0
    assert calm["simulated_s"] > 5
    assert calm["wall_s"] > 0


def is_whole(told: Figures) -> bool:
    """Whether the network is one, and has given everything to everyone, once and in order."""
    faults = told["duplicates_to_application"] + told["order_violations"]
    return (told["reached"], told["components"], faults) == (1.0, 1, 0)


def test_what_is_said_while_most_are_killed_reaches_every_survivor(programs: Programs) -> None:
    told = figures(programs, "--peers", 200, "--fail", 0.8, "--messages", 2)
    assert told["survivors"] == 40
    assert is_whole(told), told
    assert told["last_delivery_s"] < 2


def test_who_falls_silent_keeps_nobody_from_hearing(programs: Programs) -> None:
    told = figures(programs, "--peers", 100, "--silent", 0.5)
    assert told["survivors"] == 50
    assert is_whole(told), told
    assert told["last_delivery_s"] < 15


def test_insiders_that_pass_on_nothing_keep_nobody_from_hearing(programs: Programs) -> None:
    told = figures(programs, "--peers", 100, "--withhold", 0.2)
    assert told["survivors"] == 100
    assert is_whole(told), told


@pytest.mark.parametrize("seed", [2, 3])
def test_an_origin_whose_neighbours_all_pass_on_nothing_is_heard_soon(seed: int) -> None:
    experiment = Experiment(Setting(peers=400, seed=seed), lambda _: None)
    experiment.build()
    world = experiment.world
    origin = world.rng.choice(world.live_peers())
    for neighbour in origin.links:
        world.peers[neighbour].manner = withholding
    [said] = experiment.measure.speak([origin])
    run_for(world, 4.0, lambda _: None)
    assert said.deliveries == len(world.live_peers()) - 1


def test_what_is_said_into_a_cut_is_heard_by_all_once_it_is_healed(programs: Programs) -> None:
    arguments = ["--peers", 40, "--partition", 0.5, "--heal-after", 20]
    told = figures(programs, *arguments, "--senders", 4, "--messages", 4)
    assert told["survivors"] == 40
    assert is_whole(told), told
    assert told["simulated_s"] > 20


def test_connections_that_break_lose_nothing(programs: Programs) -> None:
    calm = figures(programs, "--peers", 40, "--messages", 20)
    rough = figures(programs, "--peers", 40, "--messages", 20, "--loss", 0.9)
    assert is_whole(rough), rough
    assert rough["trace"] != calm["trace"]


def test_slower_links_are_slower(programs: Programs) -> None:
    slow = figures(programs, "--peers", 50, "--latency-ms", "100-200")
    fast = figures(programs, "--peers", 50, "--latency-ms", "1-2")
    assert slow["last_delivery_s"] > 10 * fast["last_delivery_s"]


def test_one_peer_alone_is_a_network(programs: Programs) -> None:
    alone = figures(programs, "--peers", 1)
    assert is_whole(alone), alone
    assert (alone["last_delivery_s"], alone["ldh"], alone["rmr"]) == (0.0, 0, 0.0)


# ---- the same again ------------------------------------------------------------------------------


def test_the_same_arguments_give_the_same_figures_in_any_process(programs: Programs) -> None:
    told = []
    for hash_seed in ("0", "1", "4242"):
        programs.environment["PYTHONHASHSEED"] = hash_seed
        told.append(but_for_the_clock(figures(programs, *EVERYTHING)))

    assert told[0] == told[1] == told[2]


def test_another_seed_is_another_run(programs: Programs) -> None:
    one, other = (figures(programs, "--peers", 30, "--seed", seed) for seed in (1, 2))
    assert one["trace"] != other["trace"]


def test_several_runs_are_those_of_consecutive_seeds_one_a_line(programs: Programs) -> None:
    together = objects(programs, "--peers", 30, "--seed", 5, "--runs", 3)
    alone = [figures(programs, "--peers", 30, "--seed", seed) for seed in (5, 6, 7)]
    assert list(map(but_for_the_clock, together)) == list(map(but_for_the_clock, alone))


# ---- for a person --------------------------------------------------------------------------------


def test_a_person_gets_a_row_for_each_round_and_a_summary(programs: Programs) -> None:
    programs.are_files_named = False
    done = programs.run("simulate.py", "--peers", 50, "--messages", 3, "--fail", 0.5)
    lines = done.stdout.splitlines()
    rows = [line.split() for line in lines if line.split()[0].isdigit() and "%" in line]
    assert [row[:3] for row in rows] == [[str(n), "100.00", "%"] for n in (1, 2, 3)]
    assert "25 of 50 peers live on" in lines[-1]
    assert done.stderr == ""


def test_a_terminal_shows_how_far_it_is(programs: Programs) -> None:
    programs.are_files_named = False
    terminal = programs.terminal("simulate.py", "--peers", 100, "--messages", 5)
    terminal.wait_to_see(r"\d s simulated, [\d,]+ events")
    assert terminal.wait() == 0


@pytest.mark.parametrize("runs", [1, 3])
def test_ctrl_c_ends_it_soon_and_cleanly(programs: Programs, runs: int) -> None:
    programs.are_files_named = False
    terminal = programs.terminal("simulate.py", "--peers", 3000, "--runs", runs)
    terminal.wait_to_see(r"events|0 of 3 runs")
    terminal.press_ctrl_c()
    assert terminal.wait(STOP_LIMIT_S) == 0


def test_it_leaves_no_file_behind(programs: Programs) -> None:
    figures(programs, "--peers", 20)
    assert list(programs.folder.iterdir()) == []


# ---- options -------------------------------------------------------------------------------------


def test_help_names_every_option(programs: Programs) -> None:
    programs.are_files_named = False
    done = programs.run("simulate.py", "--help")
    named = [str(argument) for argument in EVERYTHING if str(argument).startswith("--")]
    missing = [n for n in [*named, "--runs", "--json", "--workload"] if n not in done.stdout]
    assert (done.returncode, missing) == (0, [])


def test_version_is_one_line(programs: Programs) -> None:
    programs.are_files_named = False
    done = programs.run("simulate.py", "--version")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--peers", 0],
        ["--peers", "many"],
        ["--peers", 10**7],
        ["--senders", 0],
        ["--senders", 31, "--peers", 30],
        ["--senders", 2, "--peers", 10, "--fail", 0.9],
        ["--messages", 0],
        ["--fail", 1],
        ["--fail", -0.1],
        ["--fail", "nan"],
        ["--peers", 1, "--fail", 0.9],
        ["--silent", 0.5, "--fail", 0.5],
        ["--withhold", "all"],
        ["--partition", 2],
        ["--partition", 0.5, "--heal-after", "never"],
        ["--heal-after", 5],
        ["--loss", 1.5],
        ["--latency-ms", 10],
        ["--latency-ms", "50-10"],
        ["--latency-ms", "-5-10"],
        ["--seed", -1],
        ["--seed", "x"],
        ["--runs", 0],
        ["--workload", "unheard-of"],
        ["--workload", "glomers", "--fail", 0.5],
        ["--peer", 30],
        ["surplus"],
    ],
    ids=lambda arguments: " ".join(map(str, arguments)),
)
def test_a_bad_argument_is_refused_in_one_line(programs: Programs, arguments: list[object]) -> None:
    programs.are_files_named = False
    done = programs.run("simulate.py", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr


# ---- the workload of the Gossip Glomers ----------------------------------------------------------


def test_the_glomers_workload_is_within_both_of_its_limits(programs: Programs) -> None:
    quick, frugal = objects(programs, "--workload", "glomers")
    assert quick["lost"] == frugal["lost"] == 0
    assert quick["messages_per_operation"] < 20
    assert quick["median_latency_s"] < 0.4
    assert quick["max_latency_s"] < 0.6
    assert frugal["messages_per_operation"] < 6
    assert frugal["median_latency_s"] < 1
    assert frugal["max_latency_s"] < 2


def test_the_glomers_workload_loses_nothing_in_a_cut(programs: Programs) -> None:
    for mode in objects(programs, "--workload", "glomers", "--partition", 0.4, "--heal-after", 8):
        assert mode["lost"] == 0
        assert mode["max_latency_s"] > 8
