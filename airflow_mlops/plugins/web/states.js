// What a page shows when it has nothing to show yet, or nothing that this user may see.
import { C, React, html } from "./host.js";

/** An error in drawing one page must not take Airflow's own page with it. */
export class Guard extends React.Component {
  constructor(props) {
    super(props);
    this.state = { error: null };
  }
  static getDerivedStateFromError(error) {
    return { error };
  }
  componentDidCatch(error) {
    console.error("MLOps page:", error);
  }
  render() {
    if (!this.state.error) return this.props.children;
    return html`<${Notice} status="error" title="This page could not be drawn">
      ${String(this.state.error.message ?? this.state.error)}${" "}
      <${C.Button} size="xs" variant="outline" onClick=${() => this.setState({ error: null })}>Try again<//>
    <//>`;
  }
}

/** A framed message: status is "info", "warning", "error" or "success". */
export function Notice({ status, title, children, ...more }) {
  return html`<${C.Alert.Root} status=${status} role=${status === "error" ? "alert" : "status"} my=${2} ...${more}>
    <${C.Alert.Indicator} />
    <${C.Alert.Content}>
      <${C.Alert.Title}>${title}<//>
      ${children && html`<${C.Alert.Description} overflowWrap="anywhere">${children}<//>`}
    <//>
  <//>`;
}

/** Bars where rows will stand, so that nothing jumps when they come. */
export function Loading({ rows = 6, label = "Loading" }) {
  return html`<${C.Stack} gap=${3} py=${2} role="status" aria-label=${label} aria-busy="true">
    ${Array.from({ length: rows }, (_, i) => html`<${C.Skeleton} key=${i} height="7" borderRadius="sm" />`)}
  <//>`;
}

/** Nothing there, and that is no error: says what to do. */
export function Empty({ title, children }) {
  return html`<${C.EmptyState.Root} size="sm">
    <${C.EmptyState.Content}>
      <${C.EmptyState.Title} textAlign="center">${title}<//>
      ${children && html`<${C.EmptyState.Description} textAlign="center" maxW="lg">${children}<//>`}
    <//>
  <//>`;
}

/** A request that failed, in words for a person, with a way on. */
export function Failed({ problem, reload, what = "This" }) {
  const again = reload && html`<${C.Button} size="xs" variant="outline" mt=${2} onClick=${reload}>Try again<//>`;
  if (problem.status === 401) {
    return html`<${Notice} status="warning" title="Your session has ended">
      <${C.Button} size="xs" variant="outline" mt=${2} onClick=${() => location.reload()}>Sign in<//>
    <//>`;
  }
  if (problem.status === 403) {
    return html`<${Notice} status="info" title="You may not see this">
      Your role in Airflow does not include it (${problem.message}). Ask an administrator for the right to read
      plugins and this DAG.
    <//>`;
  }
  if (problem.status === 404) {
    return html`<${Notice} status="info" title="There is nothing here for you">${problem.message}<//>`;
  }
  return html`<${Notice} status="error" title=${`${what[0].toUpperCase()}${what.slice(1)} could not be read`}>
    <${C.Box}>${problem.message}<//>${again}
  <//>`;
}

/** The whole life of a read: loading, failed, stale, there. `children` is a function of the data. */
export function Read({ of, what, rows, children }) {
  if (of.data === null) {
    return of.problem ? html`<${Failed} ...${of} what=${what} />` : html`<${Loading} rows=${rows} label=${`Loading ${what}`} />`;
  }
  return html`<${React.Fragment}>
    ${of.problem?.status === 401
      ? html`<${Failed} ...${of} what=${what} />`
      : of.problem && html`<${Notice} status="warning" title="Shown as last read: it could not be read again">${of.problem.message}<//>`}
    ${of.data.store_problem && html`<${Notice} status="warning" title="The model store does not answer">
      ${of.data.store_problem} What Airflow itself knows is shown.
    <//>`}
    ${children(of.data)}
  <//>`;
}
