// What happened to a pipeline, the newest first: versions, verdicts, promotions, checks and requests, with reasons.
import { C, React, html } from "./host.js";
import { useData } from "./api.js";
import { sentence } from "./format.js";
import { Gates } from "./gates.js";
import { Chips, Go, Pager, Small, Span, Time, palette, useWords } from "./parts.js";
import { Empty, Read } from "./states.js";

const LIMIT = 50;
const KINDS = [
  ["", "Everything"],
  ["version", "Versions"],
  ["decision", "Decisions"],
  ["check", "Checks"],
  ["retrain", "Retrain requests"],
  ["delivery", "Deliveries"],
];

function Entry({ event, linkOf }) {
  const words = useWords();
  const facts = [
    event.window && html`data of <${Span} window=${event.window} />`,
    event.by && `by ${event.by}`,
    event.key !== null && html`model <${Go} to=${linkOf?.(event.key)}>${event.key}<//>`,
    event.replay && "in a replay of the past",
  ].filter(Boolean);
  return html`<${C.Timeline.Item}>
    <${C.Timeline.Connector}>
      <${C.Timeline.Separator} />
      <${C.Timeline.Indicator} bg=${`${palette(event.tone)}.solid`} borderColor=${`${palette(event.tone)}.solid`} boxSize="3" mt=${1} role="img" aria-label=${event.tone} />
    <//>
    <${C.Timeline.Content} pb=${4} minW=${0}>
      <${C.Flex} gap=${2} wrap="wrap" align="baseline" justify="space-between">
        <${C.Text} fontSize="sm" fontWeight="medium" overflowWrap="anywhere">${words(sentence(event.title))}<//>
        <${Small}><${Time} at=${event.at} /><//>
      <//>
      ${event.sentence && html`<${C.Text} fontSize="sm" overflowWrap="anywhere">${words(event.sentence)}<//>`}
      <${C.Flex} gap=${3} wrap="wrap" fontSize="xs" color="fg.muted" align="baseline">
        ${facts.map((fact, i) => html`<span key=${i}>${fact}</span>`)}
        ${event.link && html`<${Go} to=${event.link}>run<//>`}
        ${event.report && html`<${Go} to=${event.report}>report<//>`}
      <//>
      ${event.gates.length > 0 &&
      html`<${C.Box} as="details" mt=${1} fontSize="sm">
        <${C.Box} as="summary" cursor="pointer" color="fg.muted" fontSize="xs">${event.gates.length === 1 ? "1 gate" : `${event.gates.length} gates`}<//>
        <${C.Box} mt=${1}><${Gates} gates=${event.gates} /><//>
      <//>`}
    <//>
  <//>`;
}

/** `linkOf(key)`: where the story of a fleet's key is. */
export function Events({ events, linkOf }) {
  return html`<${C.Timeline.Root} size="sm" variant="subtle">${events.map((event) => html`<${Entry} key=${event.id} event=${event} linkOf=${linkOf} />`)}<//>`;
}

export default function Timeline({ query }) {
  const [kind, setKind] = React.useState("");
  const [offset, setOffset] = React.useState(0);
  const read = useData(query("timeline", { kind, limit: LIMIT, offset }));
  const choose = (next) => {
    setKind(next);
    setOffset(0);
  };
  return html`<${C.Box}>
    <${C.Box} mb=${4}><${Chips} label="What is shown" value=${kind} options=${KINDS} onChange=${choose} /><//>
    <${Read} of=${read} what="the timeline" rows=${6}>
      ${(data) =>
        data.events.length === 0
          ? html`<${Empty} title="Nothing has happened yet">With its first training a pipeline begins to have a story.<//>`
          : html`<${C.Box}>
              <${Events} events=${data.events} linkOf=${(key) => `?${new URLSearchParams({ key })}`} />
              <${Pager} ...${data} onOffset=${setOffset} />
            <//>`}
    <//>
  <//>`;
}
