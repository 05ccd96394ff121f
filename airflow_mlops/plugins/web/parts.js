// The small pieces that all pages are made of.
import { C, React, Router, here, html, useZone } from "./host.js";
import { NONE, ago, localTimes, moment, number, windowText } from "./format.js";

const PALETTES = { action: "red", bad: "red", warning: "orange", ok: "green", info: "blue", unknown: "gray" };

/** The Chakra palette of a tone (ok, warning, bad, info, unknown) or of a level of attention. */
export const palette = (tone) => PALETTES[tone] ?? "gray";

/** A word of the field as a coloured badge: the colour alone says nothing, the word does. */
export function Word({ tone, children, ...more }) {
  if (children === null || children === undefined || children === "") {
    return html`<${C.Text} as="span" color="fg.muted">${NONE}<//>`;
  }
  return html`<${C.Badge} colorPalette=${palette(tone)} variant="surface" whiteSpace="nowrap" ...${more}>
    ${typeof children === "string" ? children.replaceAll("_", " ") : children}
  <//>`;
}

const LEVELS = { action: "Needs action", warning: "Warning", unknown: "Unknown", ok: "Fine" };

export const AttentionWord = ({ level }) => html`<${Word} tone=${level}>${LEVELS[level] ?? level}<//>`;

/** A moment in Airflow's time zone; `relative` shows "3 d ago" and keeps the date as its title. */
export function Time({ at, relative = false, ...more }) {
  const zone = useZone();
  if (!at) return html`<${C.Text} as="span" color="fg.muted">${NONE}<//>`;
  const exact = `${moment(at, zone)} ${zone}`;
  return html`<${C.Text} as="time" dateTime=${at} title=${exact} whiteSpace="nowrap" ...${more}>
    ${relative ? ago(at) : moment(at, zone)}
  <//>`;
}

/** Writes times within texts in Airflow's time zone. */
export function useWords() {
  const zone = useZone();
  return (text) => localTimes(text, zone);
}

/** A link that our API gave, relative to Airflow's root: pages of Airflow open here, reports in a tab. */
export function Go({ to, children, ...more }) {
  if (!to) return html`<${C.Text} as="span" ...${more}>${children}<//>`;
  if (to.startsWith("mlops/")) {
    return html`<${C.Link} color="fg.info" href=${here(to).href} target="_blank" rel="noopener noreferrer" ...${more}>${children}<//>`;
  }
  // "?a=1": the page that is open, seen in another way.
  return html`<${C.Link} asChild color="fg.info" ...${more}><${Router.Link} to=${to.startsWith("?") ? to : `/${to}`}>${children}<//><//>`;
}

export const dagPath = (dag) => `dags/${encodeURIComponent(dag)}`;
export const runPath = (dag, run) => `${dagPath(dag)}/runs/${encodeURIComponent(run)}`;

/** A pipeline's page with the window to itself: beside Airflow's grid there is no room for it on a phone. */
export const wholePath = (pipeline) => `plugin/mlops/pipelines/${encodeURIComponent(pipeline)}`;
export const wholeRunPath = (dagId, runId) => `plugin/mlops/runs/${encodeURIComponent(dagId)}/${encodeURIComponent(runId)}`;

/** "2026-01-01 to 2026-02-01", the half-open window of data. */
export function Span({ window: w, ...more }) {
  const zone = useZone();
  if (!w) return NONE;
  // Broken between its ends, never inside of one.
  const [from, to] = windowText(w, zone).split(" to ").map((end) => html`<${C.Box} as="span" whiteSpace="nowrap">${end}<//>`);
  return html`<${C.Text} as="span" title=${`${w.start} to before ${w.end}`} ...${more}>${from} to ${to}<//>`;
}

/** Secondary text under a main one. */
export const Small = ({ children, ...more }) =>
  html`<${C.Text} fontSize="xs" color="fg.muted" lineHeight="short" ...${more}>${children}<//>`;

/** A head that sorts: `sort` and `order` say how it is sorted now, `first` which order comes first. */
export function SortHead({ by, sort, order, first = "asc", onSort, children, ...more }) {
  const on = sort === by;
  const next = on ? (order === "asc" ? "desc" : "asc") : first;
  return html`<${C.Table.ColumnHeader} aria-sort=${on ? `${order}ending` : undefined} whiteSpace="nowrap" ...${more}>
    <${C.Button} variant="plain" size="xs" px=${0} height="auto" minW=${0} color=${on ? "fg" : "inherit"} fontWeight="semibold"
      onClick=${() => onSort(by, next)}>
      ${children}<${C.Box} as="span" aria-hidden="true" opacity=${on ? 1 : 0.35}>${on ? (order === "desc" ? "↓" : "↑") : "↕"}<//>
    <//>
  <//>`;
}

export const Head = ({ children, ...more }) =>
  html`<${C.Table.ColumnHeader} whiteSpace="nowrap" ...${more}>${children}<//>`;
export const Cell = ({ children, ...more }) => html`<${C.Table.Cell} ...${more}>${children}<//>`;

/** A table in Airflow's manner; wide ones scroll inside their frame, by keyboard too. */
export function Grid({ label, heads, children, ...more }) {
  return html`<${C.Table.ScrollArea} borderWidth="1px" borderRadius="md" whiteSpace="normal" tabIndex=${0} role="region" aria-label=${label} ...${more}>
    <${C.Table.Root} size="sm" interactive stickyHeader>
      <${C.Table.Header}><${C.Table.Row}>${heads}<//><//>
      <${C.Table.Body}>${children}<//>
    <//>
  <//>`;
}

/** A plain table of text: heads and rows of cells. */
export function TextTable({ label, heads, rows, ...more }) {
  return html`<${Grid} label=${label} heads=${heads.map((head, i) => html`<${Head} key=${i}>${head}<//>`)} ...${more}>
    ${rows.map(
      (row, i) => html`<${C.Table.Row} key=${i}>${row.map((cell, j) => html`<${Cell} key=${j}>${cell}<//>`)}<//>`,
    )}
  <//>`;
}

/** Toggles in a row; one is pressed. options: [[value, text, count?], …] */
export function Chips({ label, value, options, onChange }) {
  return html`<${C.HStack} gap=${1} wrap="wrap" role="group" aria-label=${label}>
    ${options.map(
      ([name, text, n]) => html`<${C.Button} key=${name} size="xs" borderRadius="full" aria-pressed=${value === name}
        variant=${value === name ? "solid" : "outline"} onClick=${() => onChange(name)}>
        ${text}${n !== undefined && html`<${C.Text} as="span" opacity=${0.75}>${n}<//>`}
      <//>`,
    )}
  <//>`;
}

/** Newer/older pages by offset. */
export function Pager({ total, limit, offset, onOffset }) {
  if (total <= limit) return null;
  const last = Math.min(offset + limit, total);
  return html`<${C.HStack} as="nav" aria-label="Pages" justify="flex-end" gap=${2} mt=${2}>
    <${Small}>${number(offset + 1)}–${number(last)} of ${number(total)}<//>
    <${C.Button} size="xs" variant="outline" disabled=${offset === 0} onClick=${() => onOffset(Math.max(0, offset - limit))}>Previous<//>
    <${C.Button} size="xs" variant="outline" disabled=${last >= total} onClick=${() => onOffset(offset + limit)}>Next<//>
  <//>`;
}

/** A framed part of a page with its heading. */
export function Panel({ title, side, children, level = "h2", ...more }) {
  return html`<${C.Box} as="section" borderWidth="1px" borderRadius="md" p=${4} minW=${0} bg="bg" ...${more}>
    <${C.Flex} justify="space-between" align="center" gap=${2} wrap="wrap" mb=${children ? 3 : 0}>
      <${C.Heading} as=${level} size="sm">${title}<//>${side}
    <//>
    ${children}
  <//>`;
}

/** Name and value pairs: rows is [[name, value], …]; pairs without a value are left out. */
export function Facts({ rows, ...more }) {
  const said = rows.filter(([, value]) => value !== null && value !== undefined && value !== false && value !== "");
  return html`<${C.DataList.Root} orientation="horizontal" size="sm" gap=${2} ...${more}>
    ${said.map(
      ([name, value]) => html`<${C.DataList.Item} key=${name} alignItems="baseline">
        <${C.DataList.ItemLabel} minW=${{ base: "24", sm: "32" }} maxW="45%" overflowWrap="anywhere">${name}<//>
        <${C.DataList.ItemValue} overflowWrap="anywhere">${value}<//>
      <//>`,
    )}
  <//>`;
}

/** A chart, or the same as a table: who cannot see a chart reads the table. */
export function ChartOrTable({ label, table, children }) {
  const [asTable, setAsTable] = React.useState(false);
  return html`<${C.Box}>
    <${C.Flex} justify="flex-end" mb=${1}>
      <${C.Button} size="2xs" variant="ghost" aria-pressed=${asTable} onClick=${() => setAsTable(!asTable)}>
        ${asTable ? "Show as chart" : "Show as table"}
      <//>
    <//>
    ${asTable ? html`<${TextTable} label=${label} maxH="24rem" ...${table} />` : children}
  <//>`;
}
