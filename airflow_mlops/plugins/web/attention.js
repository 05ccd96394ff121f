// The card on Airflow's home: which models need somebody, and why.
import { C, html } from "./host.js";
import { address, useData } from "./api.js";
import { count, sentence } from "./format.js";
import { AttentionWord, Go, Panel, Small, useWords } from "./parts.js";
import { Read } from "./states.js";

const SHOWN = 5;

function Line({ row }) {
  const words = useWords();
  return html`<${C.Flex} as="li" columnGap=${3} rowGap=${1} align="baseline" py=${2} borderTopWidth="1px" wrap="wrap">
    <${C.Box} minW="24"><${AttentionWord} level=${row.attention.level} /><//>
    <${Go} to=${row.link} fontWeight="medium" fontSize="sm" minW="40">${row.pipeline}<//>
    <${Go} to=${row.attention.link} color="fg" fontSize="sm" flex="1" minW="14rem">${words(sentence(row.attention.reason))}<//>
  <//>`;
}

export default function Attention() {
  const read = useData(address("mlops/api/attention", { limit: SHOWN }), (data) => (data.pending ? 3_000 : 30_000));
  // Home belongs to everybody: who may not see plugin pages is not told about them on it.
  if (read.problem?.status === 403) return null;
  const all = html`<${Go} to="plugin/mlops" fontSize="sm">All models<//>`;
  return html`<${Panel} title="Models that need attention" side=${all} order=${3} data-testid="mlops-attention">
    <${Read} of=${read} what="the models' state" rows=${3}>
      ${({ counts, rows, pending, store_problem: problem }) => {
        const total = counts.action + counts.warning + counts.unknown + counts.ok;
        const said = [
          count(total, "pipeline"),
          `${counts.action} ${counts.action === 1 ? "needs" : "need"} action`,
          `${counts.warning} with a warning`,
          counts.unknown > 0 && !pending && `${counts.unknown} unknown`,
          pending > 0 && `${pending} still being read`,
        ];
        return html`<${C.Box}>
          ${total > 0 && html`<${Small}>${said.filter(Boolean).join(" · ")}<//>`}
          ${rows.length === 0
            ? html`<${C.Text} fontSize="sm" color="fg.muted">
                ${problem ? `Nobody can tell: ${problem}.` : pending > 0 ? "Nothing so far." : total ? "Nothing needs attention." : "There are no pipelines yet that you may see."}
              <//>`
            : html`<${C.Box} as="ul" listStyleType="none" mt=${2}>
                ${rows.map((row) => html`<${Line} key=${row.pipeline} row=${row} />`)}
              <//>`}
        <//>`;
      }}
    <//>
  <//>`;
}
