// The worker processes, where there are any: who they are, what they are at, and what each of them carries.

import {byId, count, make, mark, rate, say, span} from "./dom.js";
import {keyOf} from "./model.js";

const WORDS = {serving: "up", starting: "ejected", leaving: "drain", hung: "down"}; // how a state is coloured

const figure = (value, unit) => make("span", {}, make("b", {}, value), unit);

export function showWorkers({status, rates}) {
  const {workers} = status;
  byId("workers").hidden = workers === undefined;
  if (workers === undefined) return;
  const serving = workers.filter(worker => worker.state === "serving").length;
  say(byId("workers-up"), `${serving}/${workers.length} serving`);
  mark(byId("workers-up"), "data-word", serving === workers.length ? "up" : serving ? "ejected" : "down");
  byId("worker-list").replaceChildren(...workers.map(worker => make("li", {class: "listener"},
    make("div", {}, make("b", {}, `Worker ${worker.worker}`), make("small", {class: "quiet"}, `process ${worker.pid}`),
      make("span", {class: "word", "data-word": WORDS[worker.state] ?? null}, worker.state)),
    make("div", {class: "figures"}, figure(count(worker.connections), " open"), figure(rate(rates.get(keyOf("worker", worker.pid))), " req/s"),
      figure(span(worker.uptime), " up"), figure(count(worker.restarts), worker.restarts === 1 ? " restart" : " restarts")))));
}
