// Requests to the admin interface, of this origin only.

/** What was refused: `errors` are the lines of a configuration's mistakes. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `the answer is ${status}`);
    this.status = status;
    this.errors = problem.errors ?? [];
  }
}

export async function ask(method, path, value, more = {}) {
  const options = {method, credentials: "same-origin", headers: {Accept: "application/json"}, ...more};
  if (value !== undefined) {
    options.body = JSON.stringify(value);
    options.headers["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Refused(0, {detail: "the service cannot be reached"});
  }
  let found = null;
  try { found = await answer.json(); } catch { /* no JSON: the status says it */ }
  if (!answer.ok) throw new Refused(answer.status, found ?? {});
  return found;
}

const API = "/api/v1";
const place = (pool, name) => `${API}/pools/${encodeURIComponent(pool)}/backends/${encodeURIComponent(name)}`;

/** Also how the page finds out whether the service is there: it is not where no answer comes soon. */
export const session = () => ask("GET", "session", undefined, {signal: AbortSignal.timeout(3000)})
  .then(found => found ?? Promise.reject(new Refused(0, {})));
export const signIn = token => ask("POST", "session", {token});
export const signOut = () => ask("DELETE", "session");
export const history = query => ask("GET", `${API}/history?${new URLSearchParams(query)}`);
export const reload = () => ask("POST", `${API}/reload`);
export const send = fields => ask("POST", `${API}/traffic`, fields);
export const change = (pool, name, fields) => ask("PATCH", place(pool, name), fields);
export const remove = (pool, name, drain) =>
  ask("DELETE", place(pool, name) + (drain ? `?drain=${encodeURIComponent(drain)}` : ""));
export const add = (pool, fields) => ask("POST", `${API}/pools/${encodeURIComponent(pool)}/backends`, fields);
export const events = () => new EventSource(`${API}/events`);
