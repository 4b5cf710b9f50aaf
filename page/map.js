// The page: asks for the network, draws it, and shows what is said.
//
// All text that comes from the network goes in by textContent: it is never taken for HTML.

import { Layout } from "/layout.js";
import { Waves } from "/waves.js";

const LOOK_INTERVAL_MS = 700;
const RETRY_MS = 3000;
const SHOWN_MESSAGES = 200; // in the list
const KEPT_MESSAGES = 1000; // for whoever chooses a peer
const LISTED_CHANGES = 20; // at one look; of the others, how many
const SHOWN_CHARACTERS = 400; // of one message
const LABELLED_PEERS = 45; // with more, only those that are looked at have a label
const MARGIN = 42; // around the picture, for labels
const LARGEST_SCALE = 3.6;
const STEP_MS = 16; // of the layout
const MOST_STEPS = 12; // for one picture
const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);
const stillness = matchMedia("(prefers-reduced-motion: reduce)");

const layout = new Layout();
const waves = new Waves();
const marks = new Map(); // address -> what is drawn for it
let network = { self: "", peers: [], gone: [], seeds: [], messages_per_s: 0 };
let states = new Map(); // address -> state, of everything that is drawn
let tree = new Map(); // address -> set of those that messages travel to and from
let links = []; // [from, to, isTree]
let chosen = null; // an address
let hovered = null;
let view = null; // how places become pixels: {x, y, scale}
let messages = []; // the latest, oldest first
let common = null; // the host or the port that all have
let hasLooked = false;

// ---- elements ----------------------------------------------------------------------------------

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function show(id, text) {
  const shown = byId(id);
  if (shown.textContent !== String(text)) shown.textContent = text;
}

function peerButton(address) {
  const button = element("button", { type: "button", class: "peer", title: address }, short(address));
  button.addEventListener("click", () => choose(address));
  return button;
}

// ---- the network -------------------------------------------------------------------------------

async function look() {
  const found = await fetchNetwork();
  if (document.hidden) {
    document.addEventListener("visibilitychange", look, { once: true });
  } else {
    setTimeout(look, found ? LOOK_INTERVAL_MS : RETRY_MS);
  }
  show("connection", found ? "" : `no answer from ${location.host}; trying again`);
  if (found) apply(found);
}

async function fetchNetwork() {
  try {
    const answer = await fetch("/api/network");
    return answer.ok ? await answer.json() : null;
  } catch {
    return null; // it is down, or on its way up again
  }
}

function apply(found) {
  const before = states;
  network = found;
  const all = [...network.peers, ...network.gone];
  states = new Map(all.map((peer) => [peer.address, peer.state]));
  findCommon();
  gatherLinks();
  layout.update([...states.keys()].sort(), tree);
  if (hasLooked) tellChanges(before);
  hasLooked = true;
  drawPeers();
  drawSeeds();
  showNumbers();
  showChosen();
  showRows();
  if (stillness.matches) while (!layout.isSettled) layout.step();
  wake();
}

function gatherLinks() {
  const alive = new Set(network.peers.map((peer) => peer.address));
  const kinds = new Map(); // "from to" -> whether it is a tree link
  for (const peer of network.peers) {
    const ofTree = new Set(peer.tree);
    for (const other of peer.neighbours) {
      if (!alive.has(other)) continue;
      const pair = peer.address < other ? `${peer.address} ${other}` : `${other} ${peer.address}`;
      kinds.set(pair, kinds.get(pair) || ofTree.has(other));
    }
  }
  links = [...kinds].map(([pair, isTree]) => [...pair.split(" "), isTree]);
  tree = new Map([...alive].map((address) => [address, new Set()]));
  for (const [from, to, isTree] of links) {
    if (isTree) {
      tree.get(from).add(to);
      tree.get(to).add(from);
    }
  }
}

const HAPPENED = {
  alive: "is here", silent: "gives no answer", dead: "is dead", left: "has left",
};

function tellChanges(before) {
  const happened = [];
  for (const [address, state] of states) {
    const was = before.get(address);
    if (state === was) continue;
    if (was === undefined && state !== "alive") continue;
    happened.push([address, state, was === undefined ? "has joined" : HAPPENED[state]]);
  }
  const listed = happened.slice(0, LISTED_CHANGES);
  for (const [address, state, text] of listed) addHappening(address, state, text);
  const rest = happened.length - listed.length;
  if (rest) addLine("notice", `and ${rest} more; the table below has them all`);
  if (happened.length) {
    const told = happened.slice(0, 5).map(([address, , text]) => `${address} ${text}`);
    if (happened.length > 5) told.push(`and ${happened.length - 5} more`);
    show("announcements", told.join(", "));
  }
}

// Without what all have in common: the host, or else the port.
function short(address) {
  const colon = address.lastIndexOf(":");
  const [host, port] = [address.slice(0, colon), address.slice(colon)];
  if (host === common) return port;
  return port === common ? host : address;
}

function findCommon() {
  const colons = [...states.keys()].map((address) => [address, address.lastIndexOf(":")]);
  const hosts = new Set(colons.map(([address, colon]) => address.slice(0, colon)));
  const ports = new Set(colons.map(([address, colon]) => address.slice(colon)));
  const [found] = hosts.size === 1 ? hosts : ports.size === 1 ? ports : [null];
  if (found === common) return;
  common = found;
  for (const button of document.querySelectorAll("button.peer")) {
    button.textContent = short(button.title);
  }
}

function showNumbers() {
  show("peer-count", network.peers.length);
  show("link-count", links.length);
  const reachable = network.seeds.filter((seed) => seed.reachable).length;
  const all = network.seeds.length;
  show("seed-count", reachable === all ? all : `${reachable} of ${all}`);
  show("rate", network.messages_per_s);
}

// ---- the picture -------------------------------------------------------------------------------

function drawPeers() {
  for (const [address, mark] of marks) {
    if (states.has(address)) continue;
    mark.group.remove();
    mark.label.remove();
    marks.delete(address);
    if (chosen === address) choose(null);
  }
  const hops = new Map(network.peers.map((peer) => [peer.address, peer.hops]));
  const counts = new Map(network.peers.map((peer) => [peer.address, peer.neighbours.length]));
  for (const [address, state] of states) {
    const mark = marks.get(address) ?? newMark(address);
    const names = [state];
    if (address === network.self) names.push("self");
    if (hops.get(address) === 0 && state === "alive" && states.size > 2) names.push("root");
    mark.group.setAttribute("class", names.join(" "));
    const count = counts.get(address);
    const words = count === undefined ? HAPPENED[state] : `${HAPPENED[state]}, neighbours: ${count}`;
    mark.group.setAttribute("aria-label", `${address} ${words}`);
    mark.title.textContent = `${address} ${words}`;
    if (mark.label.textContent !== short(address)) mark.label.textContent = short(address);
  }
  markChosen();
}

function newMark(address) {
  const group = drawn("g", { role: "option", id: `peer ${address}`.replaceAll(" ", "-") });
  const title = drawn("title");
  const disc = drawn("circle", { class: "disc" });
  const cross = drawn("path", { class: "cross" });
  group.append(title, drawn("circle", { class: "halo" }), disc, cross);
  group.addEventListener("click", () => choose(address === chosen ? null : address));
  group.addEventListener("pointerenter", () => hover(address));
  group.addEventListener("pointerleave", () => hover(null));
  const label = drawn("text");
  byId("peers").append(group);
  byId("labels").append(label);
  const mark = { group, title, disc, cross, label };
  marks.set(address, mark);
  return mark;
}

function radius() {
  const count = states.size;
  if (count <= 12) return 11;
  if (count <= LABELLED_PEERS) return 8;
  return count <= 130 ? 6 : 4.5;
}

function placeAll() {
  const map = byId("map");
  const width = map.clientWidth;
  const height = map.clientHeight;
  if (!width || !layout.places.size) return;
  layout.fitInto(width / height);
  const box = layout.bounds();
  const scale = Math.min(
    LARGEST_SCALE,
    (width - 2 * MARGIN) / Math.max(1, box.right - box.left),
    (height - 2 * MARGIN) / Math.max(1, box.bottom - box.top),
  );
  const wanted = { x: (box.left + box.right) / 2, y: (box.top + box.bottom) / 2, scale };
  const share = view && !layout.isSettled && !stillness.matches ? 0.15 : 1;
  view = view ?? wanted;
  for (const key of ["x", "y", "scale"]) view[key] += share * (wanted[key] - view[key]);
  const size = radius();
  for (const [address, mark] of marks) {
    const { x, y } = spot(address);
    mark.group.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
    mark.label.setAttribute("x", x.toFixed(1));
    mark.label.setAttribute("y", (y + size + 13).toFixed(1));
    mark.group.style.setProperty("--size", `${size}px`);
    const arm = size * 0.8;
    mark.cross.setAttribute("d", `M${-arm} ${-arm}L${arm} ${arm}M${arm} ${-arm}L${-arm} ${arm}`);
  }
  const lines = { links: "", tree: "", "chosen-links": "" };
  for (const [from, to, isTree] of links) {
    const line = `M${point(from)}L${point(to)}`;
    lines[isTree ? "tree" : "links"] += line;
    if (from === chosen || to === chosen) lines["chosen-links"] += line;
  }
  for (const [id, line] of Object.entries(lines)) byId(id).setAttribute("d", line);
  const faintness = Math.min(0.75, 9 / Math.sqrt(links.length + 1)); // many must not hide the tree
  byId("links").setAttribute("stroke-opacity", faintness.toFixed(2));
}

function spot(address) {
  const place = layout.places.get(address);
  const map = byId("map");
  return {
    x: map.clientWidth / 2 + (place.x - view.x) * view.scale,
    y: map.clientHeight / 2 + (place.y - view.y) * view.scale,
  };
}

function point(address) {
  const { x, y } = spot(address);
  return `${x.toFixed(1)} ${y.toFixed(1)}`;
}

let isAwake = false;
let framedAt = 0;

function wake() {
  if (isAwake) return;
  isAwake = true;
  requestAnimationFrame(frame);
}

function frame(now) {
  isAwake = false;
  // As many steps as time has passed for: a slow machine shows fewer pictures, not slower ones.
  let steps = Math.min(MOST_STEPS, Math.max(1, Math.round((now - framedAt) / STEP_MS)));
  framedAt = now;
  for (; steps > 0 && !layout.isSettled; steps -= 1) layout.step();
  placeAll();
  drawWaves(now);
  if (!layout.isSettled || !waves.isQuiet) wake();
}

function drawWaves(now) {
  if (!view) return;
  const { travelling, arrived } = waves.at(now);
  let dots = "";
  for (const [from, to, share] of travelling) {
    if (!layout.places.has(from) || !layout.places.has(to)) continue;
    const a = spot(from);
    const b = spot(to);
    dots += `M${(a.x + share * (b.x - a.x)).toFixed(1)} ${(a.y + share * (b.y - a.y)).toFixed(1)}h0`;
  }
  byId("pulses").setAttribute("d", dots);
  for (const address of arrived) flash(address);
}

function flash(address) {
  const mark = marks.get(address);
  if (!mark || stillness.matches) return;
  mark.disc.animate([{ transform: "scale(1.45)" }, { transform: "scale(1)" }], 350);
}

function drawSeeds() {
  const shown = byId("seeds");
  const wanted = network.seeds.map((seed) => `${seed.address} ${seed.reachable}`).join();
  if (shown.dataset.wanted === wanted) return;
  shown.dataset.wanted = wanted;
  shown.replaceChildren(...network.seeds.map((seed) => {
    const words = seed.reachable ? "seed" : "seed, no answer";
    const item = element("li", { title: `${seed.address} ${words}` });
    item.classList.toggle("unreachable", !seed.reachable);
    const hidden = element("span", { class: "only-read" }, `${words} `);
    item.append(element("i", { "aria-hidden": "true" }), hidden, short(seed.address));
    return item;
  }));
}

// ---- choosing a peer ---------------------------------------------------------------------------

function hover(address) {
  hovered = address;
  markChosen();
}

function choose(address) {
  chosen = address;
  markChosen();
  showChosen();
  showItsMessages();
  wake();
}

function markChosen() {
  const near = new Set();
  for (const [from, to] of links) {
    if (from === chosen) near.add(to);
    if (to === chosen) near.add(from);
  }
  const isFew = states.size <= LABELLED_PEERS;
  for (const [address, mark] of marks) {
    const isChosen = address === chosen;
    mark.group.classList.toggle("chosen", isChosen);
    mark.group.setAttribute("aria-selected", isChosen);
    const isNear = isChosen || near.has(address);
    mark.group.classList.toggle("aside", chosen !== null && !isNear);
    mark.label.classList.toggle("aside", chosen !== null && !isNear && address !== hovered);
    const isLabelled = isFew || isNear || address === hovered || states.get(address) !== "alive";
    mark.label.classList.toggle("hidden", !isLabelled);
  }
  byId("picture").classList.toggle("has-choice", chosen !== null);
  const map = byId("map");
  if (chosen) map.setAttribute("aria-activedescendant", marks.get(chosen)?.group.id ?? "");
  else map.removeAttribute("aria-activedescendant");
}

function showChosen() {
  const panel = byId("chosen");
  panel.hidden = chosen === null;
  if (chosen === null) return;
  const state = states.get(chosen);
  const peer = network.peers.find((found) => found.address === chosen);
  show("chosen-address", chosen);
  const who = chosen === network.self ? "This page’s own peer. " : "";
  const since = peer ? `, since ${clock(peer.since)}` : "";
  const words = state === "alive" ? "It is alive" : `It ${HAPPENED[state]}`;
  show("chosen-state", `${who}${words}${since}.`);
  const counters = !peer ? [] : [
    ["said", peer.said], ["heard", peer.delivered], ["copies too many", peer.surplus],
    ["hops to the root", peer.hops],
  ];
  byId("counters").replaceChildren(...counters.map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, String(value)))));
  const list = byId("neighbours");
  const ofTree = new Set(peer?.tree);
  const wanted = (peer?.neighbours ?? []).map((other) => `${other} ${ofTree.has(other)}`).join();
  if (list.dataset.wanted === wanted && list.dataset.of === chosen) return;
  list.dataset.wanted = wanted;
  list.dataset.of = chosen;
  list.replaceChildren(...(peer?.neighbours ?? []).map((other) => {
    const what = ofTree.has(other) ? "messages" : "announcements";
    return element("li", {}, peerButton(other), element("span", {}, what));
  }));
}

// The nearest peer in the direction of an arrow key.
function neighbourTowards(key) {
  const all = [...layout.places.keys()];
  if (!chosen || !layout.places.has(chosen)) return network.self || all[0];
  const here = layout.places.get(chosen);
  const turns = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  const [right, down] = turns[key];
  let best = chosen;
  let least = Infinity;
  for (const address of all) {
    const place = layout.places.get(address);
    const along = (place.x - here.x) * right + (place.y - here.y) * down;
    const across = Math.abs((place.x - here.x) * down + (place.y - here.y) * right);
    const cost = along + 2 * across;
    if (along > 0.1 && cost < least) {
      best = address;
      least = cost;
    }
  }
  return best;
}

byId("map").addEventListener("keydown", (event) => {
  if (event.key.startsWith("Arrow") && layout.places.size) {
    choose(neighbourTowards(event.key));
    event.preventDefault();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") choose(null);
});
byId("map").addEventListener("click", (event) => {
  if (event.target.id === "map") choose(null);
});
byId("let-go").addEventListener("click", () => {
  choose(null);
  byId("map").focus();
});

// ---- the table ---------------------------------------------------------------------------------

function showRows() {
  if (!byId("in-words").open) return;
  const rows = byId("rows");
  const shown = new Map([...rows.children].map((row) => [row.dataset.address, row]));
  const all = [...network.peers, ...network.gone];
  for (const [index, peer] of all.entries()) {
    const row = shown.get(peer.address) ?? newRow(peer.address);
    shown.delete(peer.address);
    if (rows.children[index] !== row) rows.insertBefore(row, rows.children[index] ?? null);
    const isThere = "neighbours" in peer;
    const values = [
      peer.state, isThere ? peer.neighbours.length : "", peer.said ?? "", peer.delivered ?? "",
      peer.surplus ?? "", peer.hops ?? "", isThere ? clock(peer.since) : "",
    ];
    for (const [column, value] of values.entries()) {
      const cell = row.children[column + 1];
      if (cell.textContent !== String(value)) cell.textContent = value;
    }
  }
  for (const row of shown.values()) row.remove();
}

function newRow(address) {
  const row = element("tr", { "data-address": address });
  const head = element("th", { scope: "row" }, peerButton(address));
  row.append(head, ...Array.from({ length: 7 }, () => element("td")));
  return row;
}

byId("in-words").addEventListener("toggle", showRows);

// ---- messages ----------------------------------------------------------------------------------

let waiting = []; // list items that will be shown with the next frame

function listen() {
  const opened = performance.now();
  const source = new EventSource(`/api/messages?last=${SHOWN_MESSAGES}`);
  source.addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    keep(message);
    if (performance.now() - opened > 600) travel(message.origin);
  });
  source.addEventListener("notice", (event) => {
    const notice = JSON.parse(event.data);
    if (notice.notice === "restarted") messages = [];
    else addLine("notice", `${notice.messages} messages came too fast to be shown here`);
  });
  source.addEventListener("error", () => {
    if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
    setTimeout(listen, RETRY_MS);
  });
}

function keep(message) {
  messages.push(message);
  if (messages.length > KEPT_MESSAGES) messages.splice(0, messages.length - KEPT_MESSAGES);
  queue(messageItem(message));
  if (message.origin === chosen) showItsMessages();
}

function messageItem(message) {
  const text = message.text ?? `(bytes) ${message.base64}`;
  const cut = text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)} …` : text;
  const body = element("bdi", {}, cut);
  return element("li", {}, timeOf(message.at), peerButton(message.origin), body);
}

function addHappening(address, state, text) {
  queue(element("li", { class: `happening ${state}` },
    timeOf(Date.now() / 1000), peerButton(address), element("span", {}, text)));
}

function addLine(kind, text) {
  queue(element("li", { class: kind }, timeOf(Date.now() / 1000), element("span", {}, text)));
}

function queue(item) {
  waiting.push(item);
  if (waiting.length > SHOWN_MESSAGES) waiting.shift();
  if (waiting.length === 1) requestAnimationFrame(showWaiting);
}

function showWaiting() {
  const list = byId("messages");
  list.prepend(...waiting.reverse());
  waiting = [];
  while (list.children.length > SHOWN_MESSAGES) list.lastChild.remove();
}

function showItsMessages() {
  if (chosen === null) return;
  const its = messages.filter((message) => message.origin === chosen).slice(-20).reverse();
  const items = its.map(messageItem);
  if (!items.length) items.push(element("li", {}, element("span", {}, "none yet")));
  byId("its-messages").replaceChildren(...items);
}

function travel(origin) {
  flash(origin);
  if (stillness.matches || document.hidden) return;
  waves.start(origin, tree, performance.now());
  wake();
}

function timeOf(seconds) {
  return element("time", { datetime: new Date(seconds * 1000).toISOString() }, clock(seconds));
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hourCycle: "h23" });
}

byId("say").addEventListener("submit", async (event) => {
  event.preventDefault();
  const input = byId("text");
  const text = input.value;
  try {
    const answer = await fetch("/api/messages", { method: "POST", body: text });
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error);
    if (input.value === text) input.value = "";
    show("said", "");
  } catch (error) {
    show("said", `not said: ${error.message}`);
  }
});

// ---- the beginning -----------------------------------------------------------------------------

new ResizeObserver(wake).observe(byId("map"));
look();
listen();
