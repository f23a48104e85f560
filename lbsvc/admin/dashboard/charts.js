// Pictures: two plots over time (uPlot), small lines in rows (canvas), and the ring of shares (SVG).

import {byId, clock, colour, draw, make, mark, onAxis, percents, rate, say, timeOnAxis} from "./dom.js";

const {uPlot} = globalThis;

/** A plot over time, with a legend that says the values under the cursor, and without one those that the tiles say. */
export class Plot {
  /** `least`: what the axis spans at least; `format`: of a value; `onAxis`: of a mark. */
  constructor(place, legend, label, series, {least, format, onAxis}) {
    this.place = byId(place);
    this.series = series;
    this.least = least;
    this.format = format;
    this.onAxis = onAxis;
    this.values = null;
    this.now = {values: [], words: ""};
    this.when = make("span", {class: "when"});
    this.place.setAttribute("role", "img");
    this.place.setAttribute("aria-label", label);
    this.said = series.map(each => make("b", {}, "–"));
    byId(legend).replaceChildren(...series.map((each, at) =>
      make("span", {class: `swatch ${each.colour}`}, `${each.name} `, this.said[at])), this.when);
    new ResizeObserver(() => this.resize()).observe(this.place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.rebuild());
  }

  size() {
    return {width: Math.max(120, this.place.clientWidth), height: Math.max(120, this.place.clientHeight)};
  }

  rebuild() {
    this.plot?.destroy();
    const axis = {stroke: colour("quiet"), grid: {stroke: colour("line"), width: 1}, ticks: {show: false}, font: "11px system-ui, sans-serif"};
    this.plot = new uPlot({
      ...this.size(),
      padding: [10, 8, 0, 0],
      legend: {show: false},
      cursor: {y: false, points: {size: 7}, drag: {x: false, y: false}},
      scales: {x: {time: true}, y: {range: (_, low, high) => [0, Math.max(high ?? 0, this.least) * 1.12]}},
      axes: [
        {...axis, space: 70, size: 30, gap: 7, values: "{HH}:{mm}", incrs: [60, 120, 300, 600, 900]},
        {...axis, space: 34, size: 56, values: (_, marks) => marks.map(this.onAxis)},
      ],
      series: [{}, ...this.series.map(each => ({
        label: each.name,
        stroke: colour(each.colour),
        fill: each.isFilled ? this.fading(each.colour) : undefined,
        width: 1.75,
        points: {show: false},
        spanGaps: false,
      }))],
      hooks: {setCursor: [() => this.tell()]},
    }, this.values ?? [[], ...this.series.map(() => [])], this.place);
  }

  fading(name) {
    return plot => {
      const shade = plot.ctx.createLinearGradient(0, plot.bbox.top, 0, plot.bbox.top + plot.bbox.height);
      shade.addColorStop(0, colour(`${name}-shade`));
      shade.addColorStop(1, "transparent");
      return shade;
    };
  }

  resize() {
    if (this.plot) this.plot.setSize(this.size());
  }

  /** `now`: what is said while nothing is pointed at, {values, words}; the words say of when. */
  show(values, now) {
    this.values = values;
    this.now = now;
    if (this.plot) this.plot.setData(values);
    else this.rebuild();
    this.tell();
  }

  tell() {
    if (!this.values) return;
    const at = this.plot?.cursor.idx ?? null;
    this.said.forEach((node, number) => {
      const value = at === null ? this.now.values[number] : this.values[number + 1][at];
      say(node, value === null || value === undefined ? "–" : this.format(value));
    });
    say(this.when, at === null ? this.now.words : clock(this.values[0][at] * 1000));
  }
}

export const trafficPlot = () => new Plot("traffic", "traffic-legend", "Requests and errors a second over time",
  [{name: "req/s", colour: "accent", isFilled: true}, {name: "err/s", colour: "bad", isFilled: true}],
  {least: 4, format: rate, onAxis}); // requests are whole: no quarters of one where there are none
export const latencyPlot = format => new Plot("latency", "latency-legend", "Latency percentiles over time",
  [{name: "p50", colour: "good"}, {name: "p95", colour: "warm"}, {name: "p99", colour: "hot"}],
  {least: 100, format, onAxis: timeOnAxis});

const asked = new Map(); // canvas -> what is to be drawn on it

/** A small line over ten minutes, with errors as a red foot; drawn with the next frame. */
export function spark(canvas, values, wrong = null) {
  asked.set(canvas, [values, wrong]);
  if (asked.size === 1) requestAnimationFrame(drawAll);
}

/** First every look at sizes, then every change: each look after a change would have the whole page laid out again. */
function drawAll() {
  const sized = [...asked].map(([canvas, lines]) => [canvas, canvas.clientWidth, canvas.clientHeight, lines]);
  asked.clear();
  for (const [canvas, width, height, lines] of sized) if (width) drawLine(canvas, width, height, ...lines);
}

function drawLine(canvas, width, height, values, wrong) {
  const scale = Math.min(devicePixelRatio || 1, 2);
  if (canvas.width !== Math.round(width * scale)) { canvas.width = Math.round(width * scale); canvas.height = Math.round(height * scale); }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  const most = Math.max(1e-9, ...values.map(value => value ?? 0));
  const x = at => at * (width - 2) / (values.length - 1) + 1;
  const y = value => height - 1.5 - (height - 4) * value / most;
  const lines = [];
  values.forEach((value, at) => {
    if (value === null) return;
    if (at && values[at - 1] !== null && lines.length) lines.at(-1).push(at);
    else lines.push([at]);
  });
  for (const line of lines) {
    pen.beginPath();
    for (const at of line) pen.lineTo(x(at), y(values[at]));
    pen.lineWidth = 1.4;
    pen.lineJoin = "round";
    pen.strokeStyle = colour("accent");
    pen.stroke();
    pen.lineTo(x(line.at(-1)), height);
    pen.lineTo(x(line[0]), height);
    pen.fillStyle = colour("accent-shade");
    pen.fill();
  }
  if (wrong) {
    pen.fillStyle = colour("bad");
    const bar = Math.max(1, width / values.length - 0.5);
    wrong.forEach((value, at) => {
      if (value > 0) pen.fillRect(x(at) - bar / 2, height - Math.max(2, (height - 4) * value / most), bar, height);
    });
  }
}

const HUES = 9;
const AROUND = 2 * Math.PI * 40;

/** How traffic is shared: a ring, and who has how much of it. */
export class Shares {
  constructor(place) {
    this.arcs = draw("g", {transform: "rotate(-90 50 50)", fill: "none", "stroke-width": "13"});
    this.middle = draw("text", {x: 50, y: 50, class: "middle"});
    this.under = draw("text", {x: 50, y: 61, class: "under"}, "requests/s");
    this.window = draw("text", {x: 50, y: 69, class: "under"}, "last minute");
    this.ring = draw("svg", {viewBox: "0 0 100 100", role: "img", "aria-label": "Shares of traffic by backend"},
      draw("circle", {cx: 50, cy: 50, r: 40, class: "track"}), this.arcs, this.middle, this.under, this.window);
    this.list = make("ul", {});
    byId(place).replaceChildren(this.ring, this.list);
  }

  /** [[name, requests]…] of the last minute, of which so many seconds are known. */
  show(shares, known) {
    const sorted = shares.filter(([, much]) => much > 0).sort((one, other) => other[1] - one[1]);
    const total = sorted.reduce((sum, [, much]) => sum + much, 0);
    const shown = sorted.length > HUES ? sorted.slice(0, HUES - 1) : sorted;
    const rest = sorted.slice(shown.length);
    shown.sort((one, other) => one[0].localeCompare(other[0], undefined, {numeric: true})); // a colour stays with its name
    if (rest.length) shown.push([`${rest.length} others`, rest.reduce((sum, [, much]) => sum + much, 0)]);
    let gone = 0;
    this.arcs.replaceChildren(...shown.map(([, much], at) => {
      const part = AROUND * much / total;
      const arc = draw("circle", {
        cx: 50, cy: 50, r: 40, class: `hue${at + 1}`,
        "stroke-dasharray": `${Math.max(0.1, part - (shown.length > 1 ? 1 : 0))} ${AROUND}`, "stroke-dashoffset": -gone,
      });
      gone += part;
      return arc;
    }));
    say(this.middle, rate(known ? total / known : null));
    mark(this.ring, "aria-label", `Shares of traffic by backend, of the last ${known < 60 ? `${known} seconds` : "minute"}`);
    say(this.window, known < 60 ? `last ${known} s` : "last minute");
    const texts = percents(shown.map(([, much]) => much));
    this.list.replaceChildren(...(shown.length ? shown.map(([name], at) =>
      make("li", {}, make("i", {class: `dot hue${at + 1}`}), make("span", {title: name}, name), make("b", {}, texts[at]))) :
      [make("li", {class: "quiet"}, "No traffic in the last minute")]));
  }
}
