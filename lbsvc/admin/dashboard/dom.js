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

/** A colour of the style sheet. */
export const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export function count(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)}k`;
  return String(Math.round(value));
}

export function rate(value) {
  if (value === null || value === undefined) return "–";
  return value < 9.95 && value !== 0 ? value.toFixed(1) : count(value);
}

/** Microseconds. */
export function time(us) {
  if (us === null || us === undefined || us < 0) return "–";
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 1e6) return `${(us / 1000).toFixed(us < 99_500 && us % 1000 ? 1 : 0)} ms`;
  return `${(us / 1e6).toFixed(2)} s`;
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

export function clock(stamp) {
  const when = new Date(stamp);
  return Number.isNaN(when.getTime()) ? "" : when.toLocaleTimeString([], {hour12: false});
}
