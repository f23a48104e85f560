// Send traffic through a listener, and see who answered: a dialog with bars by backend and by status.

import {send} from "./calls.js";
import {byId, full, make, percents, rate, say, time} from "./dom.js";
import {attempt, field, open, problemBox} from "./sheets.js";

const HUES = 9;
let before = {listener: "", requests: "100", clients: "4", path: "/", host: "", method: "GET"}; // as it was asked for last

/** A list of bars: [label, count, class, what more is to be said], and their shares in words. */
function bars(title, rows, shares) {
  if (!rows.length) return null;
  const most = Math.max(...rows.map(([, count]) => count));
  return make("section", {}, make("h3", {}, title), make("ul", {class: "bars"}, ...rows.map(([label, count, kind, more], at) => {
    const fill = make("i", {class: kind});
    fill.style.width = `${100 * count / most}%`;
    return make("li", {}, make("span", {title: label}, label, more && make("small", {}, more)), make("span", {class: "bar", "aria-hidden": "true"}, fill),
      make("b", {}, full(count)), make("small", {}, shares[at]));
  })));
}

const kindOf = status => ({2: "good", 3: "cool", 4: "warn", 5: "bad"})[String(status)[0]] ?? "cool";

function showFound(place, found) {
  const {sent, statuses, reasons, errors, backends, latency_ms: latency, elapsed} = found;
  const answered = Object.values(statuses).reduce((sum, count) => sum + count, 0);
  const pools = new Set(backends.map(each => each.pool));
  const named = backends.map((each, at) => [each.name ?? "no backend", each.requests, each.name === null ? "none" : `hue${at % HUES + 1}`,
    each.name === null ? "" : pools.size > 1 ? each.pool : ""]);
  const codes = Object.entries(statuses), lost = Object.entries(errors);
  const shares = percents([...codes, ...lost].map(([, count]) => count)); // both lists together are all that was sent
  const words = Object.entries(reasons).filter(([reason]) => reason !== "ok").map(([reason, count]) => `${count} ${reason}`).join(", ");
  place.replaceChildren(...[
    make("p", {class: "summary"}, make("b", {}, `${full(answered)} of ${full(sent)} answered`),
      ` in ${time(elapsed * 1e6)}, ${rate(elapsed ? answered / elapsed : 0)} a second`),
    make("dl", {class: "facts"}, ...["p50", "p95", "p99", "max"].map(name =>
      make("div", {}, make("dt", {}, name), make("dd", {}, make("b", {}, latency[name] === null ? "–" : time(latency[name] * 1000)))))),
    bars("By backend", named, percents(backends.map(each => each.requests))),
    bars("By status", codes.map(([status, count]) => [status, count, kindOf(status), ""]), shares),
    words && make("p", {class: "quiet"}, `Not well: ${words}`),
    bars("Without an answer", lost.map(([words, count]) => [words, count, "bad", ""]), shares.slice(codes.length)),
  ].filter(part => part));
}

/** The dialog. */
export function showTraffic(model) {
  const listeners = model.status.listeners.filter(each => each.protocol === "http" && each.state === "listening");
  if (!listeners.length) {
    open("Send traffic", make("p", {}, "No listener speaks HTTP: there is nothing that requests could be sent through."));
    return;
  }
  const problem = problemBox();
  const found = make("div", {class: "found", role: "status", "aria-live": "polite"});
  const listener = make("select", {name: "listener"}, ...listeners.map(each => make("option", {value: each.name}, `${each.name}  (${each.bind})`)));
  if (listeners.some(each => each.name === before.listener)) listener.value = before.listener;
  const text = (name, more) => make("input", {type: "text", name, value: before[name], autocomplete: "off", spellcheck: "false", ...more});
  const number = (name, most) => make("input", {type: "number", name, value: before[name], min: 1, max: most, required: true});
  const inputs = {requests: number("requests", 1000), clients: number("clients", 20), path: text("path", {required: true}),
    host: text("host", {placeholder: "the listener's address"}),
    method: make("select", {name: "method"}, ...["GET", "HEAD"].map(each => make("option", {}, each)))};
  inputs.method.value = before.method;
  const go = make("button", {class: "button main"}, "Send");
  const form = make("form", {class: "form", novalidate: true, submit: async event => {
    event.preventDefault();
    before = {listener: listener.value, ...Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value.trim()]))};
    const wanted = {listener: before.listener, path: before.path, method: before.method};
    for (const name of ["requests", "clients"]) wanted[name] = before[name] === "" ? before[name] : Number(before[name]);
    if (before.host) wanted.host = before.host;
    go.disabled = true;
    say(go, "Sending…");
    found.setAttribute("aria-busy", "true");
    await attempt(null, problem, () => send(wanted), answer => showFound(found, answer));
    found.setAttribute("aria-busy", "false");
    if (!problem.hidden) found.replaceChildren();
    say(go, "Send");
    go.disabled = false;
    if (byId("sheet").contains(go) && document.activeElement === document.body) go.focus();
  }},
  field("Listener", listener),
  make("div", {class: "pairs"}, field("Requests", inputs.requests), field("At a time", inputs.clients), field("Method", inputs.method)),
  field("Path", inputs.path), field("Host", inputs.host), problem,
  make("footer", {}, make("small", {}, "Real requests to real backends, ten seconds long at most."), go));
  open("Send traffic", form, found);
  inputs.requests.focus();
}
