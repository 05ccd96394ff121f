// A line as small as a word: the course of a metric in a table's cell. Plain SVG, the colour of its text.
import { C, html } from "./host.js";
import { number } from "./format.js";

const WIDTH = 88;
const HEIGHT = 22;
const PAD = 3;

/** `values`: numbers in time order, null where nothing could be measured; `label` is read to who cannot see it. */
export function Spark({ values, label, colour = "fg.muted" }) {
  const known = values.filter((v) => Number.isFinite(v));
  if (known.length < 2) return null;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const x = (i) => PAD + (i * (WIDTH - 2 * PAD)) / (values.length - 1);
  const y = (v) => (high === low ? HEIGHT / 2 : PAD + ((high - v) * (HEIGHT - 2 * PAD)) / (high - low));
  let path = "";
  let pen = false;
  values.forEach((v, i) => {
    if (Number.isFinite(v)) {
      path += `${pen ? "L" : "M"}${x(i).toFixed(1)} ${y(v).toFixed(1)}`;
      pen = true;
    } else {
      pen = false;
    }
  });
  const last = values.findLastIndex((v) => Number.isFinite(v));
  const title = `${label}: from ${number(known[0])} to ${number(known.at(-1))}, between ${number(low)} and ${number(high)}`;
  return html`<${C.Box} as="svg" role="img" aria-label=${title} width="${WIDTH}px" height="${HEIGHT}px" flexShrink=${0}
    color=${colour} viewBox="0 0 ${WIDTH} ${HEIGHT}">
    <title>${title}</title>
    <path d=${path} fill="none" stroke="currentColor" strokeWidth="1.5" strokeLinejoin="round" />
    <circle cx=${x(last)} cy=${y(values[last])} r="2.2" fill="currentColor" />
  <//>`;
}
