// Numbers and times as text. A missing value is "–", never 0.
export const NONE = "–";

const formats = new Map();

function formatter(zone) {
  if (!formats.has(zone)) {
    // Swedish is the locale whose dates are ISO's: 2026-11-27 05:25:24
    formats.set(zone, new Intl.DateTimeFormat("sv-SE", { timeZone: zone, dateStyle: "short", timeStyle: "medium" }));
  }
  return formats.get(zone);
}

/** "2026-11-27 05:25:24" in `zone`, as Airflow writes its times. */
export function moment(iso, zone) {
  const at = new Date(iso ?? NaN);
  return Number.isNaN(at.getTime()) ? NONE : formatter(zone).format(at);
}

/** "2026-11-27" in `zone`. */
export const day = (iso, zone) => moment(iso, zone).slice(0, 10);

/** "2026-01-01 to 2026-02-01"; with the hours where they are not midnight. */
export function windowText({ start, end }, zone) {
  const [from, to] = [moment(start, zone), moment(end, zone)];
  const whole = new Date(start) % 86400000 === 0 && new Date(end) % 86400000 === 0;
  // Whole days of UTC are meant as days, whatever the zone.
  if (whole) return `${start.slice(0, 10)} to ${end.slice(0, 10)}`;
  return `${from.slice(0, 16)} to ${to.slice(0, 16)}`;
}

const ISO = "\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d(?::\\d\\d(?:\\.\\d+)?)?(?:Z|[+-]\\d\\d:\\d\\d)";
const WINDOW = new RegExp(`(${ISO}) to (${ISO})`, "g");
const INSTANT = new RegExp(ISO, "g");

/** A text with the times and windows in it as they are written elsewhere: in `zone`, not as ISO 8601. */
export function localTimes(text, zone) {
  if (typeof text !== "string" || !text.includes("T")) return text;
  return text.replace(WINDOW, (_, start, end) => windowText({ start, end }, zone)).replace(INSTANT, (iso) => moment(iso, zone));
}

/** When a window begins: "2026-01-01", with the hour where it is not midnight. */
export const windowStart = (w, zone) => windowText(w, zone).split(" to ")[0];

const UNITS = [
  ["y", 365 * 86400],
  ["mo", 30 * 86400],
  ["d", 86400],
  ["h", 3600],
  ["min", 60],
  ["s", 1],
];

/** A span of seconds in one unit: "3 d", "5 min". */
export function span(seconds) {
  if (!Number.isFinite(seconds)) return NONE;
  const whole = Math.abs(seconds);
  for (const [unit, size] of UNITS) {
    if (whole >= size) return `${Math.floor(whole / size)} ${unit}`;
  }
  return "0 s";
}

/** "3 d ago", "in 5 min". */
export function ago(iso, now = Date.now()) {
  const at = new Date(iso ?? NaN).getTime();
  if (Number.isNaN(at)) return NONE;
  const seconds = (now - at) / 1000;
  if (Math.abs(seconds) < 1) return "now";
  return seconds >= 0 ? `${span(seconds)} ago` : `in ${span(-seconds)}`;
}

/** A measured value with `digits` significant digits: 0.912, 1,240, 3.1e-7. */
export function number(value, digits = 3) {
  if (typeof value !== "number" || !Number.isFinite(value)) return NONE;
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size < 1e-4) return value.toExponential(1);
  return String(Number(value.toPrecision(digits)));
}

/** 0.034 → "3.4 %" */
export const percent = (part) => (Number.isFinite(part) ? `${number(part * 100, 2)} %` : NONE);

/** A signed difference: "+0.012", "−0.3". */
export function signed(value, digits = 3) {
  const text = number(value, digits);
  if (text === NONE || value === 0) return text;
  return value > 0 ? `+${text}` : text.replace("-", "−");
}

/** CPU seconds as people count them: "42 s", "3.1 min", "1.2 h". */
export function effort(seconds) {
  if (!Number.isFinite(seconds)) return NONE;
  if (seconds < 90) return `${number(seconds, 2)} s`;
  if (seconds < 5400) return `${number(seconds / 60, 2)} min`;
  return `${number(seconds / 3600, 3)} h`;
}

/** A sentence as people begin one; a name of somebody's own stays as it is. */
export const sentence = (text) => (/^[a-z]+[ ,:]/.test(text) ? text[0].toUpperCase() + text.slice(1) : text);

/** "1 pipeline", "3 pipelines" */
export const count = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;
