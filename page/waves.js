// Messages seen travelling: from who said it along the tree links, one link after the other.
//
// Slower than they really are, so that an eye can follow; and only so many at a time.

const HOP_MS = 260;
const STEPS = 1500; // links travelled at the same time, over all messages

export class Waves {
  constructor() {
    this.waves = [];
    this.size = 0;
  }

  get isQuiet() {
    return this.waves.length === 0;
  }

  // A message sets out. `tree` maps each address to the set of those it exchanges messages with.
  start(origin, tree, now) {
    const steps = [];
    const reached = new Map([[origin, 0]]);
    for (const [here, hops] of reached) {
      for (const next of tree.get(here) ?? []) {
        if (reached.has(next)) continue;
        reached.set(next, hops + 1);
        steps.push({ from: here, to: next, hops });
      }
    }
    if (!steps.length || this.size + steps.length > STEPS) return;
    this.size += steps.length;
    this.waves.push({ began: now, steps, count: steps.length });
  }

  // What is under way now, as [from, to, share of the link]; and who was reached since last time.
  at(now) {
    const travelling = [];
    const arrived = [];
    for (const wave of this.waves) {
      const hops = (now - wave.began) / HOP_MS;
      wave.steps = wave.steps.filter((step) => {
        if (hops >= step.hops + 1) arrived.push(step.to);
        else if (hops >= step.hops) travelling.push([step.from, step.to, hops - step.hops]);
        return hops < step.hops + 1;
      });
    }
    for (const wave of this.waves) if (!wave.steps.length) this.size -= wave.count;
    this.waves = this.waves.filter((wave) => wave.steps.length);
    return { travelling, arrived };
  }
}
