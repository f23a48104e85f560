// What is known: statuses from the event stream, series from /api/v1/history. No elements, no requests.

const SPAN = 5; // statuses over which live rates are taken, a second apart
const GAUGES = new Set(["active", "queued", "connections"]);
const NAMES = new Set(["name", "pool", "address", "step", "lately"]);

export const keyOf = (...parts) => parts.join("\u0000");

/** One series: columns of whole numbers, oldest first, -1 where nothing is known. */
export class Series {
  constructor(limit) {
    this.limit = limit; // seconds
    this.step = 1;
    this.columns = {};
    this.lately = null;
  }

  add(found, fresh) {
    this.step = found.step;
    this.lately = found.lately ?? null;
    const most = Math.ceil(this.limit / this.step);
    for (const [name, values] of Object.entries(found)) {
      if (NAMES.has(name)) continue;
      const all = this.columns[name] = fresh ? values : this.columns[name] ?? [];
      if (!fresh) all.push(...values); // in place: there may be thousands of them
      if (all.length > most) all.splice(0, all.length - most);
    }
  }

  /** What the last so many seconds make in all, and how many of them are known. */
  sum(name, seconds) {
    let total = 0, known = 0;
    for (const value of (this.columns[name] ?? []).slice(-Math.max(1, Math.round(seconds / this.step)))) {
      if (value >= 0) { total += value; known += this.step; }
    }
    return {total, known};
  }

  /** A rate a second over the last so many seconds; null where nothing is known. */
  rate(name, seconds) {
    const {total, known} = this.sum(name, seconds);
    return known ? total / known : null;
  }

  /** The last known value among the last few; -1 where there is none. */
  last(name, among = 15) {
    const values = this.columns[name] ?? [];
    for (let at = values.length - 1; at >= Math.max(0, values.length - among); at--) if (values[at] >= 0) return values[at];
    return -1;
  }

  /** `points` values over `seconds`, oldest first, null where nothing is known; of counters rates a second. */
  points(name, seconds, points, tick) {
    const values = this.columns[name] ?? [];
    const size = Math.max(1, Math.round(seconds / points / this.step)); // steps to a point
    const lastStep = Math.floor((tick + 1) / this.step) - 1;
    const found = new Array(points).fill(null);
    const ending = Math.floor(lastStep / size); // points begin at whole multiples, so that the picture does not shimmer
    const isGauge = GAUGES.has(name) || name.endsWith("_us");
    const known = new Array(points).fill(0);
    for (let at = 0; at < values.length; at++) {
      const value = values[at];
      if (value < 0) continue;
      const point = points - 1 - (ending - Math.floor((lastStep - (values.length - 1 - at)) / size));
      if (point < 0 || point >= points) continue;
      known[point]++;
      found[point] = isGauge ? Math.max(found[point] ?? 0, value) : (found[point] ?? 0) + value;
    }
    if (!isGauge) for (let at = 0; at < points; at++) if (known[at]) found[at] /= known[at] * this.step;
    return found;
  }
}

export class Model {
  constructor() {
    this.status = null;
    this.series = new Map();
    this.tick = -1;
    this.range = 600;
    this.past = []; // {uptime, counts: Map}
    this.rates = new Map();
    this.least = 0; // microseconds: the lowest bucket of the histograms
    this.isLeaving = false; // it has said that it drains
  }

  /** The next status; true where it is of another process than the one before. */
  addStatus(status) {
    const isNew = this.status !== null && status.uptime < this.status.uptime;
    if (isNew) { this.past = []; this.series.clear(); this.tick = -1; this.isLeaving = false; }
    this.status = status;
    const counts = new Map();
    this.rates.clear();
    const note = (key, requests) => {
      counts.set(key, requests);
      for (const {uptime, counts: before} of this.past) { // the oldest that has it
        const then = before.get(key);
        if (then === undefined || uptime >= status.uptime || requests < then) continue;
        this.rates.set(key, (requests - then) / (status.uptime - uptime));
        break;
      }
    };
    for (const pool of status.pools) {
      for (const backend of pool.backends) note(keyOf("backend", pool.name, backend.name, backend.address), backend.requests);
    }
    for (const worker of status.workers ?? []) note(keyOf("worker", worker.pid), worker.requests);
    for (const key of this.series.keys()) if (key.startsWith("backend") && !counts.has(key)) this.series.delete(key);
    this.past.push({uptime: status.uptime, counts});
    if (this.past.length > SPAN) this.past.shift();
    return isNew;
  }

  /** What an event says of the status before the next one comes, which may be never; false where it says nothing. */
  heed(event) {
    if (!this.status) return false;
    if (event.event === "service.draining" || event.event === "service.stopped") {
      this.isLeaving = true;
      this.status.ready = false;
      return true;
    }
    const state = {"listener.bound": "listening", "listener.closed": "draining", "listener.lost": "closed"}[event.event];
    const listener = this.status.listeners.find(each => each.name === event.listener);
    if (!state || !listener || (event.event === "listener.closed" && event.bind)) return false; // one of several addresses
    listener.state = state;
    return true;
  }

  addHistory(found, fresh, limit) {
    this.tick = found.tick;
    this.least = found.least_us;
    const seen = new Set();
    const put = (key, each, most) => {
      seen.add(key);
      let series = this.series.get(key);
      if (series === undefined || fresh) this.series.set(key, series = new Series(most));
      series.limit = Math.max(most, series.limit);
      series.add(each, fresh);
    };
    if (found.total.step) put("total", found.total, limit);
    for (const each of found.listeners) put(keyOf("listener", each.name), each, limit);
    for (const each of found.pools) put(keyOf("pool", each.name), each, limit);
    for (const each of found.backends) put(keyOf("backend", each.pool, each.name, each.address), each, 600);
    for (const key of this.series.keys()) {
      if (!seen.has(key) && !key.startsWith("backend")) this.series.delete(key);
    }
  }

  get total() { return this.series.get("total") ?? null; }
  pool(name) { return this.series.get(keyOf("pool", name)) ?? null; }
  listener(name) { return this.series.get(keyOf("listener", name)) ?? null; }
  backend(pool, backend) { return this.series.get(keyOf("backend", pool, backend.name, backend.address)) ?? null; }
  /** Of the same seconds as all the others; where the series' steps are long, of the last statuses. */
  rateOf(pool, backend) {
    const series = this.backend(pool, backend);
    if (series?.step === 1) return series.rate("requests", SPAN);
    return this.rates.get(keyOf("backend", pool, backend.name, backend.address)) ?? null;
  }
}

/** Whether the service takes requests: ready, draining, not ready. */
export function standingOf({status, isLeaving}) {
  if (status.ready) return "ready";
  const isDraining = status.listeners.length > 0 && status.listeners.every(each => each.state !== "listening");
  return isLeaving || isDraining ? "draining" : "not ready";
}

/** Does it take traffic as it should? */
export const isWell = backend => backend.health === "up" && backend.state === "ready" && backend.circuit === "closed";

/** Is it back, and let try a few requests? */
export const isOnTrial = backend => backend.health === "up" && backend.state === "ready" && backend.circuit === "half_open";

/** How that word is said. */
export const said = word => (word === "half_open" ? "on trial" : word.replace("_", " "));

/** One word for a backend, the one that matters most. */
export function wordOf(backend) {
  if (backend.state !== "ready") return backend.state;
  if (backend.health !== "up") return backend.health;
  return backend.circuit === "closed" ? "up" : backend.circuit;
}
