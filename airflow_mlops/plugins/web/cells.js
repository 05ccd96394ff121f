// How one property of a pipeline is shown; the fleet's table, its cards and the pipeline's head all use these.
import { C, React, html } from "./host.js";
import { effort, number, sentence } from "./format.js";
import { AttentionWord, Go, Small, Time, Word, useWords } from "./parts.js";
import { Spark } from "./spark.js";

const none = html`<${C.Text} as="span" color="fg.muted">–<//>`;

export function Needs({ attention, inline = false }) {
  const words = useWords();
  return html`<${C.Flex} direction=${inline ? "row" : "column"} align=${inline ? "baseline" : "flex-start"} gap=${inline ? 3 : 1} wrap=${inline ? "wrap" : "nowrap"}>
  <${AttentionWord} level=${attention.level} />
  <${Go} to=${attention.link} color="fg" fontSize="sm" flex=${inline ? "1 1 16rem" : undefined} title=${attention.reason}>
    <${C.Text} as="span" overflowWrap="anywhere" lineClamp=${3}>${words(sentence(attention.reason))}<//>
  <//>
<//>`;
}

export function Level({ row }) {
  if (row.level === null) return none;
  // Below what is configured, and the runs of 30 days say so: somebody may believe in a check that never ran.
  const behind = row.read && (row.exercised ?? -1) < row.level;
  const used = row.exercised === null ? "not exercised" : `exercised ${row.exercised}`;
  return html`<${C.Box} title=${row.read ? `Level ${row.level} is configured; ${used} by runs of the last 30 days` : undefined}>
    <${C.Text} as="span">${row.level}<//>
    ${row.read && html`<${Small} color=${behind ? "fg.warning" : "fg.muted"} whiteSpace="nowrap">${used}<//>`}
  <//>`;
}

export function ChampionCell({ row }) {
  if (row.fleet || row.models > 1) {
    return html`<${C.Box}>${number(row.champions)} of ${number(row.models)}<${Small}>models<//><//>`;
  }
  return html`<${C.Box}>
    ${row.champion
      ? html`<${React.Fragment}>v${row.champion.version}<${Small}><${Time} at=${row.champion.promoted_at} relative=${true} /><//><//>`
      : none}
    ${row.rollout && html`<${Word} tone="info" title=${row.rollout.path}>${`v${row.rollout.version} ${row.rollout.step}`}<//>`}
  <//>`;
}

const OUTCOME = { passed: "passed", rejected: "rejected", inconclusive: "inconclusive", no_baseline: "no baseline" };

export function TrainingCell({ row }) {
  const t = row.training;
  if (!t) {
    const run = row.last_training_run;
    return run ? html`<${C.Box}><${Go} to=${run.link}>${run.state}<//><${Small}><${Time} at=${run.started_at} relative=${true} /><//><//>` : none;
  }
  return html`<${C.Box} title=${t.sentence}>
    <${Word} tone=${t.tone}>${t.verdict ? (OUTCOME[t.verdict] ?? t.verdict) : "not judged"}<//>
    <${Small}><${Go} to=${t.link} color="fg.muted"><span>${t.version !== null && `v${t.version}, `}<${Time} at=${t.at} relative=${true} /></span><//><//>
  <//>`;
}

export function CheckCell({ check }) {
  if (!check) return none;
  return html`<${C.Box} title=${check.sentence}>
    ${check.report
      ? html`<${Go} to=${check.report}><${Word} tone=${check.tone}>${check.verdict}<//><//>`
      : html`<${Word} tone=${check.tone}>${check.verdict}<//>`}
    <${Small}><${Time} at=${check.at ?? check.window.end} relative=${true} /><//>
  <//>`;
}

export function TrendCell({ trend }) {
  if (!trend) return none;
  const colour = { bad: "fg.error", warning: "fg.warning" }[trend.tone];
  return html`<${C.Flex} columnGap=${2} wrap=${{ base: "wrap", md: "nowrap" }} align="center" title=${trend.sentence}>
    <${Spark} values=${trend.points.map((p) => p.value)} label=${trend.metric} colour=${colour} />
    <${C.Box}>
      <${C.Text} color=${colour} fontVariantNumeric="tabular-nums">${number(trend.value)}<//>
      <${Small} maxW="10rem" overflowWrap="break-word">${trend.metric}<//>
    <//>
  <//>`;
}

export function NextCell({ row }) {
  if (row.paused) return html`<${C.Text} color="fg.muted">paused<//>`;
  const on = row.events && html`<${Small} maxW="9rem">${row.next_run ? "or on" : "on"} ${row.events}<//>`;
  if (row.next_run) return html`<${C.Box} title=${row.schedule ?? undefined}><${Time} at=${row.next_run} relative=${true} />${on}<//>`;
  return on || html`<${Small} maxW="9rem">${row.schedule ?? "by hand"}<//>`;
}

export function WaitingCell({ row }) {
  const open = row.approvals.length;
  if (!open && !row.suppressed) return none;
  return html`<${C.Flex} direction="column" align="flex-start" gap=${1}>
    ${open > 0 && html`<${Go} to=${row.approvals[0].link}><${Word} tone="warning">${open === 1 ? "1 approval" : `${open} approvals`}<//><//>`}
    ${row.suppressed && html`<${Word} tone="unknown" title=${row.suppressed.sentence}>suppressed<//>`}
  <//>`;
}

export function CostCell({ cost }) {
  if (!cost) return none;
  const cpu = effort(cost.cpu_seconds);
  return html`<${C.Box} title=${`${cost.month}: ${cpu} of CPU time, ${effort(cost.wall_seconds)} of wall time`} whiteSpace="nowrap">
    ${cost.money.length ? cost.money.join(", ") : cpu}${cost.money.length > 0 && html`<${Small}>${cpu} CPU<//>`}
  <//>`;
}
