// Where each peer stands: a picture that settles.
//
// Tree links pull like springs, all peers push each other away, and everything is drawn gently to
// the middle. The other links do not pull: there are too many of them to tell anything apart.
// Movement cools down; a change of the network warms it up a little, so that the rest stays put.

const SPRING = 44; // length of a tree link at rest
const PUSH = 1500; // how hard two peers push each other
const FAR = 420; // beyond this they do not
const PULL = 0.035; // to the middle
const COOLING = 0.975;
const COLD = 0.02;
const FRICTION = 0.62;

export class Layout {
  constructor() {
    this.places = new Map(); // address -> {x, y, vx, vy}
    this.edges = []; // pairs of places that a tree link joins
    this.heat = 0;
    this.aspect = 1.5; // width by height of where it is shown
  }

  // The peers and tree links as they are now. `tree` maps each address to a set of others.
  update(addresses, tree) {
    const isFirst = this.places.size === 0;
    const known = new Set(addresses);
    let changes = 0;
    for (const address of this.places.keys()) {
      if (!known.has(address)) {
        this.places.delete(address);
        changes += 1;
      }
    }
    const fresh = addresses.filter((address) => !this.places.has(address));
    if (isFirst) this.placeAsTree(addresses, tree);
    else for (const address of fresh) this.placeBesideANeighbour(address, tree);
    const edges = [];
    for (const [from, others] of tree) {
      for (const to of others) {
        if (from < to && known.has(from) && known.has(to)) {
          edges.push([this.places.get(from), this.places.get(to)]);
        }
      }
    }
    const redrawn = Math.abs(edges.length - this.edges.length) / Math.max(1, edges.length);
    this.edges = edges;
    if (isFirst) this.heat = 1;
    else if (changes + fresh.length) this.heat = Math.max(this.heat, 0.35);
    else if (redrawn) this.heat = Math.max(this.heat, Math.min(0.7, 0.15 + redrawn));
  }

  // The first picture: rings around the peer with most tree links, each branch with its own share.
  placeAsTree(addresses, tree) {
    const degree = (address) => (tree.get(address) ?? new Set()).size;
    const rest = new Set(addresses);
    const byDegree = [...addresses].sort((a, b) => degree(b) - degree(a));
    for (const top of byDegree) {
      if (!rest.has(top)) continue;
      const children = new Map();
      const order = [top];
      rest.delete(top);
      for (const here of order) {
        const found = [...(tree.get(here) ?? [])].filter((next) => rest.delete(next));
        children.set(here, found);
        order.push(...found);
      }
      const leaves = new Map();
      for (const here of order.toReversed()) {
        const below = children.get(here).map((child) => leaves.get(child));
        leaves.set(here, Math.max(1, below.reduce((sum, count) => sum + count, 0)));
      }
      const shift = this.places.size * 3;
      const place = (here, depth, from, to) => {
        const angle = (from + to) / 2;
        const radius = depth * SPRING;
        this.places.set(here, {
          x: shift + radius * Math.cos(angle), y: radius * Math.sin(angle), vx: 0, vy: 0,
        });
        let start = from;
        for (const child of children.get(here)) {
          const end = start + (to - from) * leaves.get(child) / leaves.get(here);
          place(child, depth + 1, start, end);
          start = end;
        }
      };
      place(top, 0, 0, 2 * Math.PI);
    }
  }

  placeBesideANeighbour(address, tree) {
    const near = [...(tree.get(address) ?? [])].map((other) => this.places.get(other)).find(Boolean);
    const angle = hash(address) * 2 * Math.PI;
    const away = near ? SPRING : 150 + 20 * Math.sqrt(this.places.size);
    const from = near ?? { x: 0, y: 0 };
    this.places.set(address, {
      x: from.x + away * Math.cos(angle), y: from.y + away * Math.sin(angle), vx: 0, vy: 0,
    });
  }

  // It is shown in a rectangle of so many times its height.
  fitInto(aspect) {
    const wanted = Math.min(3, Math.max(0.4, aspect));
    if (Math.abs(wanted - this.aspect) > 0.1) this.heat = Math.max(this.heat, 0.5);
    this.aspect = wanted;
  }

  get isSettled() {
    return this.heat < COLD;
  }

  // One step of movement.
  step() {
    const places = [...this.places.values()];
    for (let i = 0; i < places.length; i += 1) {
      const one = places[i];
      for (let j = 0; j < i; j += 1) {
        const other = places[j];
        let dx = one.x - other.x;
        let dy = one.y - other.y;
        if (dx > FAR || dx < -FAR || dy > FAR || dy < -FAR) continue;
        let square = dx * dx + dy * dy;
        if (square < 1) {
          dx = (i % 7) - 3.1;
          dy = (j % 5) - 2.1;
          square = dx * dx + dy * dy;
        }
        const push = this.heat * PUSH / (square + 30);
        const distance = Math.sqrt(square);
        one.vx += push * dx / distance;
        one.vy += push * dy / distance;
        other.vx -= push * dx / distance;
        other.vy -= push * dy / distance;
      }
    }
    for (const [one, other] of this.edges) {
      const dx = other.x - one.x;
      const dy = other.y - one.y;
      const distance = Math.sqrt(dx * dx + dy * dy) || 1;
      const pull = this.heat * 0.32 * (distance - SPRING) / distance;
      one.vx += pull * dx;
      one.vy += pull * dy;
      other.vx -= pull * dx;
      other.vy -= pull * dy;
    }
    for (const place of places) {
      place.vx -= this.heat * PULL * place.x / this.aspect;
      place.vy -= this.heat * PULL * place.y * this.aspect;
      place.vx *= FRICTION;
      place.vy *= FRICTION;
      place.x += place.vx;
      place.y += place.vy;
    }
    this.heat *= COOLING;
  }

  // The smallest rectangle around all of it.
  bounds() {
    const places = [...this.places.values()];
    const xs = places.map((place) => place.x);
    const ys = places.map((place) => place.y);
    return {
      left: Math.min(...xs), right: Math.max(...xs), top: Math.min(...ys), bottom: Math.max(...ys),
    };
  }
}

// A number from 0 to 1 that is always the same for the same text.
function hash(text) {
  let value = 2166136261;
  for (const character of text) value = Math.imul(value ^ character.codePointAt(0), 16777619);
  return (value >>> 0) / 2 ** 32;
}
