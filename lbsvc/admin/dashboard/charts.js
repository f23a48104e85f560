// Pictures: two plots over time (uPlot), small lines in rows (canvas), and the ring of shares (SVG).

import {byId, colour, draw, make, percent, rate, say, time} from "./dom.js";

const {uPlot} = globalThis;

/** A plot over time, with a legend that says the values under the cursor, or the last ones. */
export class Plot {
  constructor(place, legend, label, series, format) {
    this.place = byId(place);
    this.series = series;
    this.format = format;
    this.values = null;
    this.place.setAttribute("role", "img");
    this.place.setAttribute("aria-label", label);
    this.said = series.map(each => make("b", {}, "–"));
    byId(legend).replaceChildren(...series.map((each, at) =>
      make("span", {class: `swatch ${each.colour}`}, `${each.name} `, this.said[at])));
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
      scales: {x: {time: true}, y: {range: (_, low, high) => [0, Math.max(high ?? 0, this.least ?? 1) * 1.12]}},
      axes: [
        {...axis, space: 70, size: 30, gap: 7, values: "{HH}:{mm}", incrs: [60, 120, 300, 600, 900]},
        {...axis, space: 34, size: 56, values: (_, marks) => marks.map(this.format)},
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

  show(values) {
    this.values = values;
    if (this.plot) this.plot.setData(values);
    else this.rebuild();
    this.tell();
  }

  tell() {
    if (!this.values) return;
    const at = this.plot?.cursor.idx ?? this.values[0].length - 2;
    this.said.forEach((node, number) => {
      const value = this.values[number + 1][at];
      say(node, value === null || value === undefined ? "–" : this.format(value));
    });
  }
}

export const trafficPlot = () => new Plot("traffic", "traffic-legend", "Requests and errors a second over time",
  [{name: "requests/s", colour: "accent", isFilled: true}, {name: "errors/s", colour: "bad", isFilled: true}], rate);
export const latencyPlot = () => new Plot("latency", "latency-legend", "Latency percentiles over time",
  [{name: "p50", colour: "good"}, {name: "p95", colour: "warm"}, {name: "p99", colour: "hot"}], time);

/** A small line over ten minutes, with errors as a red foot. */
export function spark(canvas, values, wrong = null) {
  const scale = Math.min(devicePixelRatio || 1, 2);
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width) return;
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
    this.under = draw("text", {x: 50, y: 61, class: "under"});
    this.ring = draw("svg", {viewBox: "0 0 100 100", role: "img", "aria-label": "Shares of traffic by backend"},
      draw("circle", {cx: 50, cy: 50, r: 40, class: "track"}), this.arcs, this.middle, this.under);
    this.list = make("ul", {});
    byId(place).replaceChildren(this.ring, this.list);
  }

  /** [[name, requests]…] of the last minute. */
  show(shares) {
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
    say(this.middle, total ? rate(total / 60) : "0");
    say(this.under, "requests/s");
    this.list.replaceChildren(...(shown.length ? shown.map(([name, much], at) =>
      make("li", {}, make("i", {class: `dot hue${at + 1}`}), make("span", {title: name}, name), make("b", {}, percent(much, total)))) :
      [make("li", {class: "quiet"}, "No traffic in the last minute")]));
  }
}
