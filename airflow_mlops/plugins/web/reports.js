// The model card and the reports about a version. They were made from data and are not trusted: at their address
// stands a page without a script, and in its frame the report, without an origin: it reaches neither the session nor the
// network, nor can it lead its frame elsewhere.
import { C, React, here, html } from "./host.js";
import { useData } from "./api.js";
import { Go, Panel, Small, Time } from "./parts.js";
import { Empty, Read } from "./states.js";

export function Framed({ link, title }) {
  return html`<${C.Box} borderWidth="1px" borderRadius="md" overflow="hidden" bg="white">
    <iframe src=${here(link).href} title=${title} referrerPolicy="no-referrer" loading="lazy"
      style=${{ width: "100%", height: "70vh", minHeight: "24rem", border: 0, display: "block", colorScheme: "light" }} />
  <//>`;
}

/** The newest report of each kind with those before it: [[report, [older, …]], …], in their order. */
function kinds(reports) {
  const found = new Map();
  for (const report of reports) {
    if (found.has(report.name)) found.get(report.name)[1].push(report);
    else found.set(report.name, [report, []]);
  }
  return [...found.values()];
}

/** Reports as a list; the one that is chosen opens below it. */
export function ReportList({ reports }) {
  const [open, setOpen] = React.useState(null);
  const shown = reports.find((r) => r.link === open);
  const line = (r) => html`<${C.Flex} gap=${3} py=${1.5} wrap="wrap" align="baseline">
    <${C.Text} fontWeight="medium" minW="10rem">${r.name}<//>
    <${C.Text} color="fg.muted" flex="1" minW="8rem">${r.about}${r.at && html`${r.about ? ", made " : "made "}<${Time} at=${r.at} />`}<//>
    <${C.Button} size="2xs" variant=${open === r.link ? "solid" : "outline"} aria-pressed=${open === r.link} onClick=${() => setOpen(open === r.link ? null : r.link)}>
      ${open === r.link ? "Hide" : "Show here"}
    <//>
    <${Go} to=${r.link}>Open in a tab<//>
  <//>`;
  return html`<${React.Fragment}>
    <${C.Box} as="ul" listStyleType="none" fontSize="sm" mb=${shown ? 3 : 0}>
      ${kinds(reports).map(
        ([newest, older], i) => html`<${C.Box} as="li" key=${newest.link} borderTopWidth=${i ? "1px" : 0}>
          ${line(newest)}
          ${older.length > 0 &&
          html`<${C.Box} as="details" mb=${1}>
            <${C.Box} as="summary" cursor="pointer" fontSize="xs" color="fg.muted">${older.length} older<//>
            ${older.map((r) => html`<${React.Fragment} key=${r.link}>${line(r)}<//>`)}
          <//>`}
        <//>`,
      )}
    <//>
    ${shown && html`<${Framed} key=${shown.link} link=${shown.link} title=${`${shown.name} of ${shown.about}`} />`}
  <//>`;
}

export default function Reports({ query, params }) {
  const read = useData(query("reports", { version: params.get("version") }), () => 60_000);
  return html`<${Read} of=${read} what="the reports" rows=${6}>
    ${(data) => html`<${C.Stack} gap=${4}>
      ${data.reports.length > 0 && html`<${Panel} title="Reports"><${ReportList} reports=${data.reports} /><//>`}
      ${data.card
        ? html`<${Panel} title=${`Model card of v${data.version}`} side=${html`<${Go} to=${data.card} fontSize="sm">Open in a tab<//>`}>
            <${Framed} link=${data.card} title=${`Model card of v${data.version}`} />
          <//>`
        : html`<${Empty} title="There is no model card yet"><${Small}>It is made when a candidate has been evaluated.<//><//>`}
    <//>`}
  <//>`;
}
