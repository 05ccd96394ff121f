// The keys of a fleet: what serves each, what the training came to for it, and how a metric is spread over all of them.
import { C, React, html, usePhone } from "./host.js";
import { address, useData } from "./api.js";
import { Chart, axis, tip } from "./chart.js";
import { NONE, count, number } from "./format.js";
import { Cell, ChartOrTable, Chips, Facts, Go, Grid, Head, Pager, Panel, Small, SortHead, Time, Word } from "./parts.js";
import { SearchField } from "./search.js";
import { Empty, Read } from "./states.js";

const LIMIT = 25;
export const VIEW = ["search", "state", "alarmed", "sort", "order", "offset"];

const version = (n) => (n === null ? NONE : `v${n}`);

function Scores({ row, name }) {
  const before = row.champion_metrics[name];
  return html`<${React.Fragment}>
    ${number(row.metrics[name])}
    ${before !== undefined && html`<${Small}>champion ${number(before)}<//>`}
  <//>`;
}

const State = ({ row, words }) => html`<${React.Fragment}>
  <${Word} tone=${row.tone}>${words.get(row.state) ?? row.state}<//>
  <${Small} mt=${0.5} overflowWrap="anywhere">${row.reason}<//>
  ${row.decided_in && html`<${Small} mt=${0.5} overflowWrap="anywhere">Last trained in ${row.decided_in}<//>`}
  ${row.alarms && html`<${Small} mt=${0.5} color="fg.warning" overflowWrap="anywhere">Alarm: ${row.alarms}<//>`}
<//>`;

const rowsText = (row) => (row.train_rows === null ? NONE : `${number(row.train_rows)} + ${number(row.holdout_rows)}`);
const serves = (row) => (row.served_by !== null ? html`<${Small}>by ${row.served_by}<//>` : version(row.serving));

function Rows({ data, words, now, linkOf, head }) {
  const numeric = { fontVariantNumeric: "tabular-nums", whiteSpace: "nowrap" };
  const heads = html`<${React.Fragment}>
    <${SortHead} by="key" ...${head}>Key<//>
    <${SortHead} by="state" ...${head}>Outcome<//>
    ${now && html`<${SortHead} by="serving" first="desc" ...${head}>Champion<//>`}
    <${SortHead} by="version" first="desc" ...${head}>Candidate<//>
    ${data.metrics.map((name) => html`<${SortHead} key=${name} by=${`metric:${name}`} ...${head}>${name}<//>`)}
    <${SortHead} by="p_value" ...${head}>p<//>
    <${SortHead} by="train_rows" first="desc" ...${head}>Rows<//>
  <//>`;
  return html`<${Grid} label="Keys" data-testid="mlops-keys" heads=${heads}>
    ${data.rows.map(
      (row) => html`<${C.Table.Row} key=${row.key} verticalAlign="top" data-key=${row.key}>
        <${Cell} maxW="16rem" overflowWrap="anywhere"><${Go} to=${linkOf(row)} fontWeight="medium">${row.key}<//><//>
        <${Cell} minW="14rem"><${State} row=${row} words=${words} /><//>
        ${now && html`<${Cell} ...${numeric}>${serves(row)}<//>`}
        <${Cell} ...${numeric}>${version(row.version)}${row.champion !== null && html`<${Small}>against v${row.champion}<//>`}<//>
        ${data.metrics.map((name) => html`<${Cell} key=${name} ...${numeric}><${Scores} row=${row} name=${name} /><//>`)}
        <${Cell} ...${numeric}>${number(row.p_value, 2)}<//>
        <${Cell} ...${numeric}>${rowsText(row)}<//>
      <//>`,
    )}
  <//>`;
}

function Cards({ data, words, now, linkOf }) {
  return html`<${C.Stack} as="ul" gap=${3} listStyleType="none">
    ${data.rows.map(
      (row) => html`<${C.Box} as="li" key=${row.key} borderWidth="1px" borderRadius="md" p=${3} data-key=${row.key}>
        <${C.Box} mb=${2} overflowWrap="anywhere"><${Go} to=${linkOf(row)} fontWeight="medium">${row.key}<//><//>
        <${State} row=${row} words=${words} />
        <${Facts} mt=${2} rows=${[
          ["Champion", now && serves(row)],
          ["Candidate", row.version !== null && version(row.version)],
          ...data.metrics.map((name) => [name, row.metrics[name] !== undefined && html`<${Scores} row=${row} name=${name} />`]),
          ["Rows", row.train_rows !== null && rowsText(row)],
        ]} />
      <//>`,
    )}
  <//>`;
}

/** How many keys have which value; who reads the table reads the same. */
function Spread({ spread, side }) {
  const { metric, edges, tally } = spread;
  const option = React.useCallback(
    (paint) => ({
      grid: { left: 8, right: 16, top: 12, bottom: 8, containLabel: true },
      xAxis: axis(paint, { type: "category", data: tally.map((_, i) => number(edges[i])), splitLine: { show: false } }),
      yAxis: axis(paint, { type: "value", minInterval: 1 }),
      tooltip: {
        ...{ confine: true, backgroundColor: paint.panel, borderColor: paint.line, textStyle: { color: paint.text, fontSize: 12 } },
        trigger: "axis",
        formatter: ([{ dataIndex: i }]) => tip(`${metric} ${number(edges[i])} to ${number(edges[i + 1])}`, count(tally[i], "key")),
      },
      series: [{ type: "bar", data: tally, color: paint.main, barCategoryGap: "8%" }],
    }),
    [metric, edges, tally],
  );
  const table = {
    heads: [metric, "Keys"],
    rows: tally.map((n, i) => [`${number(edges[i])} to ${number(edges[i + 1])}`, number(n)]),
  };
  const label = `${metric} of ${spread.keys} keys: half of them between ${number(spread.low)} and ${number(spread.high)}`;
  return html`<${Panel} title=${`How ${metric} is spread over the keys`} side=${side}>
    <${ChartOrTable} label=${`Keys by ${metric}`} table=${table}><${Chart} option=${option} height=${180} label=${label} /><//>
    <${Small}>
      Half of ${count(spread.keys, "key")} lie between ${number(spread.low)} and ${number(spread.high)}, the middle one is
      ${" "}${number(spread.middle)}. The outermost bars hold what lies beyond them, too.
    <//>
  <//>`;
}

function Spreads({ spreads }) {
  const [chosen, setChosen] = React.useState(null);
  const shown = spreads.find((s) => s.metric === chosen) ?? spreads[0];
  if (!shown) return null;
  const side = spreads.length > 1 && html`<${Chips} label="Metric" value=${shown.metric} options=${spreads.map((s) => [s.metric, s.metric])} onChange=${setChosen} />`;
  return html`<${Spread} key=${shown.metric} spread=${shown} side=${side} />`;
}

function Training({ training }) {
  return html`<${C.Box} mb=${3}>
    <${C.Text} fontSize="md" fontWeight="medium" data-testid="mlops-fleet-training">${training.sentence}<//>
    <${Small}>
      <${Go} to=${training.link}>The newest training<//>, <${Time} at=${training.at} />
      ${training.tests > 0 && `; ${count(training.tests, "key")} were compared with their champion, and p had to be at most ${number(training.limit, 2)}`}
      ${training.report && html`; <${Go} to=${training.report}>report<//>`}
    <//>
  <//>`;
}

/**
 * The table. `root` is the pipeline's address in our API, `runId` tells one training alone; `view` and `change` are what
 * is searched and sorted for; `linkOf` says where a key's own story is.
 */
export function Keys({ root, runId = null, view, change, linkOf }) {
  const phone = usePhone();
  const read = useData(address(`${root}/keys`, { ...view, run_id: runId, limit: LIMIT }), () => (runId ? 0 : 60_000));
  // A new page is on its way: what is there stays, dimmed.
  const last = React.useRef(null);
  if (read.data) last.current = read.data;
  const shown = { ...read, data: read.data ?? (read.problem ? null : last.current) };
  const sort = view.sort || "key";
  const order = view.order || "asc";
  const head = { sort, order, onSort: (by, next) => change({ sort: by, order: next }) };
  return html`<${Read} of=${shown} what="the keys" rows=${8}>
    ${(data) => {
      const all = data.states.reduce((sum, s) => sum + s.keys, 0);
      const words = new Map(data.states.map((s) => [s.state, s.words]));
      const chips = [["", "All", number(all)], ...data.states.map((s) => [s.state, s.words, number(s.keys)])];
      const parts = { data, words, linkOf, now: runId === null };
      return html`<${C.Box} opacity=${read.data ? 1 : 0.6} aria-busy=${!read.data}>
        ${runId === null && data.training && html`<${Training} training=${data.training} />`}
        <${C.Flex} gap=${3} wrap="wrap" align="center" mb=${3}>
          <${SearchField} label="Search keys and reasons" value=${view.search} onChange=${(search) => change({ search })} />
          <${Chips} label="Outcome" value=${view.state} options=${chips} onChange=${(state) => change({ state })} />
          ${(data.alarmed > 0 || view.alarmed) &&
          html`<${C.Button} size="xs" borderRadius="full" aria-pressed=${Boolean(view.alarmed)} variant=${view.alarmed ? "solid" : "outline"}
            onClick=${() => change({ alarmed: view.alarmed ? "" : "true" })}>
            with an alarm<${C.Text} as="span" opacity=${0.75}>${number(data.alarmed)}<//>
          <//>`}
          <${Small} ml="auto" role="status">${data.total === all ? count(all, "key") : `${number(data.total)} of ${count(all, "key")}`}<//>
        <//>
        ${data.rows.length === 0
          ? html`<${Empty} title=${all ? "No key matches" : "There is no key yet"}>
              ${all > 0 && html`<${C.Button} size="xs" variant="outline" onClick=${() => change({ search: "", state: "", alarmed: "" })}>Clear search and filter<//>`}
            <//>`
          : phone
            ? html`<${Cards} ...${parts} />`
            : html`<${Rows} ...${parts} head=${head} />`}
        <${Pager} total=${data.total} limit=${data.limit} offset=${data.offset} onOffset=${(offset) => change({ offset: offset || "" })} />
        ${data.spreads.length > 0 && html`<${C.Box} mt=${4}><${Spreads} spreads=${data.spreads} /><//>`}
      <//>`;
    }}
  <//>`;
}

/** The section of a pipeline's page; what is searched for stands in the address. */
export default function Models({ root, params, go }) {
  const view = Object.fromEntries(VIEW.map((name) => [name, params.get(name) ?? ""]));
  const linkOf = (row) => (row.versions ? `?${new URLSearchParams({ key: row.key })}` : null);
  return html`<${Keys} root=${root} view=${view} change=${(more) => go({ offset: "", ...more })} linkOf=${linkOf} />`;
}

/** What one training came to for each key; searched and sorted in place. */
export function KeysOfRun({ pipeline, runId, linkOf }) {
  const [view, setView] = React.useState(Object.fromEntries(VIEW.map((name) => [name, ""])));
  const change = (more) => setView((old) => ({ ...old, offset: "", ...more }));
  const root = `mlops/api/pipelines/${encodeURIComponent(pipeline)}`;
  return html`<${Keys} root=${root} runId=${runId} view=${view} change=${change} linkOf=${linkOf} />`;
}
