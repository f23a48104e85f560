// The pools and their backends as tables. A row that is out of sight is touched every ten seconds and its line not drawn; a
// cell is touched when it says something new.

import {byId, clock, count, full, latency, make, mark, percent, rate, say} from "./dom.js";
import {spark} from "./charts.js";
import {isOnTrial, isWell, keyOf, said, wordOf} from "./model.js";

const LATELY = 30; // seconds
const SELDOM = 10; // statuses between looks at a row that is out of sight
const TALL = 25; // rows from which a table scrolls by itself

const ORDERS = {
  given: null,
  name: (one, other) => one.backend.name.localeCompare(other.backend.name, undefined, {numeric: true}),
  rate: (one, other) => (other.rate ?? 0) - (one.rate ?? 0),
  errors: (one, other) => other.wrong - one.wrong,
  latency: (one, other) => (other.backend.latency ?? 0) - (one.backend.latency ?? 0),
  active: (one, other) => other.backend.active - one.backend.active,
};

/** Of when a number is, and what it counts. */
export const HINTS = {
  rate: "Requests a second over the last 5 s.",
  tries: "Of all tries of the last 30 s, those that failed or were answered with 5xx. Where another try was answered well, no client has seen it: what clients were told is in the tile Errors.",
  latency: "Of what has ended in the last 10 to 20 s, here as everywhere on this page.",
};

const HEADS = [["Backend", "name"], ["State", "state"], ["Weight", "number weight"], ["Active", "number active"], ["Rate", "number rate", HINTS.rate],
  ["Failed tries", "number errors", HINTS.tries], ["p50", "number p50", HINTS.latency], ["p95", "number p95", HINTS.latency],
  ["p99", "number p99", HINTS.latency], ["10 min", "spark"], ["Last check", "check"]];

class Row {
  constructor(open) {
    this.title = make("button", {type: "button", class: "link", click: () => open(this.pool, this.backend)});
    this.address = make("small", {});
    this.word = make("span", {class: "word"});
    this.marks = make("span", {class: "marks"});
    this.canvas = make("canvas", {"aria-hidden": "true"});
    this.check = make("span", {});
    this.checked = make("td", {role: "cell", class: "check"}, this.check);
    this.numbers = HEADS.slice(2, 9).map(([, kind]) => make("td", {role: "cell", class: kind}));
    this.node = make("tr", {role: "row"},
      make("th", {scope: "row", role: "rowheader", class: "name"}, this.title, this.address),
      make("td", {role: "cell", class: "state"}, this.word, this.marks), ...this.numbers,
      make("td", {role: "cell", class: "spark"}, this.canvas), this.checked);
    this.node.row = this;
    this.isSeen = this.isShown = false;
  }

  /** What is needed to sort and to filter. */
  note(pool, backend, model) {
    this.pool = pool;
    this.backend = backend;
    this.series = model.backend(pool, backend);
    this.rate = model.rateOf(pool, backend);
    this.done = this.series?.sum("requests", LATELY).total ?? 0;
    this.wrong = this.series?.sum("errors", LATELY).total ?? 0;
  }

  show(model) {
    const {backend, series} = this;
    this.isShown = true;
    const lately = series?.lately;
    const word = wordOf(backend);
    say(this.title, backend.name);
    say(this.address, backend.name === backend.address ? "" : backend.address);
    say(this.word, said(word));
    mark(this.word, "data-word", word);
    mark(this.node, "data-word", word);
    const marks = [];
    if (backend.state !== "ready" && backend.health !== "up") marks.push(backend.health);
    if (backend.circuit !== "closed" && word !== backend.circuit) marks.push(`circuit ${said(backend.circuit)}`);
    if (backend.backup) marks.push("backup");
    if (backend.source === "runtime") marks.push("run time");
    say(this.marks, marks.join(" · "));
    const texts = [String(backend.weight), String(backend.active), rate(this.rate), this.done ? percent(this.wrong, this.done) : "–",
      ...["p50_us", "p95_us", "p99_us"].map(name => latency(lately?.[name], model.least))];
    texts.forEach((text, at) => say(this.numbers[at], text));
    mark(this.numbers[3], "data-bad", this.wrong ? "" : null);
    const check = backend.last_check;
    say(this.check, check ? check.detail || (check.ok ? "ok" : "failed") : "–");
    mark(this.checked, "title", check ? `${clock(check.at)}  ${check.detail || (check.ok ? "ok" : "failed")}` : null);
    mark(this.check, "data-bad", check && !check.ok ? "" : null);
    if (series && this.isSeen) {
      const past = series.points("requests", 600, 60, model.tick);
      spark(this.canvas, past, series.points("errors", 600, 60, model.tick));
    }
  }
}

class PoolPanel {
  constructor(name, acts, watch) {
    this.name = name;
    this.acts = acts;
    this.watch = watch;
    this.rows = new Map();
    this.orderedAt = this.turn = 0;
    this.order = [];
    this.algorithm = make("span", {class: "badge"});
    this.up = make("span", {class: "badge up"});
    this.facts = [["rate", HINTS.rate], ["failed tries", HINTS.tries], ...["p50", "p95", "p99"].map(word => [word, HINTS.latency]), ["active"], ["queued"]]
      .map(([word, hint = null]) => [make("b", {}, "–"), word, hint]);
    this.canvas = make("canvas", {class: "poolspark", "aria-hidden": "true"});
    this.body = make("tbody", {role: "rowgroup"});
    this.empty = make("p", {class: "quiet none", hidden: true}, "No backend here is like that.");
    this.scroll = make("div", {class: "scroll"}, make("table", {role: "table", "aria-label": `Backends of ${name}`},
      make("thead", {role: "rowgroup"}, make("tr", {role: "row"}, ...HEADS.map(([head, kind, title = null]) => make("th", {scope: "col", role: "columnheader", class: kind, title}, head)))),
      this.body), this.empty);
    this.node = make("article", {class: "panel pool"},
      make("header", {}, make("h2", {}, name), this.algorithm, this.up, make("span", {class: "gap"}), this.canvas,
        make("button", {type: "button", class: "button small changes", click: () => acts.add(name)}, "Add backend")),
      make("dl", {class: "facts"}, ...this.facts.map(([value, word, title]) => make("div", {title}, make("dt", {}, word), make("dd", {}, value)))),
      this.scroll);
  }

  show(pool, model, filter, now) {
    const all = [];
    const keys = new Set();
    for (const backend of pool.backends) {
      const key = keyOf(backend.name, backend.address);
      let row = this.rows.get(key);
      if (row === undefined) {
        this.rows.set(key, row = new Row(this.acts.open));
        this.watch.observe(row.node);
      }
      keys.add(key);
      row.note(pool.name, backend, model);
      all.push(row);
    }
    for (const [key, row] of this.rows) {
      if (!keys.has(key)) { this.watch.unobserve(row.node); row.node.remove(); this.rows.delete(key); }
    }
    const found = all.filter(row => filter.takes(row));
    this.arrange(found, filter.order, now);
    this.turn = (this.turn + 1) % SELDOM;
    found.forEach((row, at) => { if (row.isSeen || !row.isShown || at % SELDOM === this.turn) row.show(model); });
    this.empty.hidden = found.length > 0 || !all.length;
    mark(this.scroll, "class", found.length > TALL ? "scroll tall" : "scroll");
    this.head(pool, model);
    return found.length;
  }

  /** Rows in their order; where that follows numbers, no oftener than every three seconds. */
  arrange(found, order, now) {
    const same = found.length === this.order.length && this.kind === order;
    if (same && (ORDERS[order] === null ? found.every((row, at) => row === this.order[at])
      : now - this.orderedAt < 3000 && found.every(row => row.node.parentNode === this.body))) return;
    const sorted = ORDERS[order] === null ? found : [...found].sort(ORDERS[order]);
    this.orderedAt = now;
    this.kind = order;
    if (sorted.length === this.order.length && sorted.every((row, at) => row === this.order[at])) return;
    const focused = document.activeElement;
    this.order = sorted;
    this.body.replaceChildren(...sorted.map(row => row.node));
    if (focused !== document.activeElement && this.body.contains(focused)) focused.focus({preventScroll: true});
  }

  head(pool, model) {
    const series = model.pool(pool.name);
    const up = pool.backends.filter(isWell).length;
    say(this.algorithm, pool.algorithm.replaceAll("_", " "));
    const trying = pool.backends.filter(isOnTrial).length;
    say(this.up, `${full(up)}/${full(pool.backends.length)} up${trying ? `, ${full(trying)} on trial` : ""}`);
    mark(this.up, "data-word", up === pool.backends.length ? "up" : up || trying ? "ejected" : "down");
    const {total: done} = series?.sum("requests", LATELY) ?? {total: 0};
    const active = pool.backends.reduce((sum, backend) => sum + backend.active, 0);
    const texts = [rate(series?.rate("requests", 5)), percent(series?.sum("errors", LATELY).total ?? 0, done),
      ...["p50_us", "p95_us", "p99_us"].map(name => latency(series?.lately?.[name], model.least)), count(active), count(pool.queued)];
    texts.forEach((text, at) => say(this.facts[at][0], text));
    if (series) spark(this.canvas, series.points("requests", 600, 60, model.tick), series.points("errors", 600, 60, model.tick));
  }
}

export class Pools {
  /** `acts`: open(pool, backend), add(pool). */
  constructor(acts) {
    this.acts = acts;
    this.panels = new Map();
    this.model = null;
    this.watch = new IntersectionObserver(entries => {
      for (const {target, isIntersecting} of entries) {
        target.row.isSeen = isIntersecting;
        if (isIntersecting && this.model) target.row.show(this.model);
      }
    }, {rootMargin: "150px"});
    for (const id of ["find", "which", "order"]) byId(id).addEventListener("input", () => this.model && this.show(this.model));
    byId("pool-list").addEventListener("keydown", event => this.walk(event));
  }

  get filter() {
    const words = byId("find").value.trim().toLowerCase();
    const which = byId("which").value;
    return {
      order: byId("order").value,
      takes: ({backend, pool, rate: rateNow}) =>
        (!words || `${pool}/${backend.name} ${backend.address} ${said(wordOf(backend))}`.toLowerCase().includes(words)) &&
        (which === "all" || (which === "trouble" ? !isWell(backend) : (rateNow ?? 0) > 0 || backend.active > 0)),
    };
  }

  show(model) {
    this.model = model;
    const {filter} = this;
    const now = performance.now();
    let found = 0, all = 0;
    const names = new Set();
    for (const pool of model.status.pools) {
      names.add(pool.name);
      let panel = this.panels.get(pool.name);
      if (panel === undefined) {
        this.panels.set(pool.name, panel = new PoolPanel(pool.name, this.acts, this.watch));
        byId("pool-list").append(panel.node);
      }
      found += panel.show(pool, model, filter, now);
      all += pool.backends.length;
    }
    for (const [name, panel] of this.panels) if (!names.has(name)) { panel.node.remove(); this.panels.delete(name); }
    say(byId("found"), found === all ? `${full(all)} backends` : `${full(found)} of ${full(all)} backends`);
  }

  /** Up and down go from backend to backend. */
  walk(event) {
    const by = {ArrowDown: 1, ArrowUp: -1}[event.key];
    if (!by || !event.target.matches("button.link")) return;
    const all = [...byId("pool-list").querySelectorAll("button.link")];
    all[all.indexOf(event.target) + by]?.focus();
    event.preventDefault();
  }
}
