// What a person can do from these pages. Each action is one request to Airflow's own REST API as the signed-in
// user: Airflow's permissions decide, and its audit log remembers. Our API writes nothing.
import { C, React, html } from "./host.js";
import { get, patch, post, useData } from "./api.js";
import { Go, Small, Time, runPath } from "./parts.js";
import { Failed, Notice } from "./states.js";

const REFUSED = { 403: "You may not do this", 404: "It is not there any more", 409: "Somebody has done it already" };

/** An action that Airflow refused. */
function Refused({ problem }) {
  const title = REFUSED[problem.status];
  if (!title) return html`<${Failed} problem=${problem} what="The answer" />`;
  return html`<${Notice} status="warning" title=${title}>${problem.message}<//>`;
}

const part = encodeURIComponent;
const runsOf = (dag) => `api/v2/dags/${part(dag)}/dagRuns`;
const DONE = ["success", "failed"];

/** Asks before it acts, shows that it works on it, and what came of it. `act` returns what `children` draws. */
function Ask({ open, onClose, title, verb, danger = false, ready = true, act, children, after }) {
  const [state, setState] = React.useState({ busy: false, problem: null, done: null });
  React.useEffect(() => {
    if (open) setState({ busy: false, problem: null, done: null });
  }, [open]);
  const go = async () => {
    setState({ busy: true, problem: null, done: null });
    try {
      setState({ busy: false, problem: null, done: await act() });
    } catch (problem) {
      setState({ busy: false, problem, done: null });
    }
  };
  return html`<${C.Dialog.Root} open=${open} onOpenChange=${(e) => !e.open && !state.busy && onClose(state.done)} size="md" placement="center">
    <${C.Portal}>
      <${C.Dialog.Backdrop} />
      <${C.Dialog.Positioner}>
        <${C.Dialog.Content} m=${2}>
          <${C.Dialog.Header}><${C.Dialog.Title}>${title}<//><//>
          <${C.Dialog.Body}>
            ${state.done === null && children}
            ${state.problem && html`<${Refused} problem=${state.problem} />`}
            ${state.done !== null && after(state.done)}
          <//>
          <${C.Dialog.Footer}>
            <${C.Button} variant="outline" disabled=${state.busy} onClick=${() => onClose(state.done)}>
              ${state.done === null ? "Cancel" : "Close"}
            <//>
            ${state.done === null &&
            html`<${C.Button} colorPalette=${danger ? "red" : "brand"} loading=${state.busy} disabled=${!ready} onClick=${go}>${verb}<//>`}
          <//>
        <//>
      <//>
    <//>
  <//>`;
}

/** Follows a run that was started until it ends. */
function Started({ dag, run }) {
  const read = useData(`${runsOf(dag)}/${part(run)}`, (data) => (DONE.includes(data.state) ? 0 : 2_000));
  const state = read.data?.state ?? "queued";
  const status = { success: "success", failed: "error" }[state] ?? "info";
  return html`<${Notice} status=${status} title=${`Run ${state}`}>
    <${Go} to=${runPath(dag, run)}>${run}<//>
  <//>`;
}

async function trigger(dag, conf) {
  const run = await post(runsOf(dag), { logical_date: null, conf });
  const model = await get(`api/v2/dags/${part(dag)}`).catch(() => null);
  return { dag, run: run.dag_run_id, paused: model?.is_paused ?? false };
}

const afterRun = (done) => html`<${React.Fragment}>
  <${Started} dag=${done.dag} run=${done.run} />
  ${done.paused && html`<${Notice} status="warning" title="The DAG is paused">The run starts when somebody switches ${done.dag} on.<//>`}
<//>`;

const FIELDS = {
  reason: { label: "Reason", help: "Why; it is kept, with your name." },
  window_start: { label: "Window from", help: "First moment of the data to train on, UTC. Empty: the usual window.", type: "datetime-local" },
  window_end: { label: "Window to", help: "The moment after the last, UTC.", type: "datetime-local" },
};

function Asked({ name, value, onChange, required }) {
  const { label, help, type } = FIELDS[name] ?? { label: name };
  const Input = type ? C.Input : C.Textarea;
  return html`<${C.Field.Root} required=${required} mt=${3}>
    <${C.Field.Label}>${label}<${C.Field.RequiredIndicator} /><//>
    <${Input} type=${type} rows=${type ? undefined : 2} value=${value ?? ""} onChange=${(e) => onChange(e.target.value)} />
    ${help && html`<${C.Field.HelperText}>${help}<//>`}
  <//>`;
}

/** What an action is called and what it does, in words. */
function told(name, pipeline, conf, returnsTo) {
  const now = conf.expected ? `v${conf.expected}` : "the champion";
  return {
    retrain: {
      label: "Train now",
      title: `Train ${pipeline} now?`,
      words: "This starts a run of the training DAG. Its gates decide what becomes of the candidate, as always.",
    },
    rollback: {
      label: "Roll back",
      title: `Roll ${pipeline} back?`,
      words: `${returnsTo ? `v${returnsTo}` : "The champion before"} serves again instead of ${now}. If ${now} is no longer the champion by then, the run refuses.`,
      danger: true,
    },
    promote: {
      label: conf.version ? `Promote v${conf.version}` : "Promote",
      title: `Make ${conf.version ? `v${conf.version}` : "this version"} of ${pipeline} the champion?`,
      words: `It serves from then on instead of ${now}, whatever its gates said.`,
      danger: true,
    },
    abort: {
      label: "End the rollout",
      title: `End the rollout of ${conf.version ? `v${conf.version}` : "this version"}?`,
      words: `${now === "the champion" ? "The champion" : now} goes on to serve alone.`,
      danger: true,
    },
  }[name];
}

const isWindow = (name) => name.startsWith("window_");
const asUtc = (text) => `${text}${text.length === 16 ? ":00" : ""}Z`;

/** One action of a pipeline as our API describes it: a button, a question, a run that is followed. */
export function ActionButton({ action, pipeline, returnsTo, onDone, ...more }) {
  const [open, setOpen] = React.useState(false);
  const [given, setGiven] = React.useState({});
  const { label, title, words, danger = false } = told(action.name, pipeline, action.conf, returnsTo);
  // Training may be started without a word; a change of the registry has to say why. Both ends of a window, or none.
  const required = (name) => name === "reason" && action.name !== "retrain";
  const filled = (name) => Boolean(given[name]?.trim());
  const windows = action.asks.filter(isWindow);
  const ready = action.asks.every((name) => !required(name) || filled(name)) && new Set(windows.map(filled)).size < 2;
  const act = () => {
    const conf = { ...action.conf };
    for (const name of action.asks.filter(filled)) conf[name] = isWindow(name) ? asUtc(given[name]) : given[name].trim();
    return trigger(action.dag_id, conf);
  };
  const close = (done) => {
    setOpen(false);
    setGiven({});
    if (done) onDone?.();
  };
  return html`<${React.Fragment}>
    <${C.Button} size="sm" variant=${danger ? "outline" : "solid"} disabled=${!action.allowed} title=${action.why_not ?? undefined}
      onClick=${() => setOpen(true)} ...${more}>${label}<//>
    <${Ask} open=${open} onClose=${close} title=${title} verb=${label} danger=${danger} ready=${ready} act=${act} after=${afterRun}>
      <${C.Text}>${words}<//>
      ${action.asks.map(
        (name) => html`<${Asked} key=${name} name=${name} required=${required(name)} value=${given[name]}
          onChange=${(value) => setGiven((old) => ({ ...old, [name]: value }))} />`,
      )}
    <//>
  <//>`;
}

const hitlPath = (ti) =>
  `${runsOf(ti.dag_id)}/${part(ti.dag_run_id)}/taskInstances/${part(ti.task_id)}/${ti.map_index}/hitlDetails`;

/** One open question of a run with its options as buttons. */
function Question({ detail, onDone }) {
  const [choice, setChoice] = React.useState(null);
  const ti = detail.task_instance;
  const act = () => patch(hitlPath(ti), { chosen_options: [choice], params_input: {} });
  const close = (done) => {
    setChoice(null);
    if (done) onDone?.();
  };
  const after = (done) => html`<${Notice} status="success" title=${`Answered: ${done.chosen_options.join(", ")}`}>
    by ${done.responded_by?.name ?? "you"}. The run goes on: <${Go} to=${runPath(ti.dag_id, ti.dag_run_id)}>${ti.dag_run_id}<//>
  <//>`;
  return html`<${C.Alert.Root} status="warning" my=${2} data-testid="mlops-question">
    <${C.Alert.Indicator} />
    <${C.Alert.Content} minW=${0}>
      <${C.Alert.Title}>${detail.subject}<//>
      <${C.Alert.Description}>
        <${Small}>Asked <${Time} at=${detail.created_at} relative=${true} /> by ${ti.task_id} of run${" "}
          <${Go} to=${runPath(ti.dag_id, ti.dag_run_id)}>${ti.dag_run_id}<//>
        <//>
        ${detail.assigned_users?.length > 0 && html`<${Small}>May be answered by ${detail.assigned_users.map((u) => u.name).join(", ")}<//>`}
        ${detail.body && html`<${C.Box} as="details" mt=${1}><summary>What was decided until now</summary>
          <${C.Text} whiteSpace="pre-wrap" overflowWrap="anywhere" fontSize="sm" maxH="20rem" overflowY="auto" mt=${1}>${detail.body}<//>
        <//>`}
        <${C.HStack} mt=${2} wrap="wrap">
          ${detail.options.map(
            (option) => html`<${C.Button} key=${option} size="sm" variant="surface" colorPalette=${option === "Approve" ? "green" : "gray"}
              onClick=${() => setChoice(option)}>${option}<//>`,
          )}
        <//>
      <//>
    <//>
    <${Ask} open=${choice !== null} onClose=${close} title=${`${choice}?`} verb=${choice} danger=${choice === "Reject"} act=${act} after=${after}>
      <${C.Text}>${detail.subject}<//>
      <${Small} mt=${2}>Your answer goes to Airflow and cannot be taken back there.<//>
    <//>
  <//>`;
}

const OPEN = new Set(["awaiting_input", "deferred", "running", "queued", "scheduled", null]);

/** The open questions of a DAG, or of one of its runs; nothing where there are none. */
export function Questions({ dagId, runId = "~", onDone }) {
  const read = useData(`${runsOf(dagId)}/${runId === "~" ? "~" : part(runId)}/hitlDetails?response_received=false&limit=20`, () => 10_000);
  const done = () => {
    read.reload();
    onDone?.();
  };
  // Who may not see questions simply has none to answer here.
  if (read.problem && read.data === null) return read.problem.status === 403 ? null : html`<${Failed} ...${read} what="Open questions" />`;
  const open = (read.data?.hitl_details ?? []).filter((d) => OPEN.has(d.task_instance.state));
  return html`<${React.Fragment}>${open.map((d) => html`<${Question} key=${d.task_instance.id} detail=${d} onDone=${done} />`)}<//>`;
}
