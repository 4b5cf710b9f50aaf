"""Looks at the whole network while somebody wants to see it, and at nothing while nobody does.

Every peer is asked over a fresh connection whom it holds and what it counts (`Inspect`); so are
those that the answers name, and those that the seeds list. Paced, so that a look costs the network
little however large it is.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from link import ask
from messages import Address, Inspect, Inspected, WireError
from registration import listed_by
from threads import Threads
from trust import Trust

LOOK_INTERVAL_S = 1.0  # between two looks at everybody
ASKERS = 16  # questions under way at a time: a peer that hangs holds one up
QUESTIONS_PER_S = 100  # so that 300 peers are asked within three seconds, and feel nothing
ANSWER_TIMEOUT_S = 1.0  # as for an echo: a live peer manages, on a machine that has time for it
LONGEST_ANSWER_S = 5.0  # for one that has been slow before, or has not answered yet
INTEREST_S = 5.0  # nobody is asked any more once nobody has looked for so long
FIRST_LOOK_TIMEOUT_S = 4.0  # for whoever is the first to look
LEFT_AFTER_S = 2.0  # by then the neighbours of one that refuses have said if they found it dead
FORGET_AFTER_S = 30.0  # a peer that is gone is shown for so long
MAX_PEERS = 1000  # looked at; of a larger network only a part is
MAX_LINKS = 100  # believed of one peer; an honest one has twelve


@dataclass(slots=True)
class Sight:
    """What we know of one peer."""

    known_s: float  # when it answered last, or was named by a seed or a live peer
    told: Inspected | None = None  # its latest answer
    refused_s: float | None = None  # since then nobody listens there
    is_silent: bool = False  # it did not answer the latest question
    is_dead: bool = False  # others found it dead, and it has not answered since
    patience_s: float = LONGEST_ANSWER_S  # for its next answer


class Survey:
    """The network as it was seen last. `see` may be called from any thread."""

    def __init__(
        self,
        me: Address,
        list_seeds: Callable[[], Iterable[Address]],
        trust: Trust | None,
        threads: Threads,
    ) -> None:
        self._me = me
        self._trust = trust
        self._list_seeds = list_seeds
        self._threads = threads
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # guards what follows
        self._has_changed = threading.Condition(self._lock)
        self._wanted_until_s = float("-inf")
        self._looked_s = float("-inf")  # when the latest look at everybody was over
        self._sights: dict[Address, Sight] = {}
        self._seeds: dict[Address, bool] = {}  # whether each answered

    # ---- for any thread ----

    def see(self) -> dict[str, Any]:
        """The peers, those that are gone, and the seeds. Waits for a first look if need be."""
        now_s = time.monotonic()
        with self._lock:
            is_first = self._wanted_until_s < now_s
            self._wanted_until_s = now_s + INTEREST_S
            self._has_changed.notify_all()
            if is_first:
                self._has_changed.wait_for(lambda: self._looked_s > now_s, FIRST_LOOK_TIMEOUT_S)
            return self._picture(time.monotonic())

    def stop(self) -> None:
        """End `keep`; whoever waits gets what there is."""
        self._stopping.set()
        with self._lock:
            self._looked_s = float("inf")
            self._has_changed.notify_all()

    # ---- for the thread that looks ----

    def keep(self) -> None:
        """Look at everybody again and again while somebody wants to see it, until stopped."""
        while not self._stopping.is_set():
            with self._lock:
                self._has_changed.wait_for(self._is_wanted)
            if self._stopping.is_set():
                return
            self._look()
            with self._lock:
                self._forget(time.monotonic())
                self._looked_s = max(self._looked_s, time.monotonic())
                self._has_changed.notify_all()
            self._stopping.wait(LOOK_INTERVAL_S)

    def _is_wanted(self) -> bool:
        return self._stopping.is_set() or time.monotonic() < self._wanted_until_s

    def _look(self) -> None:
        """Ask the seeds, then every peer known, then those that were named meanwhile."""
        seeds = list(self._list_seeds())
        listed: dict[Address, tuple[Address, ...] | None] = dict.fromkeys(seeds)

        def ask_seed(seed: Address) -> None:
            listed[seed] = listed_by(seed, ANSWER_TIMEOUT_S, self._trust)

        self._threads.each("ask", ask_seed, seeds, ASKERS)
        with self._lock:
            self._seeds = {seed: peers is not None for seed, peers in listed.items()}
            self._name([self._me, *(peer for peers in listed.values() for peer in peers or ())])
        asked: set[Address] = set()
        while not self._stopping.is_set():
            with self._lock:
                due = [peer for peer in self._sights if peer not in asked]
            if not due:
                return
            asked.update(due)
            self._threads.each("ask", self._ask, due, ASKERS)

    def _ask(self, peer: Address) -> None:
        if self._stopping.wait(ASKERS / QUESTIONS_PER_S):
            return
        is_refused, told = False, None
        with self._lock:
            sight = self._sights[peer]
            patience_s = ANSWER_TIMEOUT_S if sight.is_dead else sight.patience_s
        asked_s = time.monotonic()
        try:
            answer = ask(peer, Inspect(), patience_s, self._trust)
            if isinstance(answer, Inspected) and answer.address == peer:
                told = answer
        except ConnectionRefusedError:
            is_refused = True
        except (OSError, WireError):
            pass  # silent, or no peer
        now_s = time.monotonic()
        with self._lock:
            self._note(peer, told, is_refused, now_s)
            self._sights[peer].patience_s = _patience_s(told is not None, now_s - asked_s)

    def _note(self, peer: Address, told: Inspected | None, is_refused: bool, now_s: float) -> None:
        sight = self._sights[peer]
        sight.is_silent = told is None
        if told is None:
            since_s = sight.refused_s if sight.refused_s is not None else now_s
            sight.refused_s = since_s if is_refused else None
            return
        sight.told, sight.known_s = told, now_s
        sight.refused_s, sight.is_dead = None, False
        self._name(linked.neighbour for linked in told.links[:MAX_LINKS])
        for dead in told.dead[:MAX_LINKS]:
            if dead in self._sights and self._sights[dead].is_silent:
                self._sights[dead].is_dead = True

    def _name(self, peers: Iterable[Address]) -> None:
        """Peers that somebody named; those not known yet will be asked."""
        now_s = time.monotonic()
        for peer in peers:
            if peer in self._sights:
                self._sights[peer].known_s = now_s
            elif len(self._sights) < MAX_PEERS:
                self._sights[peer] = Sight(now_s)

    def _forget(self, now_s: float) -> None:
        """Those that are gone for long. Where most are just silent, it may be us who are slow."""
        hanging = [s for s in self._sights.values() if s.is_silent and s.refused_s is None]
        is_slow = 2 * len(hanging) > len(self._sights)
        for peer, sight in list(self._sights.items()):
            is_stranger = sight.told is None and sight.is_silent
            is_over = sight.is_silent and now_s - sight.known_s > FORGET_AFTER_S
            may_live = is_slow and sight.refused_s is None and not sight.is_dead
            if is_stranger or (is_over and not may_live):
                del self._sights[peer]

    # ---- the picture ----

    def _picture(self, now_s: float) -> dict[str, Any]:
        peers, gone = [], []
        for peer, sight in sorted(self._sights.items()):
            if sight.told is None:
                continue  # nobody but others has told of it
            fate = _fate(sight, now_s)
            if fate in ("alive", "silent"):
                peers.append({**_shown(sight.told), "state": fate})
            else:
                gone.append({"address": str(peer), "state": fate})
        seeds = [{"address": str(a), "reachable": is_there} for a, is_there in self._seeds.items()]
        return {"peers": peers, "gone": gone, "seeds": seeds}


def _patience_s(has_answered: bool, took_s: float) -> float:
    """Who is slow has long to answer; but who was quick, and hangs, is soon seen to."""
    if not has_answered:
        return LONGEST_ANSWER_S
    return min(max(ANSWER_TIMEOUT_S, 4 * took_s), LONGEST_ANSWER_S)


def _fate(sight: Sight, now_s: float) -> str:
    if not sight.is_silent:
        return "alive"
    if sight.is_dead:
        return "dead"
    if sight.refused_s is not None and now_s - sight.refused_s >= LEFT_AFTER_S:
        return "left"
    return "silent"


def _shown(told: Inspected) -> dict[str, Any]:
    """A peer's answer as the API has it."""
    links = told.links[:MAX_LINKS]
    return {
        "address": str(told.address),
        "neighbours": [str(linked.neighbour) for linked in links],
        "tree": [str(linked.neighbour) for linked in links if linked.is_tree],
        "hops": told.hops,
        "said": told.said,
        "delivered": told.delivered,
        "surplus": told.surplus,
        "since": told.boot_ms / 1000,
    }
