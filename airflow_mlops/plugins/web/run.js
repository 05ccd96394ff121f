// What one run decided: on which data, against whom, why, and what would change it.
import { C, html } from "./host.js";
import { Questions } from "./actions.js";
import { address, readAgain, useData } from "./api.js";
import { Gates } from "./gates.js";
import { KeysOfRun } from "./keys.js";
import { Facts, Go, Panel, Small, Span, Time, Word, dagPath, runPath, useWords, wholePath, wholeRunPath } from "./parts.js";
import { ReportList } from "./reports.js";
import { Empty, Read } from "./states.js";
import { Events } from "./timeline.js";

const STATUS = { ok: "success", warning: "warning", bad: "error", info: "info", unknown: "neutral" };
const LIVE = ["queued", "running"];

function Checks({ checks }) {
  const words = useWords();
  return html`<${Panel} title="Checks">
    <${C.Box} as="ul" listStyleType="none">
      ${checks.map(
        (check, i) => html`<${C.Grid} as="li" key=${check.name} templateColumns=${{ base: "minmax(0, 1fr)", sm: "8rem minmax(0, 1fr)" }} gap=${2} py=${1.5} borderTopWidth=${i ? "1px" : 0}>
          <${C.Box}><${C.Text} fontSize="sm" fontWeight="medium">${check.name}<//><${Word} tone=${check.tone}>${check.verdict}<//><//>
          <${C.Box} minW=${0}>
            <${C.Text} fontSize="sm" overflowWrap="anywhere">${words(check.sentence)}<//>
            <${Small}>${check.version !== null && `v${check.version} `}${check.report && html`<${Go} to=${check.report}>report<//>`}<//>
          <//>
        <//>`,
      )}
    <//>
  <//>`;
}

function About({ run, alone, dagId, runId }) {
  const rows = [
    ["Pipeline", html`<${Go} to=${`${dagPath(`${run.pipeline}__train`)}/plugin/mlops-pipeline`}>${run.pipeline}<//>`],
    ["State", run.state],
    ["Data", run.window && html`<${Span} window=${run.window} />`],
    ["Started", run.started_at && html`<${Time} at=${run.started_at} />`],
    ["Ended", run.ended_at && html`<${Time} at=${run.ended_at} />`],
    ["Because of", run.start],
    ["Candidate", run.version !== null && `v${run.version}`],
    ["Against", run.against !== null && `v${run.against}, the champion then`],
    ["Replay", run.replay && "of the past"],
    ["See", alone
      ? html`<${Go} to=${runPath(dagId, runId)}>its tasks and logs<//>`
      : html`<${Go} to=${wholeRunPath(dagId, runId)}>whole window<//>`],
    ["Rehearsal", run.rehearsal && "nothing is promoted, no budget is spent"],
  ];
  return html`<${Panel} title="This run"><${Facts} rows=${rows} /><//>`;
}

export default function Run({ dagId, runId, alone = false }) {
  const path = address(`mlops/api/runs/${encodeURIComponent(dagId)}`, { run_id: runId });
  const words = useWords();
  const read = useData(path, (run) => (LIVE.includes(run.state) ? 4_000 : 60_000));
  if (read.problem?.status === 404) {
    return html`<${Empty} title="This run says nothing about a model">
      Runs of pipelines made from YAML files show here what they decided. (${read.problem.message})
    <//>`;
  }
  return html`<${Read} of=${read} what="the run" rows=${8}>
    ${(run) => html`<${C.Stack} gap=${4} maxW="1400px" mx="auto">
      ${alone && html`<${C.Heading} as="h1" size="lg" overflowWrap="anywhere">Run of ${dagId}<${Small} fontWeight="normal">${runId}<//><//>`}
      <${C.Alert.Root} status=${STATUS[run.tone]} role="status" data-testid="mlops-verdict">
        <${C.Alert.Indicator} />
        <${C.Alert.Content}>
          <${C.Alert.Title} fontSize="md">${words(run.title)}<//>
          ${run.sentence && html`<${C.Alert.Description} overflowWrap="anywhere">${words(run.sentence)}<//>`}
        <//>
      <//>
      ${run.approvals.length > 0 && html`<${Questions} dagId=${dagId} runId=${runId} onDone=${readAgain} />`}
      ${run.changes.length > 0 &&
      html`<${Panel} title="What would change the verdict">
        <${C.Box} as="ul" ps=${4} fontSize="sm" listStyleType="disc">${run.changes.map((text) => html`<${C.Box} as="li" key=${text} overflowWrap="anywhere">${words(text)}<//>`)}<//>
      <//>`}
      <${C.Box} columnGap=${4} css=${{ columnWidth: "24rem", "& > *": { breakInside: "avoid", marginBottom: "1rem" } }}>
        ${run.gates.length > 0 && html`<${Panel} title="Gates"><${Gates} gates=${run.gates} /><//>`}
        ${run.checks.length > 0 && html`<${Checks} checks=${run.checks} />`}
        <${About} run=${run} alone=${alone} dagId=${dagId} runId=${runId} />
        ${run.sections.map(
          (s) => html`<${Panel} key=${s.title} title=${s.title}><${Facts} rows=${s.facts.map((f) => [f.name, words(f.value)])} /><//>`,
        )}
      <//>
      ${run.fleet &&
      html`<${Panel} title="Keys">
        <${KeysOfRun} pipeline=${run.pipeline} runId=${runId} linkOf=${(row) => row.version && `${wholePath(run.pipeline)}?${new URLSearchParams({ key: row.key })}`} />
      <//>`}
      ${run.reports.length > 0 && html`<${Panel} title="Reports"><${ReportList} reports=${run.reports} /><//>`}
      ${run.events.length > 0 && html`<${Panel} title="What it wrote"><${Events} events=${run.events} /><//>`}
    <//>`}
  <//>`;
}
