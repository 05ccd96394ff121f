// What a version was made from and what became of it, as a graph from left to right.
import { C, React, html } from "./host.js";
import { useData } from "./api.js";
import { ChartOrTable, Go, Panel, Small, useWords } from "./parts.js";
import { Empty, Read } from "./states.js";

const KINDS = {
  source: "Source", data: "Data", code: "Code", config: "Configuration", environment: "Environment", run: "Run", model: "Model",
  decision: "Decision", delivery: "Delivery", predictions: "Predictions",
};

/** Each node's column: one further than the furthest that leads to it. A loop, which cannot be, would stop at the end. */
export function columns(nodes, edges) {
  const depth = new Map(nodes.map((n) => [n.id, 0]));
  for (let round = 0; round < nodes.length; round += 1) {
    let moved = false;
    for (const { source, target } of edges) {
      if (!depth.has(source) || !depth.has(target)) continue;
      const wanted = depth.get(source) + 1;
      if (wanted > depth.get(target) && wanted < nodes.length) {
        depth.set(target, wanted);
        moved = true;
      }
    }
    if (!moved) break;
  }
  // As late as its first use allows: what is used together stands together, and fewer lines run behind boxes.
  for (const { id } of [...nodes].sort((a, b) => depth.get(b.id) - depth.get(a.id))) {
    const uses = edges.filter((e) => e.source === id && depth.has(e.target)).map((e) => depth.get(e.target));
    if (uses.length) depth.set(id, Math.max(depth.get(id), Math.min(...uses) - 1));
  }
  const found = [];
  for (const node of nodes) (found[depth.get(node.id)] ??= []).push(node);
  return found.filter(Boolean);
}

const SHOWN = 4; // lines of a box; the others are a click away

function Box({ node }) {
  return html`<${C.Box} data-node=${node.id} borderWidth="1px" borderRadius="md" p=${2} bg=${node.kind === "model" ? "brand.subtle" : "bg.subtle"} width="100%" minW="11.5rem" maxW="17rem" position="relative" zIndex=${1}>
    <${Small}>${KINDS[node.kind] ?? node.kind}<//>
    <${C.Text} fontSize="sm" fontWeight="medium" overflowWrap="anywhere"><${Go} to=${node.link}>${node.title}<//><//>
    <${Lines} lines=${node.lines.slice(0, SHOWN)} />
    ${node.lines.length > SHOWN &&
    html`<${C.Box} as="details" fontSize="xs" color="fg.muted">
      <${C.Box} as="summary" cursor="pointer">${node.lines.length - SHOWN} more<//>
      <${Lines} lines=${node.lines.slice(SHOWN)} />
    <//>`}
  <//>`;
}

function Lines({ lines }) {
  const words = useWords();
  return lines.map((line, i) => html`<${Small} key=${i} overflowWrap="anywhere" lineClamp=${2} title=${words(line)}>${words(line)}<//>`);
}

/** Lines between boxes, measured after the browser has laid the boxes out. */
function useLines(frame, edges) {
  const [lines, setLines] = React.useState([]);
  React.useLayoutEffect(() => {
    const measure = () => {
      const root = frame.current;
      if (!root) return;
      const origin = root.getBoundingClientRect();
      const of = (id) => root.querySelector(`[data-node="${CSS.escape(id)}"]`)?.getBoundingClientRect();
      setLines(
        edges.flatMap(({ source, target, label }) => {
          const [a, b] = [of(source), of(target)];
          if (!a || !b) return [];
          const [x1, y1] = [a.right - origin.left, a.top + a.height / 2 - origin.top];
          const [x2, y2] = [b.left - origin.left, b.top + b.height / 2 - origin.top];
          return [{ id: `${source}>${target}`, label, x1, y1, x2, y2 }];
        }),
      );
    };
    measure();
    const watch = new ResizeObserver(measure);
    watch.observe(frame.current);
    return () => watch.disconnect();
  }, [frame, edges]);
  return lines;
}

function Graph({ data }) {
  const frame = React.useRef(null);
  const lines = useLines(frame, data.edges);
  return html`<${C.Box} overflowX="auto" tabIndex=${0} role="region" aria-label="Lineage graph">
    <${C.Flex} ref=${frame} position="relative" gap=${10} align="center" py=${2}>
      <${C.Box} as="svg" position="absolute" inset=${0} width="100%" height="100%" color="fg.subtle" aria-hidden="true" overflow="visible">
        ${lines.map(({ id, label, x1, y1, x2, y2 }) => {
          const bend = Math.max(16, (x2 - x1) / 2);
          return html`<g key=${id}>
            <title>${label}</title>
            <path d=${`M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`} fill="none" stroke="currentColor" strokeWidth="1.5" />
            <circle cx=${x2} cy=${y2} r="3" fill="currentColor" />
          </g>`;
        })}
      <//>
      ${columns(data.nodes, data.edges).map(
        (nodes, i) => html`<${C.Stack} key=${i} gap=${4} flex="1" minW="11.5rem">${nodes.map((node) => html`<${Box} key=${node.id} node=${node} />`)}<//>`,
      )}
    <//>
  <//>`;
}

function Choice({ versions, value, onChange }) {
  return html`<${C.NativeSelect.Root} size="xs" width="auto">
    <${C.NativeSelect.Field} aria-label="Version" value=${value} onChange=${(e) => onChange(e.target.value)}>
      ${versions.map((v) => html`<option key=${v.version} value=${v.version}>v${v.version} · ${v.status}</option>`)}
    <//>
    <${C.NativeSelect.Indicator} />
  <//>`;
}

function Of({ query, version, side }) {
  const read = useData(query("lineage", { version }), () => 0);
  return html`<${Read} of=${read} what="the lineage" rows=${6}>
    ${(data) => {
      const title = new Map(data.nodes.map((n) => [n.id, n.title]));
      const table = { heads: ["From", "", "To"], rows: data.edges.map((e) => [title.get(e.source), e.label, title.get(e.target)]) };
      return html`<${Panel} title=${`Where v${data.version} comes from and went`} side=${side}>
        <${ChartOrTable} label="Lineage" table=${table}><${Graph} data=${data} /><//>
      <//>`;
    }}
  <//>`;
}

/** The version that a section is about: the one asked for, else the champion, else the newest. */
export function chosen(versions, params) {
  const asked = versions.find((v) => v.version === Number(params.get("version")));
  return asked ?? versions.find((v) => v.status === "champion") ?? versions[0];
}

export default function Lineage({ query, params, go }) {
  const read = useData(query("versions"));
  return html`<${Read} of=${read} what="the versions" rows=${6}>
    ${({ versions }) => {
      if (versions.length === 0) return html`<${Empty} title="There is no version yet">A version begins with a training.<//>`;
      const { version } = chosen(versions, params);
      const side = html`<${Choice} versions=${versions} value=${version} onChange=${(v) => go({ version: v })} />`;
      return html`<${Of} key=${version} query=${query} version=${version} side=${side} />`;
    }}
  <//>`;
}
