// Gates with their reasons; the timeline, the comparison and the run page show them alike.
import { C, React, html } from "./host.js";
import { number, signed } from "./format.js";
import { Small, Word, useWords } from "./parts.js";

/** The interval as a bar on a common scale, with the threshold as a line: which side of it is what decides. */
function Bar({ gate }) {
  const { value, low, high, threshold } = gate;
  const marks = [value, low, high, threshold].filter((v) => v !== null);
  if (value === null || threshold === null || marks.length < 2) return null;
  const from = Math.min(...marks);
  const width = Math.max(...marks) - from || Math.abs(from) || 1;
  const x = (v) => 4 + (92 * (v - from)) / width;
  const [a, b] = [x(low ?? value), x(high ?? value)];
  return html`<${C.Box} as="svg" viewBox="0 0 100 14" width="100%" maxW="14rem" height="14px" preserveAspectRatio="none" aria-hidden="true"
    color=${{ ok: "green.solid", warning: "orange.solid", bad: "red.solid" }[gate.tone] ?? "gray.solid"}>
    <${C.Box} as="line" x1="0" x2="100" y1="7" y2="7" stroke="currentColor" color="border" strokeWidth="1" />
    <line x1=${a} x2=${b} y1="7" y2="7" stroke="currentColor" strokeWidth="3" opacity="0.5" />
    <rect x=${x(value) - 1} y="3" width="2" height="8" fill="currentColor" />
    <${C.Box} as="line" x1=${x(threshold)} x2=${x(threshold)} y1="0" y2="14" stroke="currentColor" color="fg" strokeWidth="1" strokeDasharray="2 2" vectorEffect="non-scaling-stroke" />
  <//>`;
}

/** "0.71 (0.69 to 0.73), asked −0.02" */
function numbers(gate) {
  const shown = gate.threshold !== null && gate.threshold < 0 ? signed : number;
  const interval = gate.low !== null || gate.high !== null ? ` (${gate.low === null ? "…" : shown(gate.low)} to ${gate.high === null ? "…" : shown(gate.high)})` : "";
  if (gate.value === null) return "";
  return `${shown(gate.value)}${interval}${gate.threshold === null ? "" : `; the line is at ${shown(gate.threshold)}`}`;
}

export function Gates({ gates }) {
  const words = useWords();
  return html`<${C.Box} as="ul" listStyleType="none">
    ${gates.map(
      (gate, i) => html`<${C.Grid} as="li" key=${i} templateColumns=${{ base: "minmax(0, 1fr)", sm: "6.5rem minmax(0, 1fr)" }} gap=${2} py=${1.5} borderTopWidth=${i ? "1px" : 0} alignItems="start">
        <${C.Box}><${Word} tone=${gate.tone}>${gate.verdict}<//><//>
        <${C.Box} minW=${0}>
          <${C.Text} fontSize="sm" fontWeight="medium" overflowWrap="anywhere">${gate.name}<//>
          <${Small} overflowWrap="anywhere">${words(gate.sentence)}<//>
          ${gate.value !== null && html`<${React.Fragment}><${Bar} gate=${gate} /><${Small} fontVariantNumeric="tabular-nums">${numbers(gate)}<//><//>`}
        <//>
      <//>`,
    )}
  <//>`;
}
