"""Coverage-guided fuzzing, by atheris: bytes that nobody would think of, and what must hold of all.

    python3 tests/fuzz.py frames --seconds 3600      an hour of frames
    python3 tests/fuzz.py node --seconds 3600        of whatever neighbours may say to a node
    python3 tests/fuzz.py config --seconds 3600      of config files
    python3 tests/fuzz.py node FILE                  what was found, once again

Run it with the Python of `.venv`. It begins with the inputs in `tests/corpus`; a fault ends it with
its traceback, and leaves the input in a file.
"""

import random
import sys
import tempfile
import typing
from pathlib import Path
from typing import Any

import atheris  # type: ignore[import-untyped]

TESTS = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path.insert(0, str(TESTS.parent))

with atheris.instrument_imports(
    include=[
        "gossip",
        "liveness",
        "messages",
        "node",
        "overlay",
        "settings",
        "streams",
        "tree",
        "wire",
    ]
):
    import settings
    from actions import Action, Close, Dial, Try
    from liveness import Tried
    from messages import (
        PROTOCOL_VERSION,
        Address,
        Hello,
        Message,
        StreamKey,
        StreamName,
        Welcome,
        WireError,
    )
    from node import Node
    from overlay import Dialled
    from settings import Tunables
    from streams import Gap
    from wire import MAX_NUMBER, FrameBuffer, Run, encode, new_run, type_of_kind

Provider = Any  # atheris.FuzzedDataProvider, which has no types

# ---- frames --------------------------------------------------------------------------------------


def fuzz_frames(data: bytes) -> None:
    """Any bytes in any pieces are messages, which survive the way back, or a WireError."""
    provider = atheris.FuzzedDataProvider(data)
    buffer = FrameBuffer()
    while provider.remaining_bytes():
        piece = provider.ConsumeBytes(provider.ConsumeIntInRange(1, 300))
        space = buffer.space()
        assert space, "there is always room"
        space[: len(piece)] = piece
        try:
            items = buffer.received(len(piece))
        except WireError:
            return
        for item in items:
            if isinstance(item, Run):
                assert len(list(item.payloads())) == item.last - item.first + 1
            else:
                again = FrameBuffer()
                frame = encode(item)
                again.space()[: len(frame)] = frame
                assert again.received(len(frame)) == [item]


# ---- a node --------------------------------------------------------------------------------------

LIMITS = Tunables(
    max_links=4,
    out_links=2,
    book_size=8,
    max_streams=6,
    remembered_streams=8,
    history_bytes=4000,
    stream_messages=10,
    inbox_bytes=2000,
    max_queued_messages=50,
    batch_bytes=500,
    broadcast_lag_bytes=1000,
    new_streams_per_s=0.5,
)
ME = Address("10.0.0.1", 6000)
OTHERS = [Address(f"10.0.0.{number}", 6000) for number in range(2, 12)]
STREAMS = [StreamName(origin, boot_ms).key for origin in [ME, *OTHERS] for boot_ms in (1, 5, 9)]


class World:
    """One node, and a driver that keeps its promises to it."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._now_s = 0.0
        self._node = Node(StreamName(ME, 5), LIMITS, random.Random(1), 0.0)
        self._links: set[Address] = set()
        self._dials: list[Address] = []
        self._tries: list[Address] = []
        self._heard: dict[StreamKey, int] = {}

    def run(self) -> None:
        happenings = [self._admit, self._receive, self._receive, self._receive, self._tick]
        happenings += [self._take, self._dialled, self._tried, self._lost, self._say, self._collect]
        while self._provider.remaining_bytes():
            happen = happenings[self._provider.ConsumeIntInRange(0, len(happenings) - 1)]
            happen()
            self._check()

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Close(neighbour):
                    assert neighbour in self._links, "who is let go of was held"
                    self._links.discard(neighbour)
                case Dial(address):
                    assert address != ME, "nobody dials itself"
                    self._dials.append(address)
                case Try(accused):
                    self._tries.append(accused)

    def _pick(self, items: list[Any]) -> Any:
        return items[self._provider.ConsumeIntInRange(0, len(items) - 1)]

    def _neighbour(self) -> Address | None:
        return self._pick(sorted(self._links)) if self._links else None

    def _admit(self) -> None:
        hello = self._value(Hello)
        refused, actions = self._node.admit(hello, self._now_s, self._pick(["", "10.9.9.9"]))
        self._do(actions)
        if refused is None:
            assert hello.version == PROTOCOL_VERSION, "another version is refused"
            self._links.add(hello.address)

    def _receive(self) -> None:
        neighbour = self._neighbour()
        if neighbour is not None:
            items = [self._item() for _ in range(self._provider.ConsumeIntInRange(1, 3))]
            self._do(self._node.receive(neighbour, items, self._now_s))

    def _item(self) -> Message | Run:
        if self._provider.ConsumeBool():
            first = self._provider.ConsumeIntInRange(1, 30)
            last = first + self._provider.ConsumeIntInRange(0, 20)
            stream = self._pick(STREAMS)
            said = [new_run(stream, number, b"x" * 50) for number in range(first, last + 1)]
            return Run(stream, first, last, b"".join(run.data for run in said))
        message: Message = self._value(self._pick(list(type_of_kind.values())))
        return message

    def _value(self, of: Any) -> Any:
        """A value of a field, or a message."""
        provider = self._provider
        if of is int:
            small = provider.ConsumeIntInRange(0, 40)
            return (
                small if small < 38 else (MAX_NUMBER - 1, MAX_NUMBER, MAX_NUMBER // 2)[small - 38]
            )
        if of is bool:
            return provider.ConsumeBool()
        if of is str:
            return provider.ConsumeUnicodeNoSurrogates(8)
        if of is bytes:
            return provider.ConsumeBytes(8)
        if of is Address:
            return self._pick([ME, *OTHERS])
        if of is StreamKey:
            return self._pick(STREAMS)
        if typing.get_origin(of) is tuple:
            inner = typing.get_args(of)[0]
            return tuple(self._value(inner) for _ in range(provider.ConsumeIntInRange(0, 4)))
        hints = typing.get_type_hints(of)
        return of(**{field: self._value(hint) for field, hint in hints.items()})

    def _tick(self) -> None:
        self._now_s += (0.05, 0.3, 1.0, 5.0, 60.0)[self._provider.ConsumeIntInRange(0, 4)]
        self._do(self._node.tick(self._now_s))
        for neighbour in sorted(self._links):
            if neighbour in self._links:
                self._do(self._node.test_liveness(neighbour, self._now_s))

    def _take(self) -> None:
        neighbour = self._neighbour()
        if neighbour is not None:
            self._node.take(neighbour)

    def _dialled(self) -> None:
        if not self._dials:
            return
        address = self._dials.pop()
        if self._provider.ConsumeBool():
            how = self._pick(list(Dialled))
            self._do(self._node.dial_failed(address, how, self._now_s))
            return
        welcome = Welcome(self._pick([address, ME, *OTHERS]), self._value(int), self._value(int))
        conflict, actions = self._node.link_up(address, welcome, self._now_s)
        self._do(actions)
        if not conflict:
            self._links.add(welcome.address)

    def _tried(self) -> None:
        if self._tries:
            outcome = self._pick(list(Tried))
            self._do(self._node.tried(self._tries.pop(), outcome, self._now_s))

    def _lost(self) -> None:
        neighbour = self._neighbour()
        if neighbour is not None:
            self._do(self._node.link_down(neighbour, "lost", self._now_s))

    def _say(self) -> None:
        if not self._node.gossip.pace.is_far_ahead:
            self._node.broadcast(b"mine", self._now_s)

    def _collect(self) -> None:
        for item in self._node.gossip.inbox.collect(100_000):
            expected = self._heard.get(item.stream, 0) + 1
            assert item.first == expected, f"{item.first} instead of {expected}"
            if isinstance(item, Run):
                assert len(list(item.payloads())) == item.last - item.first + 1
            else:
                assert isinstance(item, Gap)
            self._heard[item.stream] = item.last

    def _check(self) -> None:
        node, gossip = self._node, self._node.gossip
        assert node.overlay.neighbours.keys() == self._links
        assert ME not in self._links
        assert len(self._links) <= LIMITS.max_links
        assert len(node.overlay.book) <= LIMITS.book_size
        assert len(gossip.streams) <= LIMITS.max_streams
        assert len(gossip._threshold) <= LIMITS.remembered_streams
        assert gossip.questions.keys() <= gossip.streams.keys()
        most_run = 21 * 120
        assert gossip.history_size <= LIMITS.history_bytes + most_run
        assert gossip.inbox.size <= LIMITS.inbox_bytes + 3 * most_run
        for neighbour in self._links:
            ledger = gossip._ledgers[neighbour]
            assert ledger.has.keys() <= gossip.streams.keys()
            assert ledger.owed.keys() <= gossip.streams.keys()
        parent = node.tree.parent
        assert parent is None or parent in self._links


def fuzz_node(data: bytes) -> None:
    """Whatever neighbours say and do, no bound is passed and nothing is heard twice."""
    World(atheris.FuzzedDataProvider(data)).run()


# ---- config.txt ----------------------------------------------------------------------------------

FOLDER = tempfile.TemporaryDirectory()
CONFIG = Path(FOLDER.name) / "config.txt"
SEED = Address("192.0.2.1", 5000)


def fuzz_config(data: bytes) -> None:
    """Any file can be read; a seed that is added is listed, and taken off it leaves the others."""
    CONFIG.write_bytes(data)
    before = settings.read_seeds(CONFIG)
    settings.add_seed(CONFIG, SEED)
    assert SEED in settings.read_seeds(CONFIG).seeds
    settings.remove_seed(CONFIG, SEED)
    after = settings.read_seeds(CONFIG)
    assert after.seeds == [seed for seed in before.seeds if seed != SEED]
    assert len(after.complaints) == len(before.complaints)
    settings.remove_all_seeds(CONFIG)
    assert settings.read_seeds(CONFIG) == ([], [])


TARGETS = {"frames": fuzz_frames, "node": fuzz_node, "config": fuzz_config}


def main() -> None:
    """Fuzz one target for so long, beginning with its corpus; or try the files named."""
    if len(sys.argv) < 3 or sys.argv[1] not in TARGETS:
        sys.exit(f"fuzz.py: expected one of {', '.join(TARGETS)}, then --seconds N or files")
    name, *rest = sys.argv[1:]
    if rest[0] == "--seconds":
        with tempfile.TemporaryDirectory() as found:  # new inputs; worth a look after a long run
            rest = [f"-max_total_time={int(rest[1])}", "-max_len=4096", "-verbosity=0"]
            rest += [f"-artifact_prefix={Path.cwd()}/", found, str(TESTS / "corpus" / name)]
            atheris.Setup([sys.argv[0], *rest], TARGETS[name])
            atheris.Fuzz()
    else:
        atheris.Setup([sys.argv[0], *rest], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
