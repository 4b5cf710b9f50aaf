"""Keeps a peer registered with a majority of the seeds, and fetches their lists.

Any two peers that are registered with a majority each share at least one seed, so the union of the
lists that a majority hands out leaves nobody out. One thread runs `keep`; the others only leave
word.
"""

import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from link import Connection, ask, dial, each_of, reason_of
from messages import (
    Address,
    Bye,
    DeadReport,
    ListPeers,
    PeerList,
    Register,
    StreamName,
    Verdict,
    WireError,
)
from overlay import Backoff
from settings import Tunables, read_seeds
from tls import NotTrusted
from trust import Trust

_log = logging.getLogger("peer-to-peer")

LOOK_INTERVAL_S = 0.5  # how often the connections to the seeds are looked at
NAMES_INTERVAL_S = 10.0  # how often the name service is asked; a seed may come back elsewhere


class SeedSource:
    """The list of seeds, as it is now: the one given, or the config file, read anew each time."""

    def __init__(self, given: Iterable[Address] | None, config: str) -> None:
        self._given = None if given is None else list(given)
        self._config = config
        self._complaints: set[str] = set()
        self._behind: dict[Address, list[Address]] = {}  # names, and the seeds they stand for
        self._asked_s = float("-inf")  # when the name service was asked

    def listed(self) -> list[Address]:
        """The seeds, each behind a name that stands for many; each fault is reported once."""
        named = self._named()
        if time.monotonic() >= self._asked_s + NAMES_INTERVAL_S or named != list(self._behind):
            self._behind = {name: self._behind_name(name) for name in named}
            self._asked_s = time.monotonic()
        return list(dict.fromkeys(seed for seeds in self._behind.values() for seed in seeds))

    def look_anew(self) -> None:
        """Ask the name service next time, and report faults again."""
        self._asked_s = float("-inf")
        self._complaints.clear()

    def _named(self) -> list[Address]:
        if self._given is not None:
            return self._given
        try:
            listed = read_seeds(self._config)
        except OSError as error:
            self._complain(f"{self._config}: {reason_of(error)}; going on without seeds")
            return []
        for complaint in listed.complaints:
            self._complain(complaint)
        return listed.seeds

    def _behind_name(self, name: Address) -> list[Address]:
        try:
            return each_of(name)
        except OSError:  # while the name service is silent, what it said last holds
            return self._behind.get(name, [name])

    def _complain(self, complaint: str) -> None:
        if complaint not in self._complaints:
            self._complaints.add(complaint)
            _log.warning("%s", complaint)


@dataclass(slots=True)
class SeedContact:
    """One seed, as this peer sees it."""

    backoff: Backoff
    connection: Connection | None = None  # while registered there
    renewed_s: float = 0.0
    is_missed: bool = False  # it was reported unreachable, and has not answered since
    is_distrusted: bool = False  # and that for want of trust
    listed: tuple[Address, ...] = ()  # the peers it named last


class Registration:
    """The registrations of one peer."""

    def __init__(
        self,
        me: StreamName,
        source: SeedSource,
        tunables: Tunables,
        rng: random.Random,
        notify: Callable[..., None],
        trust: Trust | None,
    ) -> None:
        self._me = me
        self._source = source
        self._tunables = tunables
        self._rng = rng
        self._notify = notify  # records an event; called by the thread that runs `keep` alone
        self._trust = trust
        self._contacts: dict[Address, SeedContact] = {}  # replaced, never changed: others read it
        self._preferred: list[Address] = []  # our majority; others stand in while one is down
        self._reports: deque[Address] = deque(maxlen=1000)
        self._has_news = threading.Event()
        self._is_reloading = False

    # ---- for any thread ----

    def report(self, dead: Address) -> None:
        """Leave word that a peer is dead; the seeds are told at once."""
        self._reports.append(dead)
        self._has_news.set()

    def reload(self) -> None:
        """Let `keep` read the list of seeds at once, and say so."""
        self._is_reloading = True
        self._has_news.set()

    def wake(self) -> None:
        """Let `keep` see at once that it shall stop."""
        self._has_news.set()

    def seeds(self) -> dict[Address, bool]:
        """Every seed listed, and whether we are registered there."""
        return {seed: contact.connection is not None for seed, contact in self._contacts.items()}

    # ---- for the thread that keeps the registrations ----

    def keep(self, stopping: threading.Event, has_changed: Callable[[], None]) -> None:
        """Register, renew, report, come back to lost seeds; until `stopping`, then say goodbye."""
        while not stopping.is_set():
            self._has_news.wait(LOOK_INTERVAL_S)
            if self._has_news.is_set():
                self._has_news.clear()
                self._send_reports()
            if self._is_reloading:
                self._is_reloading = False
                self._source.look_anew()
                self._notify("config_read", seeds=len(self._source.listed()))
            if not stopping.is_set() and self.connect():
                has_changed()
        self._say_goodbye()

    def connect(self) -> bool:
        """Make good what is missing to a majority. True if a seed was tried: there may be news."""
        was_tried = self._follow_list()
        now_s = time.monotonic()
        for seed, contact in self._contacts.items():
            if contact.connection is None:
                continue
            if contact.connection.is_over():
                self._lost(seed, contact, ConnectionResetError("closed the connection"))
                was_tried = True
            elif now_s >= contact.renewed_s + self._tunables.renew_interval_s:
                self._register(seed, contact)
                was_tried = True
        for seed in self._due(now_s):
            registered = sum(self.seeds().values())
            if registered < len(self._preferred) or seed in self._preferred:
                self._register(seed, self._contacts[seed])
                was_tried = True
        return was_tried

    def found(self) -> dict[Address, list[Address]]:
        """The other peers that each seed listed in its latest answer."""
        most = self._tunables.max_listed_peers
        return {
            seed: [peer for peer in contact.listed[:most] if peer != self._me.origin]
            for seed, contact in self._contacts.items()
            if contact.connection
        }

    def _follow_list(self) -> bool:
        """The list of seeds may have changed: forget those gone, keep to our majority.

        Returns whether we were registered with one that is gone.
        """
        has_lost = False
        listed = self._source.listed()
        for seed, contact in self._contacts.items():
            if seed not in listed and contact.connection is not None:
                self._lost(seed, contact, ConnectionAbortedError("taken off the list"))
                has_lost = True
        self._contacts = {
            seed: self._contacts.get(seed) or SeedContact(Backoff(self._tunables, self._rng))
            for seed in listed
        }
        majority = len(listed) // 2 + 1 if listed else 0
        kept = [seed for seed in self._preferred if seed in listed][:majority]
        others = [seed for seed in listed if seed not in kept]
        self._preferred = kept + self._rng.sample(others, majority - len(kept))
        return has_lost

    def _due(self, now_s: float) -> list[Address]:
        """Seeds that may be tried now: those we prefer first, the others in random order."""
        due = [
            seed
            for seed, contact in self._contacts.items()
            if contact.connection is None and contact.backoff.until_s <= now_s
        ]
        self._rng.shuffle(due)
        return sorted(due, key=lambda seed: seed not in self._preferred)

    def _register(self, seed: Address, contact: SeedContact) -> None:
        """Register, or renew, and take in the seed's list."""
        is_new = contact.connection is None
        try:
            if contact.connection is None:
                contact.connection = dial(seed, self._tunables.dial_timeout_s, self._trust)
            register = Register(self._me.origin, self._me.boot_ms)
            answer = contact.connection.ask(register, self._tunables.handshake_timeout_s)
            if not isinstance(answer, PeerList):
                raise WireError(f"expected a PeerList, got {type(answer).__name__}")
        except (OSError, WireError) as error:
            self._lost(seed, contact, error)
            return
        contact.renewed_s = time.monotonic()
        contact.backoff.succeeded()
        contact.is_missed = contact.is_distrusted = False
        contact.listed = answer.peers
        if is_new:
            self._notify("registered", seed=str(seed))

    def _lost(self, seed: Address, contact: SeedContact, error: Exception) -> None:
        if contact.connection is not None:
            contact.connection.close()
        contact.connection = None
        contact.backoff.failed(time.monotonic())
        is_distrust = isinstance(error, NotTrusted)
        if not contact.is_missed or (is_distrust and not contact.is_distrusted):
            contact.is_missed = True  # said once for each time it goes away
            contact.is_distrusted = is_distrust
            self._notify("seed_unreachable", seed=str(seed), reason=reason_of(error))

    def _send_reports(self) -> None:
        """Tell every seed that we are registered with; each tries the accused itself."""
        while self._reports:
            dead = self._reports.popleft()
            asked = []
            for seed, contact in self._contacts.items():
                try:
                    if contact.connection is not None:
                        contact.connection.send([DeadReport(dead, self._me.origin)])
                        asked.append((seed, contact, contact.connection))
                except OSError as error:
                    self._lost(seed, contact, error)
            for seed, contact, connection in asked:
                try:
                    answer = connection.receive_one(self._tunables.handshake_timeout_s)
                    if not isinstance(answer, Verdict):
                        raise WireError(f"expected a Verdict, got {type(answer).__name__}")
                except (OSError, WireError) as error:
                    self._lost(seed, contact, error)

    def _say_goodbye(self) -> None:
        for contact in self._contacts.values():
            if contact.connection is not None:
                with contextlib.suppress(OSError):  # the seed is gone: nobody is left to tell
                    contact.connection.send([Bye("leaving", is_leaving=True)])
                contact.connection.close()
                contact.connection = None


def ask_members(seeds: Iterable[Address], timeout_s: float, trust: Trust | None) -> set[Address]:
    """The live peers, asked of these seeds; those that do not answer are passed over."""
    return set().union(*(listed_by(seed, timeout_s, trust) or () for seed in seeds))


def listed_by(seed: Address, timeout_s: float, trust: Trust | None) -> tuple[Address, ...] | None:
    """The live peers that this seed knows of; None if it does not answer."""
    try:
        answer = ask(seed, ListPeers(), timeout_s, trust)
    except (OSError, WireError):
        return None
    return answer.peers if isinstance(answer, PeerList) else None
