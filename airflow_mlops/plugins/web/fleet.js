// Every pipeline that the user may see, the one that needs somebody first.
import { C, React, Router, html, usePhone } from "./host.js";
import { address, useData } from "./api.js";
import { count } from "./format.js";
import { ChampionCell, CheckCell, CostCell, Level, Needs, NextCell, TrainingCell, TrendCell, WaitingCell } from "./cells.js";
import { Cell, Chips, Facts, Go, Grid, Pager, Small, SortHead, wholePath } from "./parts.js";
import { SearchField } from "./search.js";
import { Empty, Read } from "./states.js";

const LIMIT = 25;
const SETTINGS = ["search", "attention", "level", "owner", "sort", "order", "offset"];

/** The question to our API, by what stands in the page's own address. */
export function question(params) {
  const settings = Object.fromEntries(SETTINGS.map((name) => [name, params.get(name) ?? ""]));
  return address("mlops/api/fleet", { ...settings, limit: LIMIT });
}

/** Search, filters, order and page stand in the address: "back" works, and a view can be sent to somebody. */
function useSettings() {
  const [params, setParams] = Router.useSearchParams();
  const settings = Object.fromEntries(SETTINGS.map((name) => [name, params.get(name) ?? ""]));
  const change = (more) =>
    setParams(
      (old) => {
        const next = new URLSearchParams(old);
        // Another search or order starts with its first page.
        for (const [name, value] of Object.entries({ offset: "", ...more })) {
          if (value === "" || value === null) next.delete(name);
          else next.set(name, String(value));
        }
        return next;
      },
      { replace: true },
    );
  return [settings, change, params];
}

function Choose({ label, value, options, all, onChange }) {
  if (options.length < 2 && !value) return null;
  return html`<${C.NativeSelect.Root} size="sm" width="auto">
    <${C.NativeSelect.Field} aria-label=${label} value=${value} onChange=${(e) => onChange(e.target.value)}>
      <option value="">${all}</option>
      ${options.map(([name, text]) => html`<option key=${name} value=${name}>${text}</option>`)}
    <//>
    <${C.NativeSelect.Indicator} />
  <//>`;
}

const Named = ({ row, to = row.link }) => html`<${C.Box} maxW=${{ base: "100%", md: "12rem" }}>
  <${Go} to=${to} fontWeight="medium" css=${{ overflowWrap: "break-word", display: "block" }}>${row.pipeline}<//>
  <${Small} overflowWrap="anywhere">${[row.owner, row.paused && "paused"].filter(Boolean).join(" · ")}<//>
<//>`;

/** In place of what the store says: it is on its way, or the store does not answer. */
const Unread = ({ lost }) =>
  lost ? html`<${Small}>not read<//>` : html`<${C.Skeleton} height="5" width="14" aria-label="Still being read" />`;

function Row({ row, lost }) {
  const of = (cell) => (row.read ? cell : html`<${Unread} lost=${lost} />`);
  return html`<${C.Table.Row} verticalAlign="top" data-pipeline=${row.pipeline}>
    <${Cell} minW="28"><${Named} row=${row} /><//>
    <${Cell} minW="60"><${Needs} attention=${row.attention} /><//>
    <${Cell}><${Level} row=${row} /><//>
    <${Cell}>${of(html`<${ChampionCell} row=${row} />`)}<//>
    <${Cell}>${of(html`<${TrainingCell} row=${row} />`)}<//>
    <${Cell}>${of(html`<${CheckCell} check=${row.drift} />`)}<//>
    <${Cell}>${of(html`<${TrendCell} trend=${row.performance} />`)}<//>
    <${Cell}><${NextCell} row=${row} /><//>
    <${Cell}><${WaitingCell} row=${row} /><//>
    <${Cell}>${of(html`<${CostCell} cost=${row.cost} />`)}<//>
  <//>`;
}

function Card({ row, lost }) {
  const rows = [
    ["Champion", row.read && html`<${ChampionCell} row=${row} />`],
    ["Last training", row.read && row.training && html`<${TrainingCell} row=${row} />`],
    ["Drift", row.drift && html`<${CheckCell} check=${row.drift} />`],
    ["Performance", row.performance && html`<${TrendCell} trend=${row.performance} />`],
    ["Next", html`<${NextCell} row=${row} />`],
    ["Waiting", (row.approvals.length > 0 || row.suppressed) && html`<${WaitingCell} row=${row} />`],
    ["Level", html`<${Level} row=${row} />`],
    ["Cost this month", row.cost && html`<${CostCell} cost=${row.cost} />`],
  ];
  return html`<${C.Box} as="li" borderWidth="1px" borderRadius="md" p=${3} data-pipeline=${row.pipeline}>
    <${Named} row=${row} to=${wholePath(row.pipeline)} />
    <${C.Box} my=${2}><${Needs} attention=${row.attention} /><//>
    ${row.read ? html`<${Facts} rows=${rows} />` : html`<${Unread} lost=${lost} />`}
  <//>`;
}

export default function Fleet() {
  const [settings, change, params] = useSettings();
  const phone = usePhone();
  const read = useData(question(params), (data) => (data.pending ? 2_000 : 30_000));
  // A new page is on its way: what is there stays, dimmed, instead of a flash of nothing.
  const last = React.useRef(null);
  if (read.data) last.current = read.data;
  const shown = { ...read, data: read.data ?? (read.problem ? null : last.current) };
  const sort = settings.sort || "attention";
  const order = settings.order || "asc";
  const head = { sort, order, onSort: (by, next) => change({ sort: by, order: next }) };
  const filtered = ["search", "attention", "level", "owner"].some((name) => settings[name]);
  return html`<${C.Box} maxW="1800px" mx="auto">
    <${C.Heading} as="h1" size="xl" mb=${3}>Machine learning<//>
    <${Read} of=${shown} what="the fleet" rows=${10}>
      ${(data) => {
        const { action, warning, unknown, ok } = data.counts;
        const total = action + warning + unknown + ok;
        if (total === 0 && !data.pending) {
          return html`<${Empty} title="There are no pipelines yet that you may see">
            A pipeline appears here with its first DAG: put a YAML file into the DAG folder. Pipelines of DAGs that you may
            not read are not shown.
          <//>`;
        }
        const chips = [
          ["", "All", total],
          ["action", "Needs action", action],
          ["warning", "Warning", warning],
          ...(unknown > 0 || settings.attention === "unknown" ? [["unknown", "Unknown", unknown]] : []),
          ["ok", "Fine", ok],
        ];
        return html`<${C.Box} opacity=${read.data ? 1 : 0.6} aria-busy=${!read.data}>
          <${C.Flex} gap=${3} wrap="wrap" align="center" mb=${3}>
            <${SearchField} label="Search pipelines" value=${settings.search} onChange=${(search) => change({ search })} />
            <${Chips} label="Attention" value=${settings.attention} options=${chips} onChange=${(attention) => change({ attention })} />
            <${Choose} label="Level" value=${settings.level} all="All levels" options=${data.levels.map((n) => [String(n), `Level ${n}`])} onChange=${(level) => change({ level })} />
            <${Choose} label="Owner" value=${settings.owner} all="All owners" options=${data.owners.map((o) => [o, o])} onChange=${(owner) => change({ owner })} />
            <${Small} ml="auto" role="status">
              ${filtered ? `${data.total} of ${count(total, "pipeline")}` : count(total, "pipeline")}
              ${data.pending > 0 && ` · ${data.pending} still being read`}
            <//>
          <//>
          ${data.rows.length === 0
            ? html`<${Empty} title="No pipeline matches">
                <${C.Button} size="xs" variant="outline" onClick=${() => change({ search: "", attention: "", level: "", owner: "" })}>Clear search and filters<//>
              <//>`
            : phone
              ? html`<${C.Stack} as="ul" gap=${3} listStyleType="none">${data.rows.map((row) => html`<${Card} key=${row.pipeline} row=${row} lost=${Boolean(data.store_problem)} />`)}<//>`
              : html`<${Grid} label="Pipelines" data-testid="mlops-fleet" heads=${html`<${React.Fragment}>
                  <${SortHead} by="pipeline" ...${head}>Pipeline<//>
                  <${SortHead} by="attention" ...${head}>Attention<//>
                  <${SortHead} by="level" ...${head}>Level<//>
                  <${SortHead} by="champion" first="desc" ...${head}>Champion<//>
                  <${SortHead} by="training" first="desc" ...${head}>Last training<//>
                  <${SortHead} by="drift" first="desc" ...${head}>Drift<//>
                  <${SortHead} by="performance" ...${head}>Performance<//>
                  <${SortHead} by="next_run" ...${head}>Next run<//>
                  <${SortHead} by="approvals" first="desc" ...${head}>Waiting<//>
                  <${SortHead} by="cost" first="desc" ...${head}>Cost<//>
                <//>`}>
                  ${data.rows.map((row) => html`<${Row} key=${row.pipeline} row=${row} lost=${Boolean(data.store_problem)} />`)}
                <//>`}
          <${Pager} total=${data.total} limit=${data.limit} offset=${data.offset} onOffset=${(offset) => change({ offset: offset || "" })} />
        <//>`;
      }}
    <//>
  <//>`;
}
