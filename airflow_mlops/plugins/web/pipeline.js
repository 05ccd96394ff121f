// One pipeline's story: a tab on each of its DAGs.
import { C, React, Router, html } from "./host.js";
import { ActionButton, Questions } from "./actions.js";
import { address, readAgain, useData } from "./api.js";
import { ChampionCell, CheckCell, CostCell, Level, Needs, NextCell, TrainingCell, TrendCell } from "./cells.js";
import Compare from "./compare.js";
import Drift from "./drift.js";
import Models from "./keys.js";
import Lineage from "./lineage.js";
import { Go, Small, Time, wholePath } from "./parts.js";
import Performance from "./performance.js";
import Reports from "./reports.js";
import { Empty, Read } from "./states.js";
import Timeline from "./timeline.js";

const SECTIONS = {
  models: ["Models", Models],
  timeline: ["Timeline", Timeline],
  compare: ["Compare", Compare],
  performance: ["Performance", Performance],
  drift: ["Drift", Drift],
  lineage: ["Lineage", Lineage],
  reports: ["Card & reports", Reports],
};
const ALONE = ["timeline", "compare", "performance", "drift", "lineage", "reports"];
const FLEET = ["models", "timeline", "performance", "drift", "reports"]; // of all keys together
const KEY = ["timeline", "compare", "lineage", "reports"]; // of one of them

function Tile({ name, children }) {
  return html`<${C.Box} minW=${0}>
    <${Small} as="dt" mb=${0.5}>${name}<//>
    <${C.Box} as="dd" fontSize="sm">${children}<//>
  <//>`;
}

function Standing({ row }) {
  return html`<${C.Box} as="dl" display=${{ base: "grid", sm: "flex" }} gridTemplateColumns="repeat(2, minmax(0, 1fr))" flexWrap="wrap" columnGap=${{ base: 3, sm: 9 }} rowGap=${3} mt=${4}>
    <${Tile} name="Champion"><${ChampionCell} row=${{ ...row, rollout: null }} /><//>
    ${row.challenger !== null && html`<${Tile} name="Challenger">v${row.challenger}<//>`}
    ${row.rollout &&
    html`<${Tile} name=${`Rollout of v${row.rollout.version}`}>${row.rollout.step}<${Small}>${row.rollout.path}<//><//>`}
    <${Tile} name="Last training"><${TrainingCell} row=${row} /><//>
    ${row.performance && html`<${Tile} name="Performance"><${TrendCell} trend=${row.performance} /><//>`}
    ${row.drift && html`<${Tile} name="Drift"><${CheckCell} check=${row.drift} /><//>`}
    ${row.quality && html`<${Tile} name="Data quality"><${CheckCell} check=${row.quality} /><//>`}
    ${row.skew && html`<${Tile} name="Feature skew"><${CheckCell} check=${row.skew} /><//>`}
    ${row.staleness && html`<${Tile} name="Age"><${CheckCell} check=${row.staleness} /><//>`}
    ${row.system && html`<${Tile} name="System"><${CheckCell} check=${row.system} /><//>`}
    <${Tile} name="Level"><${Level} row=${row} /><//>
    <${Tile} name="Next training"><${NextCell} row=${row} /><//>
    <${Tile} name="Cost this month"><${CostCell} cost=${row.cost} /><//>
  <//>`;
}

const DAG_NAMES = { train: "training", monitor: "monitoring", predict: "predictions", registry: "registry", experiment: "experiments" };

function Header({ data, reload, alone }) {
  const { row, actions } = data;
  // Why nothing can be pressed is said in words: a hint of a greyed button is for mice only.
  const barred = actions.find((action) => action.name === "retrain")?.why_not;
  return html`<${C.Box} as="header" borderWidth="1px" borderRadius="md" p=${4}>
    <${C.Flex} justify="space-between" align="flex-start" gap=${3} wrap="wrap">
      <${C.Box} minW=${0} flex="1 1 20rem">
        <${C.Heading} as="h1" size="lg" overflowWrap="anywhere">${row.pipeline}<//>
        <${Small}>${[row.owner, data.description].filter(Boolean).join(" · ")}<//>
        <${C.Box} mt=${2}><${Needs} attention=${row.attention} inline=${true} /><//>
        ${row.suppressed &&
        html`<${Small} mt=${1}>Last request for a training: ${row.suppressed.sentence} (<${Time} at=${row.suppressed.recorded} relative=${true} />)<//>`}
      <//>
      <${C.Box}>
        <${C.HStack} wrap="wrap" gap=${2} justify=${{ base: "flex-start", md: "flex-end" }}>
          ${actions.map(
            (action) => html`<${ActionButton} key=${action.name} action=${action} pipeline=${row.pipeline} returnsTo=${data.returns_to} onDone=${reload} />`,
          )}
        <//>
        ${barred && html`<${Small} mt=${1} textAlign=${{ base: "start", md: "end" }} maxW="22rem">${barred}<//>`}
      <//>
    <//>
    ${row.approvals.length > 0 && html`<${Questions} dagId=${row.approvals[0].dag_id} onDone=${reload} />`}
    <${Standing} row=${row} />
    <${C.Flex} gap=${4} mt=${4} wrap="wrap" fontSize="sm">
      ${alone ? html`<${Go} to="plugin/mlops">all pipelines<//>` : html`<${Go} to=${wholePath(row.pipeline)}>whole window<//>`}
      <${C.Text} as="span" color="fg.muted">DAGs:<//>
      ${Object.entries(row.dags).map(([suffix, dag]) => html`<${Go} key=${dag} to=${`dags/${encodeURIComponent(dag)}`}>${DAG_NAMES[suffix] ?? suffix}<//>`)}
    <//>
    ${data.advice.length > 0 &&
    html`<${C.Box} as="details" mt=${3} fontSize="xs" color="fg.muted">
      <${C.Box} as="summary" cursor="pointer">What would raise its level<//>
      <${C.Box} as="ul" ps=${4} listStyleType="disc">${data.advice.map((text) => html`<${Small} as="li" key=${text}>${text}<//>`)}<//>
    <//>`}
  <//>`;
}

function KeyChoice({ keys, value, onChange }) {
  if (keys.length === 0) return null;
  return html`<${C.NativeSelect.Root} size="sm" width="auto">
    <${C.NativeSelect.Field} aria-label="Model" value=${value ?? ""} onChange=${(e) => onChange(e.target.value || null)}>
      ${keys.map((key) => html`<option key=${key} value=${key}>${key}</option>`)}
    <//>
    <${C.NativeSelect.Indicator} />
  <//>`;
}

/** One key of a fleet has its own story; the way back to all of them. */
function OfKey({ name, onBack }) {
  return html`<${C.Flex} gap=${3} align="baseline" wrap="wrap" mt=${4}>
    <${C.Heading} as="h2" size="md" overflowWrap="anywhere">Model of ${name}<//>
    <${C.Button} size="xs" variant="outline" onClick=${onBack}>All models<//>
  <//>`;
}

/** The sections' names; where they are wider than the window, the chosen one is in sight. */
function Tabs({ names, section }) {
  const list = React.useRef(null);
  React.useEffect(() => {
    const tab = list.current?.querySelector("[aria-selected=true]");
    if (tab) list.current.scrollTo({ left: tab.offsetLeft - (list.current.clientWidth - tab.clientWidth) / 2 });
  }, [section]);
  return html`<${C.Tabs.List} ref=${list} overflowX="auto" flex="1" minW=${0}>
    ${names.map((name) => html`<${C.Tabs.Trigger} key=${name} value=${name} whiteSpace="nowrap" flexShrink=${0}>${SECTIONS[name][0]}<//>`)}
  <//>`;
}

const AT_WORK = ["queued", "running"];

/** How soon to look again, in ms: soon while something is under way. */
function pace({ row }) {
  if (!row.read) return 2_000;
  const busy = row.approvals.length > 0 || AT_WORK.includes(row.last_training_run?.state);
  return busy ? 5_000 : 30_000;
}

/** When versions, champion or questions have changed, the sections below have news too. */
function useNews(row) {
  const now = row && JSON.stringify([row.versions, row.champion?.version, row.approvals.length, row.last_training_run?.state]);
  const before = React.useRef(now);
  React.useEffect(() => {
    if (before.current !== undefined && before.current !== now) readAgain();
    before.current = now;
  }, [now]);
}

export default function Pipeline({ pipeline, alone = false }) {
  const root = `mlops/api/pipelines/${encodeURIComponent(pipeline)}`;
  const read = useData(pipeline && root, pace);
  useNews(read.data?.row);
  const [params, setParams] = Router.useSearchParams();
  const go = (more) =>
    setParams((old) => {
      const next = new URLSearchParams(old);
      for (const [name, value] of Object.entries(more)) value ? next.set(name, value) : next.delete(name);
      return next;
    }, { replace: true });
  if (!pipeline || read.problem?.status === 404) {
    return html`<${Empty} title=${alone ? "There is no such pipeline that you may see" : "This DAG is not part of an MLOps pipeline"}>
      Pipelines made from YAML files show their models here. The page <${Go} to="plugin/mlops">MLOps<//> lists all of them that you may see.
    <//>`;
  }
  return html`<${Read} of=${read} what="the pipeline" rows=${8}>
    ${(data) => {
      const { fleet } = data.row;
      const asked = params.get("key");
      const key = fleet ? asked : data.keys.length ? (data.keys.includes(asked) ? asked : data.keys[0]) : null;
      const names = !fleet ? ALONE : key === null ? FLEET : KEY;
      const section = names.includes(params.get("section")) ? params.get("section") : names[0];
      const query = (path, more = {}) => address(`${root}/${path}`, { key, ...more });
      return html`<${C.Box} maxW="1600px" mx="auto">
        <${Header} data=${data} reload=${readAgain} alone=${alone} />
        ${fleet && key !== null && html`<${OfKey} name=${key} onBack=${() => go({ key: "", section: "models" })} />`}
        <${C.Tabs.Root} value=${section} onValueChange=${(e) => go({ section: e.value })} mt=${4} lazyMount unmountOnExit>
          <${C.Flex} justify="space-between" align="flex-end" wrap="wrap" gap=${2}>
            <${Tabs} names=${names} section=${section} />
            <${KeyChoice} keys=${data.keys} value=${key} onChange=${(k) => go({ key: k })} />
          <//>
          ${names.map((name) => {
            const Section = SECTIONS[name][1];
            return html`<${C.Tabs.Content} key=${`${name} ${key}`} value=${name} data-testid=${`mlops-${name}`}>
              <${Section} root=${root} query=${query} go=${go} params=${params} />
            <//>`;
          })}
        <//>
      <//>`;
    }}
  <//>`;
}
