"""What can be tuned, and the list of seeds in `config.txt`.

`Tunables` holds every interval, limit and size with its reason; what both ends of a link must agree
on is a constant in `wire.py` instead. The functions below read and change the list of seeds.
"""

import contextlib
import dataclasses
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from messages import Address, BadAddress

VERSION = "0.1.0"
CONFIG_FILE = "config.txt"
LOG_FILE = "outputfile.log"


@dataclass(frozen=True, slots=True)
class Tunables:
    """Every knob with its reason. The relations between them are checked once, here."""

    tick_interval_s: float = 0.05  # a node looks so often for what is due; costs 0.1 % of a core

    # Whom to hold (overlay)
    out_links: int = 4  # dialled by each: the graph is connected with probability 1 - O(n^-15)
    max_links: int = 12  # dialled and accepted: room for three newcomers per link that we dial
    book_size: int = 512  # with 128, one seed in three left a survivor alone after 95 % were killed
    contacts_per_exchange: int = 8  # addresses given at a time, to neighbours and to the refused
    exchange_interval_s: float = 10.0  # a neighbour is asked for contacts this often
    feeler_interval_s: float = 30.0  # a stranger is tried this often; it rejoins split networks
    parallel_dials: int = 4  # dials under way while they succeed
    most_parallel_dials: int = 16  # while none does; in any second, for silence takes longer
    first_backoff_s: float = 1.0  # the wait after a failed dial; doubles with each further one
    longest_backoff_s: float = 60.0  # so a returning address is found again within a minute
    refusals_to_forget: int = 3  # an address is dropped for refusing, never for silence

    # How it flows (tree)
    beacon_interval_s: float = 5.0  # the tree is drawn anew so often; a loud peer waits for it
    missed_beacons_stale: int = 3  # then the root is taken for gone
    parent_grace_s: float = 0.1  # the present parent stays if it is hardly slower than the first
    parent_overlap_s: float = 1.0  # a new parent is made before the old one is dropped
    failures_to_demote: int = 3  # messages that a parent did not bring in time; of the first, one
    # learns how slow the way is
    failure_window_s: float = 10.0  # so many within this time make it a bad parent
    demotion_s: float = 60.0  # and for so long another is preferred
    demoted_grace_s: float = 0.5  # others have so long to bring a beacon that a bad parent brought
    announce_interval_s: float = 0.05  # announcements wait so long for others to join them, and up
    # to four times as long while there is always something to announce
    least_want_delay_s: float = 0.1  # what was announced may be on its way through the tree
    most_want_delay_s: float = 2.0  # however slow the tree has been

    # What is owed (gossip)
    history_bytes: int = 64 << 20  # what is retained for others, over all streams
    stream_messages: int = 100_000  # and at most this many messages of one stream
    stream_messages_per_s: float = 100_000.0  # what one origin may say, far more than one process
    # can make others take in; who comes late may be told all of `stream_messages` at once besides
    max_streams: int = 4096  # origins (each life of each) whose messages are retained
    remembered_streams: int = 65_536  # others: only how far they were heard; past it, the oldest
    # lives are refused, so that nothing is ever heard twice
    new_streams_per_s: float = 10.0  # that a neighbour may tell of, beyond `max_streams` at once:
    # a stream made up costs everybody memory for good; a message has its place in the history for
    # a while, at the cost of what its own origin said before
    inbox_bytes: int = 32 << 20  # heard but not yet taken by the application
    batch_bytes: int = 128 << 10  # taken for one `sendall`, so that control frames wait little
    broadcast_lag_bytes: int = 16 << 20  # who lags by more is waited for; a quarter of the history
    want_patience_s: float = 1.0  # without progress for so long, at most, another is asked
    gap_patience_s: float = 2.0  # when nobody can provide a message for so long, it is a gap
    max_queued_messages: int = 1000  # control messages for one link; a guess, far above normal

    # Who is alive (liveness)
    liveness_interval_s: float = 1.0  # a neighbour is asked after so much silence
    missed_replies_suspect: int = 3  # the mission's "within a certain time": three in a row
    opinions: int = 3  # other peers asked about a suspect
    probe_timeout_s: float = 1.0  # an echo takes one round trip; a live process manages
    own_lateness_s: float = 0.5  # who is itself late by more accuses nobody

    # Seeds
    lease_s: float = 90.0  # a peer that does not renew is looked at, and removed if dead
    renew_interval_s: float = 30.0  # three chances within a lease
    max_listed_peers: int = 1000  # handed out at random of a longer list
    max_leases: int = 20_000  # each costs a seed a thread and some 30 KiB: 600 MB then
    leases_per_source: int = 5000  # of one address: more peers than one machine can run
    attempts: int = 10_000  # peers tried for one address at once (twice what it may register),
    attempts_per_s: float = 20.0  # and then so many a second: a seed is no tool to dial others

    # Connections
    dial_timeout_s: float = 3.0  # a SYN is repeated after 1 s and after 3 s
    handshake_timeout_s: float = 5.0  # from accepting a connection to its first whole frame
    half_open: int = 256  # connections that have not said who they are: past it, one must go
    half_open_per_source: int = 64  # of one address: a whole village may start behind one router
    admissions: int = 256  # neighbours from one address at once, and then so many a second:
    admissions_per_s: float = 10.0  # each costs a line in the log, and maybe a dial
    flush_timeout_s: float = 0.8  # what is owed is still sent when a peer stops, for so long

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"{field.name}: expected more than 0")
        self._check(self.out_links <= self.max_links, "out_links <= max_links")
        self._check(self.renew_interval_s < self.lease_s, "renew_interval_s < lease_s")
        self._check(self.parent_overlap_s <= self.beacon_interval_s, "overlap <= beacon interval")
        self._check(self.missed_beacons_stale >= 2, "missed_beacons_stale >= 2")
        self._check(self.failures_to_demote >= 2, "failures_to_demote >= 2")  # the first teaches
        self._check(self.tick_interval_s <= self.own_lateness_s, "tick interval <= own lateness")
        self._check(self.first_backoff_s <= self.longest_backoff_s, "first <= longest back-off")

    def _check(self, holds: bool, relation: str) -> None:
        if not holds:
            raise ValueError(f"tunables: expected {relation}")


class SeedList(NamedTuple):
    """What a config file says: its seeds in order, each once, and a line about each bad line."""

    seeds: list[Address]
    complaints: list[str]


def read_seeds(path: str | Path) -> SeedList:
    """The seeds listed in the file. Raises OSError when it cannot be read."""
    seeds: list[Address] = []
    complaints = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            seed = _seed_in(line)
        except BadAddress as error:
            complaints.append(_complaint(path, number, error, "skipped"))
            continue
        if seed is not None and seed not in seeds:
            seeds.append(seed)
    return SeedList(seeds, complaints)


def add_seed(path: str | Path, seed: Address) -> None:
    """List the seed, once. Comments and other entries stay; the file is made if need be."""

    def with_seed(lines: list[str]) -> list[str]:
        return lines if any(_names(line, seed) for line in lines) else [*lines, str(seed)]

    _change(path, with_seed)


def remove_seed(path: str | Path, seed: Address) -> None:
    """Take the seed off the list. Comments and other entries stay."""
    _change(path, lambda lines: [line for line in lines if not _names(line, seed)])


def remove_all_seeds(path: str | Path) -> list[str]:
    """Take every entry off the list, bad lines too; comments and blank lines stay.

    Returns a line about each bad one. Raises OSError.
    """
    complaints: list[str] = []

    def without_entries(lines: list[str]) -> list[str]:
        kept = []
        for number, line in enumerate(lines, start=1):
            try:
                if _seed_in(line) is None:
                    kept.append(line)
            except BadAddress as error:
                complaints.append(_complaint(path, number, error, "removed"))
        return kept

    _change(path, without_entries)
    return complaints


def _complaint(path: str | Path, number: int, error: BadAddress, fate: str) -> str:
    return f"{path}, line {number}: {error}; the line is {fate}"


def _seed_in(line: str) -> Address | None:
    """The seed a line names, None for a comment or a blank line. Raises BadAddress."""
    text = line.partition("#")[0].strip()
    return Address.parse(text) if text else None


def _names(line: str, seed: Address) -> bool:
    with contextlib.suppress(BadAddress):
        return _seed_in(line) == seed
    return False


def _lines(path: str | Path) -> list[str]:
    """The lines as they are, whatever their encoding; `surrogateescape` gives their bytes back."""
    text = Path(path).read_bytes().decode("utf-8", "surrogateescape")
    return text.removesuffix("\n").split("\n") if text else []


def _change(path: str | Path, change: Callable[[list[str]], list[str]]) -> None:
    """Rewrite the file in one step while no other process does; readers never see half of it."""
    path = Path(os.path.realpath(path))
    with _locked(path.parent):
        before = _lines(path) if path.exists() else []
        after = change(before)
        if after == before:
            return
        new = path.with_name(f".{path.name}.new")  # nobody else has it: the lock is held
        try:
            with open(new, "wb") as file:
                text = "".join(line + "\n" for line in after)
                file.write(text.encode("utf-8", "surrogateescape"))
                os.fchmod(file.fileno(), path.stat().st_mode & 0o777 if path.exists() else 0o644)
            os.replace(new, path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. Locking the file itself would not do: it is replaced each time."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # gives the lock back too
