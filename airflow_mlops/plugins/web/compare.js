// Two versions side by side: metrics with their intervals, slices, sizes, and what was different.
import { C, React, html } from "./host.js";
import { useData } from "./api.js";
import { NONE, number, signed } from "./format.js";
import { Gates } from "./gates.js";
import { Cell, Grid, Head, Panel, Small, Time, Word, useWords } from "./parts.js";
import { Empty, Read } from "./states.js";

const scoreText = (s) => (s ? `${number(s.value)}${s.low === null ? "" : ` (${number(s.low)} to ${number(s.high)})`}` : NONE);

/** Both intervals on one scale: whether they overlap is seen at once. */
function Intervals({ a, b }) {
  const ends = [a, b].flatMap((s) => (s ? [s.value, s.low, s.high] : [])).filter((v) => v !== null);
  const from = Math.min(...ends);
  const width = Math.max(...ends) - from;
  // Two points alone would be at the ends, however near.
  if (!(a && b) || width <= 0 || (a.low === null && b.low === null)) return null;
  const x = (v) => 3 + (94 * (v - from)) / width;
  const line = (s, y, colour) => html`<${C.Box} as="g" color=${colour}>
    <line x1=${x(s.low ?? s.value)} x2=${x(s.high ?? s.value)} y1=${y} y2=${y} stroke="currentColor" strokeWidth="2.5" opacity="0.5" />
    <rect x=${x(s.value) - 0.9} y=${y - 3.5} width="1.8" height="7" fill="currentColor" />
  <//>`;
  return html`<${C.Box} as="svg" viewBox="0 0 100 20" width="9rem" height="20px" preserveAspectRatio="none" aria-hidden="true">
    ${line(a, 6, "orange.solid")}${line(b, 14, "blue.solid")}
  <//>`;
}

function Difference({ a, b, lowerIsBetter }) {
  if (!a || !b) return NONE;
  const gap = b.value - a.value;
  const better = gap === 0 ? null : gap > 0 !== lowerIsBetter;
  // Intervals that meet say nothing of which is better; the gates, which compare row by row, may still.
  const open = a.low === null || b.low === null || (a.low <= b.high && b.low <= a.high);
  const color = better === null || open ? "fg" : better ? "fg.success" : "fg.error";
  return html`<${C.Text} as="span" color=${color} whiteSpace="nowrap">
    ${signed(gap)}${better !== null && (open ? ", may be chance" : better ? " better" : " worse")}
  <//>`;
}

function Metrics({ data }) {
  const [a, b] = [data.a.version, data.b.version];
  const heads = ["Metric", `v${a}`, `v${b}`, "95 % intervals", `v${b} against v${a}`];
  const apart = data.metrics.some((m) => !m.same_rows);
  return html`<${Panel} title="Metrics">
    <${Grid} label="Metrics" heads=${heads.map((h) => html`<${Head} key=${h}>${h}<//>`)}>
      ${data.metrics.map(
        (m) => html`<${C.Table.Row} key=${m.name}>
          <${Cell}>${m.name}${!m.same_rows && " *"}<${Small}>${m.lower_is_better ? "lower is better" : "higher is better"}<//><//>
          <${Cell} fontVariantNumeric="tabular-nums" whiteSpace="nowrap">${scoreText(m.a)}<//>
          <${Cell} fontVariantNumeric="tabular-nums" whiteSpace="nowrap">${scoreText(m.b)}<//>
          <${Cell}><${Intervals} a=${m.a} b=${m.b} /><//>
          <${Cell}><${Difference} a=${m.a} b=${m.b} lowerIsBetter=${m.lower_is_better} /><//>
        <//>`,
      )}
    <//>
    ${apart && html`<${Small} mt=${2}>* not measured on the same rows: only roughly comparable.<//>`}
    ${data.metrics.some((m) => (m.a ?? m.b).low !== null) && html`<${Small} mt=${1}>In the intervals v${a} is drawn above, v${b} below. Where they meet, only the gates can tell: they compare row by row.<//>`}
  <//>`;
}

function Slices({ data }) {
  if (data.slices.length === 0) return null;
  const side = (score, rows, verdict) => html`<${Cell} fontVariantNumeric="tabular-nums">
    ${scoreText(score)}<${Small}>${[rows !== null && `${number(rows)} rows`, verdict].filter(Boolean).join(", ")}<//>
  <//>`;
  return html`<${Panel} title="Slices">
    <${Grid} label="Slices" maxH="28rem" heads=${["Gate", "Slice", `v${data.a.version}`, `v${data.b.version}`].map((h) => html`<${Head} key=${h}>${h}<//>`)}>
      ${data.slices.map(
        (s, i) => html`<${C.Table.Row} key=${i}>
          <${Cell}>${s.gate}<//><${Cell}>${s.column} = ${s.value_of}<//>
          ${side(s.a, s.a_rows, s.a_verdict)}${side(s.b, s.b_rows, s.b_verdict)}
        <//>`,
      )}
    <//>
  <//>`;
}

function FactTable({ data }) {
  const words = useWords();
  const [all, setAll] = React.useState(false);
  const differing = data.facts.filter((f) => f.differs);
  const shown = all ? data.facts : differing;
  const side = html`<${C.Button} size="2xs" variant="ghost" aria-pressed=${all} onClick=${() => setAll(!all)}>
    ${all ? "Only what differs" : `Show all ${data.facts.length}`}
  <//>`;
  return html`<${Panel} title="Size, data, configuration, code" side=${data.facts.length > differing.length && side}>
    ${shown.length === 0
      ? html`<${C.Text} fontSize="sm" color="fg.muted">Nothing differs.<//>`
      : html`<${Grid} label="Differences" maxH="28rem" heads=${["Of", "What", `v${data.a.version}`, `v${data.b.version}`].map((h, i) => html`<${Head} key=${i}>${h}<//>`)}>
          ${shown.map(
            (f, i) => html`<${C.Table.Row} key=${i} bg=${all && f.differs ? "bg.muted" : undefined}>
              <${Cell} color="fg.muted">${f.group}<//><${Cell}>${f.name}<//>
              <${Cell} minW="9rem" overflowWrap="anywhere">${words(f.a) ?? NONE}<//><${Cell} minW="9rem" overflowWrap="anywhere">${words(f.b) ?? NONE}<//>
            <//>`,
          )}
        <//>`}
  <//>`;
}

const TONES = { passed: "ok", rejected: "bad", inconclusive: "warning", no_baseline: "info" };

function Side({ side }) {
  const words = useWords();
  return html`<${Panel} title=${`v${side.version}, ${side.status}`} side=${html`<${Word} tone=${TONES[side.verdict] ?? "unknown"}>${side.verdict}<//>`}>
    <${Small} mb=${2}>Registered <${Time} at=${side.registered_at} />${side.against !== null && `; its gates compared it with v${side.against}`}<//>
    <${C.Text} fontSize="sm" mb=${2} overflowWrap="anywhere">${words(side.sentence)}<//>
    <${Gates} gates=${side.gates} />
  <//>`;
}

function Pick({ label, value, versions, onChange }) {
  return html`<${C.Field.Root} width="auto" minW="12rem">
    <${C.Field.Label} fontSize="xs">${label}<//>
    <${C.NativeSelect.Root} size="sm">
      <${C.NativeSelect.Field} value=${value} onChange=${(e) => onChange(e.target.value)}>
        ${versions.map((v) => html`<option key=${v.version} value=${v.version}>v${v.version} · ${v.status}${v.verdict ? ` · ${v.verdict.replaceAll("_", " ")}` : ""}</option>`)}
      <//>
      <${C.NativeSelect.Indicator} />
    <//>
  <//>`;
}

/** The question that is asked most: the champion against what would follow it. */
function usual(versions) {
  const newest = versions[0];
  const champion = versions.find((v) => v.status === "champion");
  const challenger = versions.find((v) => v.status === "challenger");
  const b = challenger ?? (champion && newest.version < champion.version ? champion : newest);
  const a = champion && champion.version !== b.version ? champion : versions.find((v) => v.version !== b.version);
  return [a ?? newest, b];
}

function Both({ query, a, b }) {
  const read = useData(query("compare", { a, b }), () => 0);
  return html`<${Read} of=${read} what="the comparison" rows=${6}>
    ${(data) => html`<${C.Stack} gap=${4}>
      ${data.note && html`<${Small}>${data.note}<//>`}
      <${Metrics} data=${data} />
      <${Slices} data=${data} />
      <${FactTable} data=${data} />
      <${C.Grid} templateColumns="repeat(auto-fit, minmax(min(100%, 22rem), 1fr))" gap=${4}>
        <${Side} side=${data.a} /><${Side} side=${data.b} />
      <//>
    <//>`}
  <//>`;
}

export default function Compare({ query, params, go }) {
  const read = useData(query("versions"));
  return html`<${Read} of=${read} what="the versions" rows=${6}>
    ${({ versions }) => {
      if (versions.length < 2) {
        return html`<${Empty} title=${versions.length ? "There is only one version" : "There is no version yet"}>Two are needed to compare.<//>`;
      }
      const [a, b] = usual(versions);
      const asked = (name, otherwise) => {
        const n = Number(params.get(name));
        return versions.some((v) => v.version === n) ? n : otherwise.version;
      };
      const [left, right] = [asked("a", a), asked("b", b)];
      return html`<${C.Stack} gap=${4}>
        <${C.HStack} wrap="wrap" gap=${3} align="flex-end">
          <${Pick} label="Compare" value=${left} versions=${versions} onChange=${(v) => go({ a: v, b: String(right) })} />
          <${Pick} label="with" value=${right} versions=${versions} onChange=${(v) => go({ a: String(left), b: v })} />
          <${C.Button} size="sm" variant="ghost" onClick=${() => go({ a: String(right), b: String(left) })}>Swap<//>
        <//>
        <${Both} query=${query} a=${left} b=${right} />
      <//>`;
    }}
  <//>`;
}
