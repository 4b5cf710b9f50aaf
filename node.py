"""One peer's mind: whom it holds, what it owes them, who of them lives.

Pure: no sockets, threads or clocks. What happened goes in, with the time; what to do comes out as
actions, and as messages waiting in each link's outbox. The same object runs under the threads of
`peer.py`, in unit tests, and by the thousand in the simulator.

The driver keeps three promises: it hands frames of one link over in order; it carries out actions
in the order given; and it calls `tick` and `test_liveness` when they are due.
"""

import random
from collections import deque
from collections.abc import Iterable
from typing import Any

from actions import Action, Close, Dial, Notify, Outbox, Report, Try
from gossip import Gossip
from limits import OF_A_PEER, Refusals
from liveness import Finding, Liveness, Tried
from messages import (
    PROTOCOL_VERSION,
    Address,
    Beacon,
    Bye,
    Contacts,
    Have,
    Hello,
    LivenessReply,
    LivenessRequest,
    Message,
    Mode,
    Opinion,
    OpinionRequest,
    Progress,
    Refused,
    StreamName,
    Want,
    Welcome,
    WireError,
    stream_name,
)
from overlay import Dialled, Direction, Neighbour, Overlay
from questions import Ways
from settings import Tunables
from tree import Tree
from wire import Run


class Node:
    """The decisions of one peer in one life."""

    def __init__(
        self,
        me: StreamName,
        tunables: Tunables,
        rng: random.Random,
        now_s: float,
        wants_history: bool = True,
    ) -> None:
        self.me = me
        self._tunables = tunables
        self.refusals = Refusals(*OF_A_PEER)
        self.ready: set[Address] = set()  # neighbours to whom something can be sent now
        self.liveness = live = Liveness(tunables, rng, self.refusals)
        self.overlay = Overlay(me.origin, tunables, rng, now_s, live.silent)
        ways = Ways(live.round_trip_s, lambda: self.tree.parent in live.silent())
        self.gossip = Gossip(me, tunables, rng, self.ready, wants_history, self.refusals, ways)
        self.tree = Tree(me.key, tunables, now_s)
        self._outboxes: dict[Address, Outbox] = {}
        self._is_crowded = False  # whether too much may wait in one
        self._is_isolated = False
        self._is_on_its_own = False  # no seed answered
        self._had_neighbours = False
        self.is_leaving = False  # the driver says so: nobody is dialled any more
        self._due_s = now_s + IDLE_TICK_INTERVAL_S  # the next tick

    # ---- news from the world ----

    def learn(self, contacts: Iterable[Address], now_s: float, told_by: str = "") -> list[Action]:
        """A seed, arguments or a file told of these peers."""
        self.overlay.learn(contacts, told_by)
        return self._dials(now_s)

    def nobody_introduces(self, now_s: float) -> list[Action]:
        """No seed can be reached."""
        self._is_on_its_own = True
        return self._dials(now_s)

    def tick(self, now_s: float) -> list[Action]:
        """Whatever is due by now; to be called every `tick_interval_s`."""
        late_s, interval_s = now_s - self._due_s, self._tunables.tick_interval_s
        if late_s > self._tunables.own_lateness_s:
            self.liveness.forgive_all(now_s)
        if late_s > interval_s:
            self.gossip.questions.was_late(late_s, now_s)
        actions: list[Action] = [Try(accused) for accused in self.liveness.collect_retries()]
        actions += [Notify("refused", details) for details in self.refusals.collect()]
        for case in self.liveness.lapsed(now_s):
            actions += self._settle(*case, now_s)
        if (neighbour := self.overlay.exchange(now_s)) is not None:
            self._say(neighbour, Contacts(self.overlay.sample(neighbour), is_reply=False))
        for slow in self.gossip.tick(now_s):
            self._say_each(self.tree.failed(slow, now_s))
        in_vain = self.gossip.questions.in_vain
        if (spare := self.overlay.spare(in_vain)) is not None:
            actions += self._part(spare, "making room", now_s)
        origins = self.gossip.questions.origins_in_vain
        if (stranger := self.overlay.feeler(now_s, in_vain, origins)) is not None:
            actions.append(self._dial(stranger, is_feeler=True))
        self._say_each(self.tree.tick(now_s))
        self._say_each(self.gossip.announcements(now_s))
        self._flush(now_s)
        self._due_s = now_s + (interval_s if self.is_busy else IDLE_TICK_INTERVAL_S)
        return actions + self._part_from_slow(now_s) + self._dials(now_s)

    @property
    def is_busy(self) -> bool:
        """Whether a tick has something to do soon; if not, IDLE_TICK_INTERVAL_S is soon enough."""
        is_changing = self.tree.is_changing or self.overlay.is_urgent
        return is_changing or self.gossip.is_busy or self.liveness.has_cases

    # ---- links ----

    def admit(
        self, hello: Hello, now_s: float, source: str = ""
    ) -> tuple[Refused | None, list[Action]]:
        """A peer dialled us. Unless refused, the link is up and its outbox holds the Welcome."""
        source = source or hello.address.host
        if refusal := self._refusal(hello, source):
            self.refusals.counts["links"] += 1  # an everyday event: the dialler alone is told
            return Refused(self.me.origin, refusal, self.overlay.sample(hello.address)), []
        actions = self._make_room(hello.address, now_s)
        welcome = Welcome(self.me.origin, self.me.boot_ms, len(self.overlay.neighbours) + 1)
        details = Neighbour(Direction.IN, hello.boot_ms, hello.links + 1, now_s, source)
        return None, actions + self._link(hello.address, details, [welcome], now_s)

    def _refusal(self, hello: Hello, source: str) -> str:
        if hello.version != PROTOCOL_VERSION:
            return f"protocol version {hello.version} is not {PROTOCOL_VERSION}"
        if hello.is_feeler and hello.root == self.tree.root:
            self.overlay.learn([hello.address], source)
            return "both are of one network"
        needs_link = hello.links == 0 or hello.is_feeler
        return self.overlay.refusal(hello.address, hello.boot_ms, needs_link)

    def link_up(self, dialled: Address, welcome: Welcome, now_s: float) -> tuple[str, list[Action]]:
        """A peer that we dialled let us in. The text says why not to keep the link, if so."""
        if welcome.address != dialled:
            self.overlay.renamed(dialled, welcome.address)
        conflict = self.overlay.conflict(welcome.address, welcome.boot_ms, Direction.OUT)
        if conflict:
            self.overlay.failed(welcome.address, Dialled.TURNED_AWAY, now_s)
            return conflict, []
        actions = self._make_room(welcome.address, now_s)
        source = welcome.address.host
        details = Neighbour(Direction.OUT, welcome.boot_ms, welcome.links, now_s, source)
        return "", actions + self._link(welcome.address, details, [], now_s)

    def turned_away(self, dialled: Address, refused: Refused, now_s: float) -> list[Action]:
        """A peer that we dialled lives, but did not let us in."""
        if refused.address == self.me.origin:
            self.overlay.is_me(dialled)
        elif refused.address != dialled:
            self.overlay.renamed(dialled, refused.address)
        self.overlay.failed(refused.address, Dialled.TURNED_AWAY, now_s)
        told = refused.contacts[: self._tunables.contacts_per_exchange]
        self.overlay.learn(told, refused.address.host)
        return self._dials(now_s)

    def dial_failed(
        self, dialled: Address, how: Dialled, now_s: float, reason: str = ""
    ) -> list[Action]:
        """A dial came to nothing; reported once for each time that the peer goes away."""
        actions: list[Action] = []
        if (reason or how.is_loss) and self.overlay.is_first_failure(dialled):
            details = {"peer": str(dialled), "reason": reason or how.value}
            actions.append(Notify("peer_unreachable", details))
        self.overlay.failed(dialled, how, now_s)
        return actions + (self._dials(now_s) if how is not Dialled.UNTRIED else [])  # a tick tries

    def link_down(self, neighbour: Address, reason: str, now_s: float) -> list[Action]:
        """A link broke without a Bye, which is no proof of death: the peer is tried at once."""
        actions = self._drop(neighbour, reason, None, now_s)
        self.overlay.failed(neighbour, Dialled.SILENT, now_s)
        if not self.liveness.is_suspect(neighbour):
            self.liveness.accuse(neighbour, reason, now_s)
            actions.append(Try(neighbour))
        return actions + self._dials(now_s)

    def misbehaved(self, neighbour: Address, reason: str, now_s: float) -> list[Action]:
        """A neighbour sent what is no message: part from it, and do not come back soon."""
        self.refusals.counts["frames"] += 1  # the log tells why the link ended
        actions = self._part(neighbour, reason, now_s)
        self.overlay.failed(neighbour, Dialled.TURNED_AWAY, now_s)
        return actions + self._dials(now_s)

    def leave(self, reason: str, now_s: float) -> list[Action]:
        """This peer stops: part from every neighbour."""
        said, bye = "this peer leaves", Bye(reason, is_leaving=True)
        return [a for n in list(self._outboxes) for a in self._drop(n, said, bye, now_s)]

    def _make_room(self, newcomer: Address, now_s: float) -> list[Action]:
        """When all links are taken, give one up for a link that is needed more."""
        neighbours = self.overlay.neighbours
        if newcomer in neighbours or len(neighbours) < self._tunables.max_links:
            return []
        why = "making room for a peer that needs the link more"
        return self._part(self.overlay.least_needed(), why, now_s)

    def _link(
        self, neighbour: Address, details: Neighbour, first: list[Message], now_s: float
    ) -> list[Action]:
        is_linked, why = neighbour in self._outboxes, "replaced by a newer link"
        actions = self._part(neighbour, why, now_s) if is_linked else []
        self.overlay.linked(neighbour, details)
        self.liveness.watch(neighbour, now_s)
        self._outboxes[neighbour] = Outbox(deque(first))
        self._say_all(neighbour, self.gossip.open(neighbour, details.source))
        self._say_each(self.tree.link_up(neighbour))
        self.ready.add(neighbour)
        self._is_isolated = False
        self._had_neighbours = True
        up = {"neighbour": str(neighbour), "direction": details.direction.value}
        return [*actions, Notify("neighbour_up", up)]

    def _part(self, neighbour: Address, reason: str, now_s: float) -> list[Action]:
        """Let go of a link, and tell the neighbour why."""
        return self._drop(neighbour, reason, Bye(reason, is_leaving=False), now_s)

    def _drop(
        self, neighbour: Address, reason: str, last_words: Bye | None, now_s: float
    ) -> list[Action]:
        """Let go of a link, and see to it that another takes its place."""
        del self._outboxes[neighbour]
        self.ready.discard(neighbour)
        self.overlay.unlinked(neighbour)
        self.liveness.unwatch(neighbour)
        self.gossip.close(neighbour, now_s)
        self._say_each(self.tree.link_down(neighbour, now_s))
        down = {"neighbour": str(neighbour), "reason": reason}
        self._flush(now_s)
        return [Close(neighbour, last_words), Notify("neighbour_down", down)]

    def _dials(self, now_s: float) -> list[Action]:
        if self.is_leaving:
            return []
        actions: list[Action] = [self._dial(a, is_feeler=False) for a in self.overlay.dials(now_s)]
        is_lonely = self.overlay.is_exhausted(now_s) and not self.liveness.has_cases
        has_begun = bool(self.overlay.book) or self._is_on_its_own or self._had_neighbours
        if is_lonely and has_begun and not self._is_isolated:
            self._is_isolated = True
            actions.append(Notify("isolated", {}))
        return actions

    def _dial(self, address: Address, is_feeler: bool) -> Dial:
        links = self.overlay.links
        root = self.me.key if self.gossip.questions.in_vain else self.tree.root  # so it is let in
        hello = Hello(PROTOCOL_VERSION, self.me.origin, self.me.boot_ms, links, is_feeler, root)
        return Dial(address, hello)

    # ---- what comes in, and what goes out ----

    def receive(
        self, neighbour: Address, items: Iterable[Message | Run], now_s: float
    ) -> list[Action]:
        """Frames of one link, in order. A message that makes no sense ends the link."""
        self.liveness.heard(neighbour, now_s)
        actions: list[Action] = []
        try:
            for item in items:
                if isinstance(item, Run):
                    if self.gossip.hear(neighbour, item, now_s) and neighbour == self.tree.parent:
                        self.tree.parent_brings_news(now_s)
                else:
                    actions += self._handle(neighbour, item, now_s)
                    if neighbour not in self._outboxes:
                        break  # the message ended the link
        except WireError as error:
            actions += self.misbehaved(neighbour, f"broke the protocol: {error}", now_s)
        self._flush(now_s)
        return actions + self._part_from_slow(now_s)

    def _part_from_slow(self, now_s: float) -> list[Action]:
        """Neighbours that do not read what is said to them, beside payload, are let go of."""
        if not self._is_crowded:
            return []
        self._is_crowded, most = False, self._tunables.max_queued_messages
        slow = [n for n, outbox in self._outboxes.items() if len(outbox.messages) > most]
        for neighbour in slow:
            self.refusals.refuse("outboxes", str(neighbour), "reads too slowly", now_s)
        return [action for n in slow for action in self._part(n, "reads too slowly", now_s)]

    def _handle(self, neighbour: Address, message: Message, now_s: float) -> list[Action]:
        match message:
            case LivenessRequest(number):
                self._say(neighbour, self._liveness_reply(neighbour, number))
            case LivenessReply():
                self.liveness.answered(neighbour, message.number, now_s)
                self._compare(neighbour, message)
            case Have():
                self.gossip.neighbour_has(neighbour, message, now_s)
            case Beacon():
                self._say_each(self.tree.beacon(neighbour, message, now_s))
            case Mode(wants_payload):
                self.tree.mode(neighbour, wants_payload)
                self.gossip.set_eager(neighbour, self.tree.is_payload_link(neighbour))
            case Want():
                self._say_all(neighbour, self.gossip.neighbour_wants(neighbour, message))
            case Progress():
                self.gossip.pace.told(neighbour, message, now_s)
            case Contacts(addresses, is_reply):
                told = addresses[: self._tunables.contacts_per_exchange]
                self.overlay.learn(told, self.overlay.neighbours[neighbour].source)
                if not is_reply:
                    self._say(neighbour, Contacts(self.overlay.sample(neighbour), is_reply=True))
                return self._dials(now_s)
            case OpinionRequest(accused):
                return self._asked_for_opinion(neighbour, accused, now_s)
            case Opinion(accused, is_alive):
                reason = self._reason(accused)
                finding = self.liveness.opinion(neighbour, accused, is_alive)
                return self._settle(accused, reason, finding, now_s)
            case Bye(reason, is_leaving):
                return self._bye(neighbour, reason, is_leaving, now_s)
            case _:
                raise WireError(f"{type(message).__name__}: not expected between neighbours")
        return []

    def take(self, neighbour: Address) -> list[Message | Run]:
        """What to send to this neighbour now: first what waits in the outbox, then what is owed."""
        outbox = self._outboxes[neighbour]
        taken: list[Message | Run] = list(outbox.messages)
        outbox.messages.clear()
        taken += self.gossip.take(neighbour, self._tunables.batch_bytes)
        return taken

    def has_something_for(self, neighbour: Address) -> bool:
        return bool(self._outboxes[neighbour].messages) or self.gossip.is_owed(neighbour)

    def broadcast(self, payload: bytes, now_s: float) -> int:
        """Say something to everyone. Returns its number in our stream."""
        return self.gossip.broadcast(payload, now_s)

    def is_heard(self) -> bool:
        """Whether there is a neighbour and all have everything we said; asks those that lack it.

        Liveness replies tell how far we were heard.
        """
        lacking = [n for n in self._outboxes if not self.gossip.has_all_of_ours(n)]
        for neighbour in lacking:
            self._say(neighbour, LivenessRequest(0))
        return bool(self._outboxes) and not lacking

    def links(self) -> list[dict[str, Any]]:
        """What there is to know of each neighbour."""
        return [
            {
                "neighbour": str(address),
                "direction": neighbour.direction.value,
                "is_tree": self.tree.is_payload_link(address),
                "round_trip_s": self.liveness.round_trip_s(address),
                "lag": self.gossip.lag(address),
                "links": neighbour.links,
            }
            for address, neighbour in self.overlay.neighbours.items()
        ]

    def stats(self) -> dict[str, int]:
        """Counters of what this peer has done and holds."""
        return {
            "neighbours": len(self._outboxes),
            "suspects": self.liveness.suspects,
            "hops_to_root": self.tree.hops,
            "contacts": len(self.overlay.book),
            **self.gossip.stats(),
            **self.refusals.stats(),
        }

    def _bye(self, neighbour: Address, reason: str, is_leaving: bool, now_s: float) -> list[Action]:
        said = "it has left" if is_leaving else f"it closed the link: {reason}"
        actions = self._drop(neighbour, said, None, now_s)
        if is_leaving:
            self.overlay.forget(neighbour)
        else:
            self.overlay.failed(neighbour, Dialled.TURNED_AWAY, now_s)
        return actions + self._dials(now_s)

    def _liveness_reply(self, neighbour: Address, number: int) -> LivenessReply:
        asker = StreamName(neighbour, self.overlay.neighbours[neighbour].boot_ms)
        heard = self.gossip.heard_from(asker)
        return LivenessReply(number, self.gossip.digest, len(self._outboxes), heard)

    def _compare(self, neighbour: Address, reply: LivenessReply) -> None:
        """A difference may be under way to us; one that lasts is resolved by telling all."""
        self.overlay.neighbours[neighbour].links = reply.links
        self.gossip.neighbour_heard_us(neighbour, reply.heard)
        outbox = self._outboxes[neighbour]
        outbox.differences = outbox.differences + 1 if reply.digest != self.gossip.digest else 0
        if outbox.differences >= DIFFERENCES_TO_RESOLVE:
            outbox.differences = 0
            self._say_all(neighbour, self.gossip.all_holdings(is_news=True))

    def _say(self, neighbour: Address, message: Message) -> None:
        waiting = self._outboxes[neighbour].messages
        waiting.append(message)
        self._is_crowded |= len(waiting) > self._tunables.max_queued_messages
        self.ready.add(neighbour)

    def _say_all(self, neighbour: Address, messages: Iterable[Message]) -> None:
        for message in messages:
            self._say(neighbour, message)

    def _say_each(self, sayings: Iterable[tuple[Address, Message]]) -> None:
        """Say what the tree or the gossip has to say; payload follows the tree from then on."""
        for neighbour, message in sayings:
            self._say(neighbour, message)
            if isinstance(message, Mode):
                self.gossip.set_eager(neighbour, self.tree.is_payload_link(neighbour))
                if message.wants_payload and not self.tree.is_loud:
                    self._say_all(neighbour, self.gossip.wanted_from(self._due_s))

    def _flush(self, now_s: float) -> None:
        """Say what the gossip decided on meanwhile."""
        self._say_each(self.gossip.questions.collect())
        self._say_each(self.gossip.pace.news(now_s))

    # ---- who lives ----

    def test_liveness(self, neighbour: Address, now_s: float) -> list[Action]:
        """Look after one neighbour; to be called when `liveness.due_s` says."""
        match self.liveness.test(neighbour, now_s):
            case Finding.ASK:
                number = self.liveness.number(neighbour)
                self._say(neighbour, LivenessRequest(number))
                asked = Notify("liveness_test", {"neighbour": str(neighbour), "number": number})
                return [asked, *self._dials(now_s)]
            case Finding.SUSPECT:
                reason = f"no reply to {self._tunables.missed_replies_suspect} liveness requests"
                self.liveness.accuse(neighbour, reason, now_s)
                return [Try(neighbour), *self._call_witnesses(neighbour, now_s)]
        return self._dials(now_s)

    def tried(self, accused: Address, outcome: Tried, now_s: float) -> list[Action]:
        """An attempt to reach the accused has ended; it may have been for others too."""
        for asker in self.liveness.askers(accused):
            if asker in self._outboxes and outcome is not Tried.UNTRIED:
                self._say(asker, Opinion(accused, outcome.is_alive))
        refused = "; connection refused" if outcome is Tried.REFUSED else ""
        reason = self._reason(accused) + refused
        finding = self.liveness.tried(accused, outcome)
        if finding is Finding.SUSPECT:
            return self._call_witnesses(accused, now_s)
        return self._settle(accused, reason, finding, now_s)

    def _call_witnesses(self, accused: Address, now_s: float) -> list[Action]:
        for witness in self.liveness.call_witnesses(accused, now_s):
            self._say(witness, OpinionRequest(accused))
        details = {"neighbour": str(accused), "reason": self._reason(accused)}
        return [Notify("suspect", details), *self._dials(now_s)]

    def _asked_for_opinion(self, asker: Address, accused: Address, now_s: float) -> list[Action]:
        if accused == self.me.origin:
            self._say(asker, Opinion(accused, is_alive=True))
            return []
        return [Try(accused)] if self.liveness.is_asked_about(accused, asker, now_s) else []

    def _reason(self, accused: Address) -> str:
        return self.liveness.reason(accused) if self.liveness.is_suspect(accused) else ""

    def _settle(self, accused: Address, reason: str, found: Finding, now_s: float) -> list[Action]:
        """A case is closed."""
        actions: list[Action] = []
        is_linked = accused in self._outboxes
        match found:
            case Finding.DEAD:
                if is_linked:
                    actions += self._part(accused, reason, now_s)
                self.overlay.failed(accused, Dialled.SILENT, now_s)
                if stream_name(self.tree.root).origin == accused:
                    self._say_each(self.tree.void(self.tree.root, self.tree.epoch, now_s))
                self.liveness.died(accused, now_s)
                dead = {"neighbour": str(accused), "reason": reason}
                actions += [Notify("dead", dead), Report(accused)]
            case Finding.CLEARED if not is_linked:
                self.overlay.reached(accused)
            case Finding.UNREACHABLE if is_linked:
                reason = "silent, as are half of the neighbours; or it could not be tried"
                actions += self._part(accused, reason, now_s)
                self.overlay.failed(accused, Dialled.SILENT, now_s)
            case Finding.CLEARED if is_linked and self.liveness.is_link_broken(accused):
                reason = "silent here, though others reach it"
                actions += self._part(accused, reason, now_s)
            case _:
                return []
        return actions + self._dials(now_s)


IDLE_TICK_INTERVAL_S = 0.5  # a node that is not busy may be left alone for so long
DIFFERENCES_TO_RESOLVE = 3  # digests differ for a moment whenever a message is on its way
