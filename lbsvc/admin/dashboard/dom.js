// Elements, and how numbers are said. Whatever comes from outside becomes text, never markup: there is no innerHTML here.

/** An element: attributes (a function is a listener, true is an empty attribute, null none), then children. */
export function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : String(value));
  }
  node.append(...children.filter(child => child !== null));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element. */
export function draw(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
  node.append(...children);
  return node;
}

/** Say something, if it is not what is said already. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Set an attribute, if it is another; null takes it away. */
export function mark(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

export const byId = id => document.getElementById(id);

const colours = new Map();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => colours.clear());

/** A colour of the style sheet; looked up once, since a look at a style has the browser make up everything that has changed. */
export function colour(name) {
  const known = colours.get(name);
  if (known) return known;
  const found = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  colours.set(name, found);
  return found;
}

const numbers = [0, 1, 2].map(digits => new Intl.NumberFormat("en-US", {maximumFractionDigits: digits}));

/** A number in full, written in one way wherever the browser is from: 4,497. */
export const full = (value, digits = 0) => numbers[digits].format(value);

export function count(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)}k`;
  return full(value);
}

export function rate(value) {
  if (value === null || value === undefined) return "–";
  if (value > 0 && value < 0.05) return "<0.1";
  return value < 9.95 && value !== 0 ? value.toFixed(1) : count(value);
}

/** What stands at an axis: exactly what is meant, for the steps of an axis may be quarters. */
export const onAxis = value =>
  value >= 1e6 ? `${full(value / 1e6, 2)}M` : value >= 1e4 ? `${full(value / 1e3, 2)}k` : full(value, 2);
export const timeOnAxis = us =>
  us >= 1e6 ? `${full(us / 1e6, 2)} s` : us >= 1000 ? `${full(us / 1000, 2)} ms` : `${full(us, 2)} µs`;

/** Microseconds. */
export function time(us) {
  if (us === null || us === undefined || us < 0) return "–";
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 1e6) return `${(us / 1000).toFixed(us < 99_500 && us % 1000 ? 1 : 0)} ms`;
  return `${(us / 1e6).toFixed(2)} s`;
}

/** Microseconds as the service counts them, in buckets: below the lowest, `least`, nobody knows more. */
export const latency = (us, least) => (us >= 0 && us < least ? `< ${time(least)}` : time(us));

/** Whole percents that make a hundred together: where most is cut off, it is rounded up. */
export function percents(parts) {
  const whole = parts.reduce((sum, part) => sum + part, 0);
  if (!whole) return parts.map(() => "–");
  const exact = parts.map(part => 100 * part / whole);
  const found = exact.map(Math.floor);
  const left = 100 - found.reduce((sum, each) => sum + each, 0);
  const order = exact.map((each, at) => [each - found[at], at]).sort((one, other) => other[0] - one[0]);
  for (const [, at] of order.slice(0, left)) found[at]++;
  return found.map((each, at) => (each === 0 && parts[at] ? "<1 %" : each === 100 && parts[at] < whole ? ">99 %" : `${each} %`));
}

export function percent(part, whole) {
  if (!whole) return "–";
  const share = 100 * part / whole;
  return share === 0 ? "0 %" : share < 0.1 ? "<0.1 %" : `${share.toFixed(share < 10 ? 1 : 0)} %`;
}

export function bytes(value) {
  if (value === null || value === undefined || value < 0) return "–";
  const units = ["B", "KiB", "MiB", "GiB"];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) { value /= 1024; at++; }
  return `${value < 10 && at ? value.toFixed(1) : Math.round(value)} ${units[at]}`;
}

export function span(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];
  const at = parts.findIndex(([size]) => seconds >= size);
  if (at < 0) return "0s";
  const [size, unit] = parts[at];
  const more = at < 3 ? Math.floor(seconds % size / parts[at + 1][0]) : 0;
  return `${Math.floor(seconds / size)}${unit}${more ? ` ${more}${parts[at + 1][1]}` : ""}`;
}

const hours = new Intl.DateTimeFormat([], {hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23"});

export function clock(stamp) {
  const when = new Date(stamp);
  return Number.isNaN(when.getTime()) ? "" : hours.format(when);
}
