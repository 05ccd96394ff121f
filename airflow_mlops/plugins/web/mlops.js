// What Airflow loads: it takes the global of a page's name and draws it with the ids of where it stands.
import { C, React, Router, html } from "./host.js";
import { Guard, Loading } from "./states.js";

const Fleet = React.lazy(() => import("./fleet.js"));
const Pipeline = React.lazy(() => import("./pipeline.js"));
const Run = React.lazy(() => import("./run.js"));
const Attention = React.lazy(() => import("./attention.js"));

function Frame({ children }) {
  return html`<${Guard}>
    <${C.Box} height="100%" width="100%" overflowY="auto" p=${{ base: 3, md: 4 }} bg="bg" data-testid="mlops-page">
      <${React.Suspense} fallback=${html`<${Loading} />`}>${children}<//>
    <//>
  <//>`;
}

/** The navigation entry, the tab of a DAG and the tab of a run: three places, told apart by what they are given. */
function MLOps({ dagId, runId }) {
  if (runId) return html`<${Frame}><${Run} key=${runId} dagId=${dagId} runId=${runId} /><//>`;
  if (dagId) return html`<${Frame}><${Pipeline} key=${dagId} pipeline=${pipelineOf(dagId)} /><//>`;
  return html`<${Whole} />`;
}

/** The pipeline of a DAG: what stands before the last "__". */
const pipelineOf = (dagId) => dagId.slice(0, Math.max(0, dagId.lastIndexOf("__")));

/** Below the navigation entry: the fleet, or one pipeline with the window to itself (plugin/mlops/pipelines/NAME). */
function Whole() {
  const [kind, name] = (Router.useParams()["*"] ?? "").split("/");
  if (kind !== "pipelines" || !name) return html`<${Frame}><${Fleet} /><//>`;
  return html`<${Frame}><${Pipeline} key=${name} pipeline=${name} alone=${true} /><//>`;
}

/** The card on Airflow's home. */
function AttentionCard() {
  return html`<${Guard}>
    <${React.Suspense} fallback=${html`<${C.Box} order=${3}><${Loading} rows=${3} /><//>`}><${Attention} /><//>
  <//>`;
}

globalThis["MLOps"] = MLOps;
globalThis["MLOps attention"] = AttentionCard;
