// The page: what comes from the service, and where it is shown. The stream of events is the clock; while the page is hidden
// it rests, and asks for what it has missed when it is seen again.

import * as calls from "./calls.js";
import {latencyPlot, Shares, trafficPlot} from "./charts.js";
import {byId, bytes, clock, count, full, latency, make, mark, percent, rate, say, span} from "./dom.js";
import {isOnTrial, isWell, Model, standingOf} from "./model.js";
import {HINTS, Pools} from "./rows.js";
import {askToken, refresh, showAdd, showBackend, showMistakes, tell} from "./sheets.js";
import {showTraffic} from "./traffic.js";
import {showWorkers} from "./workers.js";

const EVENTS = 200;
const QUIET = 4000; // milliseconds without a status until the connection counts as lost, where nothing else says so before
const RETRY = 2000;
const RATE = 5, LATELY = "10–20 s"; // windows of rates, and of latencies (observe/history.py)
const HOUR = 3600, TEN = 600;

const model = new Model();
const plots = {traffic: trafficPlot(), latency: latencyPlot(us => latency(us, model.least))};
const shares = new Shares("share");
const pools = new Pools({open: (pool, backend) => showBackend(pool, backend, model, mayChange()), add: showAdd});

let session = {token: false, signed_in: true, read_only: false};
let stream = null, again = 0, lastHeard = 0, asking = false, needsAll = true, wasLost = false;
let events = []; // that are not in the feed yet

const mayChange = () => session.signed_in && !session.read_only;

// -- what is shown

const TILES = [
  ["rate", "Requests / s", "What clients have asked over the last 5 s. Listeners that are themselves backends of a pool are left out: what they get was counted in front, or is a health check. The list of listeners has each."],
  ["errors", "Errors", "Of what clients were answered in the last 30 s: 5xx, and connections of tcp that failed. A try that failed and was followed by a good one is none; those are the pools' failed tries."],
  ["latency", "p95 latency", HINTS.latency],
  ["healthy", "Healthy backends", "In traffic. On trial: back, with an open circuit that lets a few requests try; the next ones decide."],
  ["active", "Active requests", "At backends, now."], ["connections", "Connections", "Of clients, now, at every listener."], ["queued", "Queued", "Waiting for a backend, now."],
];
const tiles = new Map(TILES.map(([name, label, title]) => {
  const value = make("strong", {}, "–"), under = make("small", {});
  byId("tiles").append(make("article", {class: "tile", id: `tile-${name}`, title}, make("h2", {}, label), value, under));
  return [name, {value, under, node: byId(`tile-${name}`)}];
}));

function tile(name, text, under = "", kind = null) {
  const {value, under: line, node} = tiles.get(name);
  say(value, text);
  say(line, under);
  mark(node, "data-kind", kind);
}

function showHead({status} = model) {
  byId("send").disabled = false;
  say(byId("version"), `lbsvc ${status.version}`);
  say(byId("ready"), standingOf(model));
  mark(byId("ready"), "data-kind", status.ready ? "good" : "bad");
  say(byId("uptime"), `up ${span(status.uptime)}`);
  say(byId("generation").firstChild ?? byId("generation").appendChild(document.createTextNode("")), `generation ${status.generation}`);
  document.title = `${wasLost ? "✕ " : model.status.pools.flatMap(pool => pool.backends).every(isWell) ? "" : "● "}lbsvc`;
}

function showTiles() {
  const {status, total} = model;
  const backends = status.pools.flatMap(pool => pool.backends);
  const up = backends.filter(isWell).length, trying = backends.filter(isOnTrial).length, away = backends.length - up - trying;
  const others = [away && `${full(away)} offline or leaving`, trying && `${full(trying)} on trial`].filter(words => words).join(", ");
  const queued = status.pools.reduce((sum, pool) => sum + pool.queued, 0);
  const active = backends.reduce((sum, backend) => sum + backend.active, 0);
  const done = total?.sum("requests", 30).total ?? 0, wrong = total?.sum("errors", 30).total ?? 0;
  tile("rate", rate(total?.rate("requests", RATE)), `${bytes(total?.rate("bytes_out", RATE))}/s out`);
  tile("errors", done ? percent(wrong, done) : "–", `${count(wrong)} in 30 s`, wrong / (done || 1) > 0.01 ? "bad" : wrong ? "warn" : null);
  tile("latency", latency(total?.lately?.p95_us, model.least), `p99 ${latency(total?.lately?.p99_us, model.least)}, ${LATELY}`);
  tile("healthy", `${full(up)}/${full(backends.length)}`, others || "all of them", others ? (up || trying ? "warn" : "bad") : backends.length ? "good" : null);
  tile("active", count(active), `in ${status.pools.length} pool${status.pools.length === 1 ? "" : "s"}`);
  tile("connections", count(status.listeners.reduce((sum, each) => sum + each.connections, 0)), `on ${status.listeners.length} listener${status.listeners.length === 1 ? "" : "s"}`);
  tile("queued", count(queued), queued ? "waiting for a backend" : "nobody waits", queued ? "warn" : null);
}

function showPlots() {
  const {total, tick, range} = model;
  if (!total || tick < 0) return;
  const points = range === HOUR ? 600 : 300, size = range / points;
  const end = Math.floor(Date.now() / 1000 / size) * size;
  const times = Array.from({length: points}, (_, at) => end - (points - 1 - at) * size);
  const of = name => total.points(name, range, points, tick);
  plots.traffic.show([times, of("requests"), of("errors")], {values: ["requests", "errors"].map(name => total.rate(name, RATE)), words: `last ${RATE} s`});
  const columns = ["p50_us", "p95_us", "p99_us"];
  plots.latency.show([times, ...columns.map(of)], {values: columns.map(name => total.lately?.[name]), words: `last ${LATELY}`});
}

function showShares() {
  const choice = byId("share-pool"), names = model.status.pools.map(pool => pool.name);
  if (names.join("\n") !== [...choice.options].map(option => option.value).join("\n")) {
    const before = choice.value;
    choice.replaceChildren(...names.map(name => make("option", {value: name}, name)));
    const busiest = names.reduce((best, name) => (model.pool(name)?.sum("requests", 60).total ?? 0) > (model.pool(best)?.sum("requests", 60).total ?? 0) ? name : best, names[0]);
    choice.value = names.includes(before) ? before : busiest ?? "";
  }
  const pool = model.status.pools.find(each => each.name === choice.value);
  const sums = (pool?.backends ?? []).map(backend => [backend.name, model.backend(pool.name, backend)?.sum("requests", 60) ?? {total: 0, known: 0}]);
  shares.show(sums.map(([name, {total}]) => [name, total]), Math.max(0, ...sums.map(([, {known}]) => known)));
}

function showListeners() {
  byId("listeners").replaceChildren(...model.status.listeners.map(listener => {
    const series = model.listener(listener.name);
    return make("div", {class: "listener"},
      make("div", {}, make("b", {}, listener.name), make("span", {class: "badge"}, listener.protocol),
        make("span", {class: "word", "data-word": listener.state === "listening" ? "up" : "drain"}, listener.state)),
      make("small", {class: "quiet"}, listener.bind),
      make("div", {class: "figures"}, make("span", {}, make("b", {}, count(listener.connections)), " open"),
        make("span", {}, make("b", {}, rate(series?.rate("requests", RATE))), listener.protocol === "http" ? " req/s" : " conn/s"),
        make("span", {}, make("b", {}, bytes(series?.rate("bytes_out", RATE))), "/s out")));
  }));
}

function addEvents(list) {
  const feed = byId("events");
  feed.prepend(...list.slice(-EVENTS).reverse().map(event => make("li", {"data-level": event.level},
    make("time", {datetime: event.ts}, clock(event.ts)), make("b", {}, event.event), make("span", {}, event.message))));
  for (const event of list) showReload(event);
  while (feed.children.length > EVENTS) feed.lastChild.remove();
}

/** A thousand events may come at once: they are drawn together. */
function told(event) {
  if (model.heed(event)) { showHead(); showListeners(); }
  if (events.push(event) > 1) return;
  requestAnimationFrame(() => { addEvents(events); events = []; });
}

/** How the last reload ended stands in the head until there is another. */
function showReload(event) {
  if (event?.event !== "config.reloaded" && event?.event !== "config.refused") return;
  const isRefused = event.event === "config.refused", notice = byId("notice");
  mark(byId("generation"), "title", `${clock(event.ts)}  ${event.message}`);
  mark(byId("generation"), "data-kind", isRefused ? "bad" : "good");
  notice.hidden = !isRefused;
  if (isRefused) say(notice, `The last reload was refused at ${clock(event.ts)}: ${event.message}`);
}

function showLive(isLive) {
  say(byId("live").querySelector("b"), isLive ? "live" : "connection lost");
  mark(byId("live"), "data-kind", isLive ? "good" : "bad");
  document.body.classList.toggle("lost", !isLive); // what was known last is grey
  if (!isLive && !wasLost && model.status) tell("The connection is lost; trying again", "bad");
  if (isLive && wasLost) tell("Connected again", "good");
  wasLost = !isLive;
  if (model.status) showHead();
}

function showAll() {
  showHead();
  showTiles();
  showListeners();
  showWorkers(model);
  showShares();
  pools.show(model);
  refresh(model);
}

// -- what comes

async function look() {
  if (asking) return;
  asking = true;
  const fresh = needsAll;
  try {
    const limit = model.range;
    const found = await calls.history(fresh ? {seconds: TEN} : {after: Math.max(0, model.tick), seconds: TEN});
    if (fresh || found.tick < model.tick || found.tick - model.tick > 300) {
      model.addHistory(fresh ? found : await calls.history({seconds: TEN}), true, TEN);
      if (limit === HOUR) model.addHistory(await calls.history({seconds: HOUR, of: "pools"}), true, HOUR);
      needsAll = false;
      if (found.events) { events.length = 0; byId("events").replaceChildren(); addEvents(found.events); showReload(found.reload); }
    } else {
      model.addHistory(found, false, limit);
    }
    showPlots();
  } catch (refused) {
    if (refused.status === 401) leave();
  } finally {
    asking = false;
  }
}

/** The dot beats when the service does, and costs nothing in between. */
function beat() {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  byId("live").querySelector("i").animate([{transform: "scale(1.5)"}, {transform: "scale(1)"}], {duration: 450, easing: "ease-out"});
}

async function heard(text) {
  lastHeard = performance.now();
  beat();
  if (wasLost || byId("live").dataset.kind !== "good") showLive(true);
  if (model.addStatus(JSON.parse(text))) needsAll = true;
  if (needsAll) showAll(); // all of the past takes a while
  await look(); // so that every number on the page is of one second
  showAll();
}

function listen() {
  stop();
  stream = calls.events();
  stream.addEventListener("status", event => heard(event.data));
  stream.addEventListener("change", event => told(JSON.parse(event.data)));
  const opened = lastHeard = performance.now();
  stream.addEventListener("error", () => {
    const hasSpoken = lastHeard > opened;
    stop();
    again = setTimeout(begin, RETRY);
    if (!hasSpoken) showLive(false);
    else calls.session().catch(() => showLive(false)); // it may only have other rules now, or make room: is it there?
  });
}

function stop() {
  clearTimeout(again);
  stream?.close();
  stream = null;
}

function leave() {
  stop();
  session.signed_in = false;
  askToken(begin);
}

async function begin() {
  lastHeard = performance.now(); // from here on it has its time to answer
  try {
    session = await calls.session();
  } catch {
    showLive(false);
    clearTimeout(again);
    again = setTimeout(begin, RETRY);
    return;
  }
  document.body.classList.toggle("fixed", !mayChange());
  byId("signout").hidden = !session.token;
  if (!session.signed_in) { leave(); return; }
  needsAll = true;
  model.isLeaving = false;
  listen();
}

// -- what is asked for

byId("reload").addEventListener("click", async () => {
  byId("reload").disabled = true;
  try {
    const {generation, changes} = await calls.reload();
    tell(`Generation ${generation}: ${changes.length ? `${changes.length} changes` : "nothing has changed"}`, "good");
  } catch (refused) {
    if (refused.errors?.length) showMistakes(refused);
    else tell(refused.message, "bad");
  } finally {
    byId("reload").disabled = false;
  }
});
byId("send").addEventListener("click", () => showTraffic(model));
byId("signout").addEventListener("click", async () => { await calls.signOut(); leave(); });
byId("share-pool").addEventListener("input", () => showShares());
for (const [id, range] of [["ten", TEN], ["hour", HOUR]]) {
  byId(id).addEventListener("click", () => {
    model.range = range;
    needsAll = true;
    byId("ten").setAttribute("aria-pressed", String(range === TEN));
    byId("hour").setAttribute("aria-pressed", String(range === HOUR));
    look();
  });
}
document.addEventListener("keydown", event => {
  if (event.key === "/" && !event.target.matches("input, select, textarea") && !byId("sheet").open) {
    byId("find").focus();
    event.preventDefault();
  }
});
document.addEventListener("visibilitychange", () => { if (document.hidden) stop(); else begin(); });
setInterval(() => {
  if (!document.hidden && session.signed_in && lastHeard && performance.now() - lastHeard > QUIET && !wasLost) showLive(false);
}, 1000);

begin();
