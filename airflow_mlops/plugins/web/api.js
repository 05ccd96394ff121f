// The network: our own API below mlops/api/ (GET only) and Airflow's REST API below api/v2/, both as the
// signed-in user, by the session's cookie.
import { React, here } from "./host.js";

const PATIENCE = 20_000; // ms; our API answers within a few seconds even when the store is down

/** What went wrong with a request; status 0 = no answer at all. */
export class Problem extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

function words(status, body) {
  // FastAPI says {"detail": "…"} or {"detail": [{"loc": […], "msg": "…"}]}
  const detail = body?.detail ?? body?.message;
  if (typeof detail === "string") return detail;
  if (Array.isArray(detail)) return detail.map((d) => `${(d.loc ?? []).slice(1).join(".")}: ${d.msg}`).join("; ");
  return `The server answered with status ${status}.`;
}

async function ask(method, path, body, signal) {
  const given = { Accept: "application/json" };
  if (body !== undefined) given["Content-Type"] = "application/json";
  const limit = AbortSignal.timeout(PATIENCE);
  let response;
  try {
    response = await fetch(here(path), {
      method,
      credentials: "same-origin",
      headers: given,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    const late = limit.aborted ? `no answer within ${PATIENCE / 1000} s` : "no connection";
    throw new Problem(0, `Airflow's API server cannot be reached: ${late}.`);
  }
  const text = await response.text();
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    // An error page of a proxy, say: its status has to do.
  }
  if (!response.ok) throw new Problem(response.status, words(response.status, answer));
  return answer;
}

export const get = (path, signal) => ask("GET", path, undefined, signal);
export const post = (path, body) => ask("POST", path, body);
export const patch = (path, body) => ask("PATCH", path, body);

/** "path?a=1&b=2" without what is empty. */
export function address(path, query) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") params.set(name, String(value));
  }
  const text = params.toString();
  return text ? `${path}?${text}` : path;
}

// What was read last, so that a page that is drawn anew (by "back", or by Airflow, which does it once after a page's
// first load) stands there at once while it is read again. Newest last; only of this window, gone with it.
const seen = new Map();
const KEPT = 50;

function keep(path, data) {
  seen.delete(path);
  seen.set(path, data);
  if (seen.size > KEPT) seen.delete(seen.keys().next().value);
}

const asked = new Map();

/** Asks before anything is drawn; whoever reads this path first takes the answer. */
export function ahead(path) {
  const answer = get(path);
  answer.catch(() => {}); // told to whoever takes it
  asked.set(path, answer);
  setTimeout(() => asked.delete(path), PATIENCE);
}

function take(path, signal) {
  const answer = asked.get(path);
  asked.delete(path);
  return answer ?? get(path, signal);
}

const readers = new Set();

/** Everything that is shown is read again: somebody acted, or something happened that other parts show too. */
export const readAgain = () => readers.forEach((reload) => reload());

/**
 * Reads `path` now, again every `every(data)` ms while the page is seen (or as soon as it is), and when `reload` is called.
 * What was read stays while it is read again or fails again: {data, problem, loading, reload}.
 */
export function useData(path, every = () => 30_000) {
  const [state, setState] = React.useState({ path, data: seen.get(path) ?? null, problem: null, loading: true });
  const [round, setRound] = React.useState(0);
  const pace = React.useRef(every);
  pace.current = every;
  React.useEffect(() => {
    if (!path) return undefined;
    const stop = new AbortController();
    let timer;
    let due = false;
    const read = async () => {
      let wait = 30_000;
      due = false;
      setState((old) => (old.path === path ? { ...old, loading: true } : { path, data: seen.get(path) ?? null, problem: null, loading: true }));
      try {
        const data = await take(path, stop.signal);
        if (stop.signal.aborted) return;
        keep(path, data);
        setState({ path, data, problem: null, loading: false });
        wait = pace.current(data);
      } catch (problem) {
        if (stop.signal.aborted) return;
        // Of another address there is nothing to keep.
        setState((old) => ({ path, data: old.path === path ? old.data : null, problem, loading: false }));
      }
      if (wait) timer = setTimeout(again, wait);
    };
    // Nobody looks at a page in the background: it is read when somebody does.
    const again = () => (document.visibilityState === "visible" ? read() : (due = true));
    const look = () => due && again();
    document.addEventListener("visibilitychange", look);
    read();
    return () => {
      document.removeEventListener("visibilitychange", look);
      stop.abort();
      clearTimeout(timer);
    };
  }, [path, round]);
  const reload = React.useCallback(() => setRound((n) => n + 1), []);
  React.useEffect(() => {
    readers.add(reload);
    return () => readers.delete(reload);
  }, [reload]);
  return { ...state, reload };
}
