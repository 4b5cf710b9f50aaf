"""Keeps a peer registered with a majority of the seeds, and fetches their lists.

Any two peers that are registered with a majority each share at least one seed, so the union of the
lists that a majority hands out leaves nobody out. One thread runs `keep`, and has a thread more for
each seed while that is asked something; the others only leave word.
"""

import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from link import Connection, Waiting, ask, dial, each_of, reason_of
from messages import (
    Address,
    Bye,
    DeadReport,
    ListPeers,
    PeerList,
    Refused,
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
PATIENCE_S = 2.0  # a seed that has not answered for so long hangs, maybe: another stands in for it
MAX_REPORTS = 1000  # of deaths, waiting to be sent to a seed
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
    """One seed, as this peer sees it. While it is asked, the thread that asks alone changes it."""

    backoff: Backoff
    connection: Connection | None = None
    asked_since_s: float | None = None  # a thread asks it something
    is_registered: bool = False  # over that connection
    renewed_s: float = 0.0
    is_missed: bool = False  # it was reported unreachable, and has not answered since
    is_distrusted: bool = False  # and that for want of trust
    listed: tuple[Address, ...] = ()  # the peers it named last
    reports: deque[Address] = field(default_factory=lambda: deque(maxlen=MAX_REPORTS))

    def is_hopeful(self, now_s: float) -> bool:
        """Whether we are registered there, or it may still answer soon."""
        asked_s = self.asked_since_s
        return self.is_registered or (asked_s is not None and now_s < asked_s + PATIENCE_S)


class Registration:
    """The registrations of one peer."""

    def __init__(
        self,
        me: StreamName,
        source: SeedSource,
        tunables: Tunables,
        rng: random.Random,
        trust: Trust | None,
        *,
        start: Callable[..., threading.Thread],
        notify: Callable[..., None],
        has_changed: Callable[[], None],
    ) -> None:
        self._me = me
        self._source = source
        self._tunables = tunables
        self._rng = rng
        self._trust = trust
        self._start = start  # runs something in a thread, or raises OSError
        self._notify = notify  # records an event
        self._has_changed = has_changed  # called when a seed has answered, or has not
        self._contacts: dict[Address, SeedContact] = {}  # replaced, never changed: others read it
        self._preferred: list[Address] = []  # our majority; others stand in while one is down
        self._reports: deque[Address] = deque(maxlen=MAX_REPORTS)
        self._waiting = Waiting()
        self._asking: list[threading.Thread] = []  # each ends once its seed has answered, or not
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

    def stop(self) -> None:
        """Wait for no seed any more; `keep` says goodbye and ends."""
        self._waiting.end()
        self._has_news.set()

    def seeds(self) -> dict[Address, bool]:
        """Every seed listed, and whether we are registered there."""
        return {seed: contact.is_registered for seed, contact in self._contacts.items()}

    def found(self) -> dict[Address, list[Address]]:
        """The other peers that each seed named in its latest answer."""
        most = self._tunables.max_listed_peers
        return {
            seed: [peer for peer in contact.listed[:most] if peer != self._me.origin]
            for seed, contact in self._contacts.items()
            if contact.is_registered or contact.listed
        }

    def is_in_vain(self) -> bool:
        """Whether every seed listed was tried, and none has answered since."""
        return all(contact.is_missed for contact in self._contacts.values())

    # ---- for the thread that keeps the registrations ----

    def keep(self) -> None:
        """Register, renew, report, come back to lost seeds; until `stop`, then say goodbye."""
        while not self._waiting.is_over:
            self._has_news.wait(LOOK_INTERVAL_S)
            self._has_news.clear()
            if self._is_reloading:
                self._is_reloading = False
                self._source.look_anew()
                self._notify("config_read", seeds=len(self._source.listed()))
            if not self._waiting.is_over:
                self.connect()
        self._say_goodbye()

    def connect(self) -> None:
        """Make good what is missing to a majority. Each seed is asked in a thread of its own.

        So one that hangs holds up nobody.
        """
        self._follow_list()
        self._hand_out_reports()
        now_s = time.monotonic()
        for seed, contact in self._idle().items():
            is_due = now_s >= contact.renewed_s + self._tunables.renew_interval_s
            if contact.connection is None:
                continue
            if contact.connection.is_over():
                self._lost(seed, contact, ConnectionResetError("closed the connection"))
            elif is_due or contact.reports:
                self._begin_asking(seed, contact)
        for seed in self._due(now_s):
            hopeful = sum(contact.is_hopeful(now_s) for contact in self._contacts.values())
            if hopeful < len(self._preferred) or seed in self._preferred:
                self._begin_asking(seed, self._contacts[seed])

    def _idle(self) -> dict[Address, SeedContact]:
        """The seeds that nobody is asking anything."""
        return {s: contact for s, contact in self._contacts.items() if not contact.asked_since_s}

    def _follow_list(self) -> None:
        """The list of seeds may have changed: forget those gone, keep to our majority."""
        listed, idle = self._source.listed(), self._idle()
        gone = {s: c for s, c in idle.items() if s not in listed and c.connection}
        contacts = {s: c for s, c in self._contacts.items() if s in listed or s not in idle}
        new = [seed for seed in listed if seed not in contacts]
        contacts |= {seed: SeedContact(Backoff(self._tunables, self._rng)) for seed in new}
        self._contacts = contacts
        majority = len(listed) // 2 + 1 if listed else 0
        kept = [seed for seed in self._preferred if seed in listed][:majority]
        others = [seed for seed in listed if seed not in kept]
        self._preferred = kept + self._rng.sample(others, majority - len(kept))
        for seed, contact in gone.items():
            self._lost(seed, contact, ConnectionAbortedError("taken off the list"))

    def _hand_out_reports(self) -> None:
        """Every seed that we are registered with is told; each tries the accused itself."""
        while self._reports:
            dead = self._reports.popleft()
            for contact in self._contacts.values():
                if contact.is_registered or contact.asked_since_s:
                    contact.reports.append(dead)

    def _due(self, now_s: float) -> list[Address]:
        """Seeds that may be tried now: those we prefer first, the others in random order."""
        due = [
            seed
            for seed, contact in self._idle().items()
            if contact.connection is None and contact.backoff.until_s <= now_s
        ]
        self._rng.shuffle(due)
        return sorted(due, key=lambda seed: seed not in self._preferred)

    def _begin_asking(self, seed: Address, contact: SeedContact) -> None:
        """Ask in another thread; in this one if the system gives none."""
        contact.asked_since_s = time.monotonic()
        self._asking = [thread for thread in self._asking if thread.is_alive()]
        try:
            self._asking.append(self._start("ask_seed", self._ask, seed, contact))
        except OSError:
            self._ask(seed, contact)

    def _say_goodbye(self) -> None:
        for contact in self._idle().values():
            _part(contact)
        for thread in self._asking:  # it waits for nobody any more
            thread.join()
        for contact in self._contacts.values():
            _part(contact)

    # ---- for a thread that asks one seed ----

    def _ask(self, seed: Address, contact: SeedContact) -> None:
        """Register, or renew, and report; until the seed has answered, or has not in time."""
        try:
            due_s = contact.renewed_s + self._tunables.renew_interval_s
            if not contact.is_registered or time.monotonic() >= due_s:
                self._register(seed, contact)
            if contact.is_registered:
                self._send_reports(contact)
        except (OSError, WireError) as error:
            self._lost(seed, contact, error)
        finally:
            contact.asked_since_s = None
            self._has_news.set()

    def _register(self, seed: Address, contact: SeedContact) -> None:
        """Register, or renew, and take in the seed's list. Raises OSError, WireError."""
        if contact.connection is None:
            timeout_s = self._tunables.dial_timeout_s
            contact.connection = dial(seed, timeout_s, self._trust, self._waiting)
        register = Register(self._me.origin, self._me.boot_ms)
        answer = contact.connection.ask(register, self._tunables.handshake_timeout_s)
        match answer:
            case PeerList(peers):
                self._registered(seed, contact, peers)
            case Refused(_, reason, peers):  # which may let us in all the same
                words = f"it does not list this peer; {reason:.200}"
                self._lost(seed, contact, ConnectionRefusedError(words), peers)
            case _:
                raise WireError(f"expected a PeerList, got {type(answer).__name__}")

    def _registered(self, seed: Address, contact: SeedContact, named: tuple[Address, ...]) -> None:
        contact.renewed_s = time.monotonic()
        contact.backoff.succeeded()
        contact.is_missed = contact.is_distrusted = False
        contact.listed = named
        if not contact.is_registered:
            contact.is_registered = True
            self._notify("registered", seed=str(seed))
        self._has_changed()

    def _send_reports(self, contact: SeedContact) -> None:
        """Tell of deaths. Raises OSError, WireError."""
        assert contact.connection is not None, "it has just been asked over it"
        while contact.reports:
            report = DeadReport(contact.reports.popleft(), self._me.origin)
            answer = contact.connection.ask(report, self._tunables.handshake_timeout_s)
            if not isinstance(answer, Verdict):
                raise WireError(f"expected a Verdict, got {type(answer).__name__}")

    def _lost(
        self,
        seed: Address,
        contact: SeedContact,
        error: Exception,
        named: tuple[Address, ...] = (),
    ) -> None:
        """We are not registered there; while we are leaving that is no news."""
        if self._waiting.is_over:
            return
        if contact.connection is not None:
            contact.connection.close()
        contact.connection = None
        contact.is_registered = False
        contact.listed = named
        contact.reports.clear()
        contact.backoff.failed(time.monotonic())
        is_distrust = isinstance(error, NotTrusted)
        if not contact.is_missed or (is_distrust and not contact.is_distrusted):
            contact.is_missed = True  # said once for each time it goes away
            contact.is_distrusted = is_distrust
            self._notify("seed_unreachable", seed=str(seed), reason=reason_of(error))
        self._has_changed()


def _part(contact: SeedContact) -> None:
    """Say goodbye, if there is a connection to say it over."""
    if contact.connection is not None:
        with contextlib.suppress(OSError):  # the seed is gone: nobody is left to tell
            contact.connection.send([Bye("leaving", is_leaving=True)])
        contact.connection.close()
        contact.connection = None
        contact.is_registered = False


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
