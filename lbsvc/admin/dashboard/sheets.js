// The dialogs: one backend with what can be done to it, a new backend, the token, and mistakes that a reload has found.

import {add, change, remove, signIn} from "./calls.js";
import {spark} from "./charts.js";
import {byId, clock, count, full, latency, make, percent, rate, say} from "./dom.js";
import {keyOf, said, wordOf} from "./model.js";

const sheet = byId("sheet");
let shown = null; // what is to be brought up to date while the dialog is open

sheet.addEventListener("close", () => { if (!sheet.open) { shown = null; sheet.replaceChildren(); } }); // told late: another may be open
sheet.addEventListener("click", event => { if (event.target === sheet && !sheet.dataset.must) sheet.close(); });
sheet.addEventListener("cancel", event => { if (sheet.dataset.must) event.preventDefault(); });

/** Show a dialog. */
export function open(title, ...parts) {
  delete sheet.dataset.must;
  shown = null;
  sheet.replaceChildren(make("div", {class: "sheet"}, make("header", {}, make("h2", {id: "sheet-title"}, title),
    make("button", {type: "button", class: "close", "aria-label": "Close", click: () => sheet.close()}, "×")), ...parts));
  if (!sheet.open) sheet.showModal();
}

/** An input with its name. */
export const field = (label, input, hint = null) =>
  make("label", {class: "field"}, make("span", {}, label), input, hint && make("small", {}, hint));

/** Do something that the service may refuse: it says why, here. */
export async function attempt(words, problem, job, after = null) {
  problem.hidden = true;
  try {
    const answer = await job();
    if (words) tell(words, "good");
    after?.(answer);
  } catch (refused) {
    problem.replaceChildren(refused.message, ...(refused.errors?.length > 1 ? [make("ul", {}, ...refused.errors.map(line => make("li", {}, line)))] : []));
    problem.hidden = false;
  }
}

export const problemBox = () => make("p", {class: "problem", role: "alert", hidden: true});

/** A few words that go by themselves. */
export function tell(words, kind = "") {
  const toast = make("div", {class: `toast ${kind}`}, words);
  byId("toasts").append(toast);
  setTimeout(() => toast.remove(), 4500);
}

/** One backend. */
export function showBackend(pool, backend, model, mayChange) {
  const problem = problemBox();
  const word = make("span", {class: "word"});
  const canvas = make("canvas", {class: "bigspark", "aria-hidden": "true"});
  const names = ["Address", "Health", "Circuit", "State", "Weight", "Active", "Rate", "Failed tries", "p50", "p95", "p99", "Requests", "Failures", "Source"];
  const values = names.map(() => make("dd", {}));
  const check = make("p", {class: "checked"});
  const parts = [make("p", {class: "under"}, word, make("span", {class: "quiet"}, `in ${pool}`)), canvas,
    make("dl", {class: "details"}, ...names.map((name, at) => make("div", {}, make("dt", {}, name), values[at]))), check];
  const states = ["ready", "drain", "maint"].map(state => make("button", {
    type: "button", "aria-pressed": "false", click: () => attempt(`${backend.name}: ${state}`, problem, () => change(pool, backend.name, {state})),
  }, {ready: "Ready", drain: "Drain", maint: "Maintenance"}[state]));
  if (mayChange) {
    const weight = make("input", {type: "number", name: "weight", min: 0, max: 65535, value: backend.weight, required: true});
    const drain = make("input", {type: "text", name: "drain", placeholder: "no limit", size: 8, autocomplete: "off"});
    const sure = make("div", {class: "sure", hidden: true},
      field("Cut what is left after", drain, "a duration such as 30s"),
      make("button", {type: "button", class: "button bad", click: () =>
        attempt(`${backend.name} is leaving`, problem, () => remove(pool, backend.name, drain.value.trim()), () => sheet.close())}, "Remove it"));
    parts.push(make("div", {class: "doing"},
      make("div", {class: "segments", role: "group", "aria-label": "State"}, ...states),
      make("form", {class: "inline", novalidate: true, submit: event => {
        event.preventDefault();
        const value = weight.value.trim() === "" ? weight.value : Number(weight.value);
        attempt(`${backend.name}: weight ${weight.value}`, problem, () => change(pool, backend.name, {weight: value}));
      }}, field("Weight", weight), make("button", {class: "button"}, "Set")),
      make("button", {type: "button", class: "button plain", click: () => { sure.hidden = !sure.hidden; drain.focus(); }}, "Remove…")), sure);
  }
  open(backend.name, ...parts, problem);
  shown = now => {
    const found = now.status.pools.find(each => each.name === pool)?.backends.find(each => keyOf(each.name, each.address) === keyOf(backend.name, backend.address));
    if (!found) { sheet.close(); return; }
    const series = now.backend(pool, found);
    const done = series?.sum("requests", 30).total ?? 0;
    const lately = name => latency(series?.lately?.[name], now.least);
    const texts = [found.address, found.health, found.circuit.replace("_", " "), found.state, String(found.weight), count(found.active),
      rate(now.rateOf(pool, found)), done ? percent(series.sum("errors", 30).total, done) : "–", lately("p50_us"), lately("p95_us"),
      lately("p99_us"), full(found.requests), full(found.failures), found.source === "runtime" ? "run time" : "configuration"];
    texts.forEach((text, at) => say(values[at], text));
    say(word, said(wordOf(found)));
    word.dataset.word = wordOf(found);
    states.forEach((button, at) => button.setAttribute("aria-pressed", String(["ready", "drain", "maint"][at] === found.state)));
    say(check, found.last_check ? `Last check at ${clock(found.last_check.at)}: ${found.last_check.ok ? "" : "failed, "}${found.last_check.detail}` : "Not checked yet");
    if (series) spark(canvas, series.points("requests", 600, 120, now.tick), series.points("errors", 600, 120, now.tick));
  };
  shown(model);
}

/** Bring what is open up to date. */
export function refresh(model) {
  shown?.(model);
}

/** A new backend. */
export function showAdd(pool) {
  const problem = problemBox();
  const address = make("input", {type: "text", name: "address", placeholder: "10.0.0.3:8001", autocomplete: "off", spellcheck: "false", required: true});
  const name = make("input", {type: "text", name: "name", placeholder: "its address", autocomplete: "off", spellcheck: "false"});
  const weight = make("input", {type: "number", name: "weight", min: 0, max: 65535, value: 1});
  const backup = make("input", {type: "checkbox", name: "backup"});
  open(`Add a backend to ${pool}`, make("form", {class: "form", novalidate: true, submit: event => {
    event.preventDefault();
    const fields = {address: address.value.trim(), weight: weight.value.trim() === "" ? 1 : Number(weight.value)};
    if (name.value.trim()) fields.name = name.value.trim();
    if (backup.checked) fields.backup = true;
    attempt(null, problem, () => add(pool, fields), answer => { tell(`${answer.name} was added`, "good"); sheet.close(); });
  }},
  field("Address", address, "host:port; it takes traffic when its first health check has passed."),
  field("Name", name), field("Weight", weight),
  make("label", {class: "tick"}, backup, make("span", {}, "Backup: only where no other is available")), problem,
  make("footer", {}, make("button", {type: "button", class: "button plain", click: () => sheet.close()}, "Cancel"),
    make("button", {class: "button main"}, "Add backend"))));
  address.focus();
}

/** The token; `done` when it was right. */
export function askToken(done) {
  if (sheet.open && sheet.dataset.must) return;
  const problem = problemBox();
  const token = make("input", {type: "password", name: "token", autocomplete: "current-password", required: true});
  open("Sign in", make("form", {class: "form", submit: event => {
    event.preventDefault();
    attempt(null, problem, () => signIn(token.value), () => { delete sheet.dataset.must; sheet.close(); done(); });
  }}, field("Token", token, "admin.token of the configuration. It is asked for once; this browser then keeps a cookie."), problem,
  make("footer", {}, make("button", {class: "button main"}, "Sign in"))));
  sheet.dataset.must = "true";
  sheet.querySelector(".close").hidden = true;
  token.focus();
}

/** What is wrong with a configuration. */
export function showMistakes(refused) {
  open("Nothing has changed", make("p", {}, refused.errors.length ? "The configuration was refused:" : refused.message),
    make("ul", {class: "mistakes"}, ...refused.errors.map(line => make("li", {}, line))));
}
