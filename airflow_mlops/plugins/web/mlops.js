// What Airflow loads: it takes the global of a page's name and draws it with the ids of where it stands.
//
// All modules are named here, also those that only others use: the browser then asks for them at once, not for one
// after the other. ECharts alone waits until a chart is shown.
import { C, React, Router, here, html } from "./host.js";
import { ahead } from "./api.js";
import "./actions.js";
import "./cells.js";
import "./chart.js";
import "./compare.js";
import "./drift.js";
import "./format.js";
import "./gates.js";
import "./keys.js";
import "./lineage.js";
import "./parts.js";
import "./performance.js";
import "./reports.js";
import "./search.js";
import "./spark.js";
import "./timeline.js";
import "./vendor/htm.js";
import Attention from "./attention.js";
import Fleet, { question } from "./fleet.js";
import Pipeline from "./pipeline.js";
import Run from "./run.js";
import { Guard, Loading } from "./states.js";

function Frame({ children }) {
  return html`<${Guard}>
    <${C.Box} height="100%" width="100%" overflowY="auto" p=${{ base: 3, md: 4 }} bg="bg" data-testid="mlops-page">
      ${children}
    <//>
  <//>`;
}

let settled = false;

/**
 * Whether to draw. With its first change of address Airflow draws a page anew that it has just loaded, which would take
 * the typed text, the focus or an open dialog with it: so the address changes once, to itself, before anything is drawn.
 */
function useSettled() {
  const [ready, setReady] = React.useState(settled);
  const navigate = Router.useNavigate();
  const { pathname, search, hash, state } = Router.useLocation();
  React.useEffect(() => {
    if (settled) return undefined;
    settled = true;
    navigate({ pathname, search, hash }, { replace: true, state });
    // The page that is drawn anew is ready at once, and asks for its data; this one goes on only if it is left alone.
    const timer = setTimeout(() => setReady(true), 200);
    return () => clearTimeout(timer);
  }, []);
  return ready;
}

/** The navigation entry, the tab of a DAG and the tab of a run: three places, told apart by what they are given. */
function MLOps({ dagId, runId }) {
  if (!useSettled()) return html`<${Frame}><${Loading} rows=${8} /><//>`;
  if (runId) return html`<${Frame}><${Run} key=${runId} dagId=${dagId} runId=${runId} /><//>`;
  if (dagId) return html`<${Frame}><${Pipeline} key=${dagId} pipeline=${pipelineOf(dagId)} /><//>`;
  return html`<${Whole} />`;
}

/** The pipeline of a DAG: what stands before the last "__". */
const pipelineOf = (dagId) => dagId.slice(0, Math.max(0, dagId.lastIndexOf("__")));

/**
 * Below the navigation entry: the fleet, or with the window to itself one pipeline (plugin/mlops/pipelines/NAME) or one
 * run (plugin/mlops/runs/DAG/RUN).
 */
function Whole() {
  const [kind, name, ...rest] = (Router.useParams()["*"] ?? "").split("/");
  const runId = rest.join("/");
  if (kind === "runs" && name && runId) {
    return html`<${Frame}><${Run} key=${`${name}/${runId}`} dagId=${name} runId=${runId} alone=${true} /><//>`;
  }
  if (kind !== "pipelines" || !name) return html`<${Frame}><${Fleet} /><//>`;
  return html`<${Frame}><${Pipeline} key=${name} pipeline=${name} alone=${true} /><//>`;
}

/** The card on Airflow's home. */
function AttentionCard() {
  return html`<${Guard}><${Attention} /><//>`;
}

// The fleet's rows come while Airflow draws the page around them.
if (location.pathname === here("plugin/mlops").pathname) ahead(question(new URLSearchParams(location.search)));

globalThis["MLOps"] = MLOps;
globalThis["MLOps attention"] = AttentionCard;
