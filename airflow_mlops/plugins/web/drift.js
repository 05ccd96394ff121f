// Drift per column over time as a heat map; a click shows how the column was spread then and in training.
import { C, React, html, usePhone, useZone } from "./host.js";
import { useData } from "./api.js";
import { Chart, axis, tip, useSteps } from "./chart.js";
import { NONE, number, percent, windowStart, windowText } from "./format.js";
import { ChartOrTable, Go, Panel, Small, Span, Word, useWords } from "./parts.js";
import { Empty, Read } from "./states.js";

const TALL = 24; // px a row of the heat map

// What a colour says; effects of columns have units of their own, so each is measured by its own limit.
const STEPS = [
  "less than half the limit",
  "up to the limit",
  "beyond it, but may be chance",
  "alarm",
  "alarm, twice the limit or more",
];

/** The step of a cell, 0 to 4: an alarm is always above what is none. A check from before limits were kept tells no more. */
export function step({ effect, threshold, drifted }) {
  const share = threshold > 0 ? effect / threshold : null;
  if (drifted) return share >= 2 ? 4 : 3;
  if (share === null || share < 0.5) return 0;
  return share < 1 ? 1 : 2;
}

const effectText = (cell) => `${number(cell.effect)}${cell.threshold === null ? "" : ` (limit ${number(cell.threshold)})`}`;

function drawn(data, zone, steps, phone) {
  const names = data.columns.map((c) => c.name);
  const cells = data.columns.flatMap((c, y) =>
    c.cells.flatMap((cell, x) => (cell ? [{ value: [x, y, step(cell)], drifted: cell.drifted }] : [])),
  );
  // Alarms last: what is drawn later lies above, and its frame stays whole.
  cells.sort((a, b) => a.drifted - b.drifted);
  return (paint) => ({
    // Where names are long, so that the map begins at one line.
    grid: { left: 8, right: 16, top: 8, bottom: 8, containLabel: true },
    xAxis: axis(paint, { type: "category", data: data.windows.map((w) => windowStart(w.window, zone)), splitArea: { show: false } }),
    yAxis: axis(paint, { type: "category", data: names, inverse: true, axisLabel: { color: paint.text, width: phone ? 96 : 160, overflow: "truncate", interval: 0 } }),
    visualMap: { show: false, min: 0, max: steps.length - 1, inRange: { color: steps } },
    tooltip: {
      confine: true, backgroundColor: paint.panel, borderColor: paint.line, textStyle: { color: paint.text, fontSize: 12 },
      formatter: ({ value: [x, y] }) => {
        const cell = data.columns[y].cells[x];
        return tip(names[y], windowText(data.windows[x].window, zone), `${cell.statistic} ${effectText(cell)}: ${STEPS[step(cell)]}`, cell.sentence);
      },
    },
    series: [
      {
        type: "heatmap",
        data: cells.map((c) => ({
          value: c.value,
          // An alarm has a frame: colour is not all that tells it.
          itemStyle: c.drifted ? { borderColor: paint.text, borderWidth: 2 } : { borderColor: paint.ground, borderWidth: 1 },
        })),
        emphasis: { itemStyle: { borderColor: paint.main, borderWidth: 2 } },
      },
    ],
  });
}

function Spread({ data }) {
  const option = React.useMemo(
    () => (paint) => ({
      grid: { left: 8, right: 8, top: 32, bottom: 8, containLabel: true },
      legend: { top: 0, left: 0, textStyle: { color: paint.text } },
      xAxis: axis(paint, { type: "category", data: data.bins.map((b) => b.label), axisLabel: { color: paint.muted, hideOverlap: true, width: 90, overflow: "truncate" } }),
      yAxis: axis(paint, { type: "value", axisLabel: { color: paint.muted, formatter: (v) => percent(v) } }),
      tooltip: {
        confine: true, trigger: "axis", backgroundColor: paint.panel, borderColor: paint.line, textStyle: { color: paint.text, fontSize: 12 },
        formatter: (items) => {
          const bin = data.bins[items[0].dataIndex];
          return tip(bin.label, `training ${percent(bin.reference)}`, `this window ${percent(bin.current)}`);
        },
      },
      series: [
        { name: "training", type: "bar", data: data.bins.map((b) => b.reference), color: paint.muted, barGap: "0%", barCategoryGap: "20%" },
        { name: "this window", type: "bar", data: data.bins.map((b) => b.current), color: paint.main },
      ],
    }),
    [data],
  );
  const table = {
    heads: [data.column, "Training", "This window"],
    rows: data.bins.map((b) => [b.label, percent(b.reference), percent(b.current)]),
  };
  const label = `${data.column}: share of rows in ${data.bins.length} bins, in training and in this window`;
  return html`<${React.Fragment}>
    <${ChartOrTable} label=${label} table=${table}><${Chart} option=${option} height=${260} label=${label} /><//>
    <${Small}>
      Training of v${data.version}: ${number(data.reference_rows)} rows, ${percent(data.reference_missing)} missing. This window:
      ${" "}${number(data.current_rows)} rows, ${percent(data.current_missing)} missing. ${data.note}
    <//>
  <//>`;
}

function Column({ query, window: w, column, cell, onClose }) {
  const zone = useZone();
  const read = useData(query("distribution", { window: w.key, column }), () => 0);
  const box = React.useRef(null);
  React.useEffect(() => {
    box.current?.scrollIntoView?.({ block: "nearest" });
  }, [w.key, column]);
  return html`<${C.Box} ref=${box} mt=${4}>
    <${Panel} title=${`${column}, ${windowText(w.window, zone)}`} side=${html`<${C.CloseButton} size="xs" aria-label="Close the distribution" onClick=${onClose} />`}>
      ${cell && html`<${C.Text} fontSize="sm" mb=${2}>${cell.sentence}<//>`}
      <${Read} of=${read} what="the distribution" rows=${4}>${(data) => html`<${Spread} data=${data} />`}<//>
    <//>
  <//>`;
}

/** The same choice by keyboard, for whom a canvas gives nothing to press. */
function Choice({ data, picked, onPick }) {
  const zone = useZone();
  const select = (label, value, options, change) => html`<${C.NativeSelect.Root} size="xs" width="auto">
    <${C.NativeSelect.Field} aria-label=${label} value=${value} onChange=${(e) => change(e.target.value)}>
      ${options.map(([name, text]) => html`<option key=${name} value=${name}>${text}</option>`)}
    <//>
    <${C.NativeSelect.Indicator} />
  <//>`;
  const shown = picked ?? { key: data.windows.at(-1).key, column: data.columns[0].name };
  return html`<${C.HStack} wrap="wrap" mt=${2} gap=${2}>
    <${Small}>Distribution of<//>
    ${select("Column", shown.column, data.columns.map((c) => [c.name, c.name]), (column) => onPick({ ...shown, column }))}
    <${Small}>in<//>
    ${select("Window", shown.key, data.windows.map((w) => [w.key, windowStart(w.window, zone)]), (key) => onPick({ ...shown, key }))}
    ${!picked && html`<${C.Button} size="xs" variant="outline" onClick=${() => onPick(shown)}>Show<//>`}
  <//>`;
}

function Legend({ steps }) {
  return html`<${C.Flex} as="ul" listStyleType="none" wrap="wrap" columnGap=${4} rowGap=${1} my=${2} aria-label="What the colours say">
    ${STEPS.map(
      (words, i) => html`<${C.Flex} as="li" key=${words} align="center" gap=${1.5}>
        <${C.Box} as="span" boxSize="3" flexShrink=${0} borderWidth="2px" borderColor=${i > 2 ? "fg" : "transparent"} style=${{ background: steps[i] }} />
        <${Small}>${words}<//>
      <//>`,
    )}
  <//>`;
}

function Map({ data, query }) {
  const zone = useZone();
  const phone = usePhone();
  const steps = useSteps();
  // By name: what is shown later may have other windows, and its columns in another order.
  const [picked, setPicked] = React.useState(null);
  const option = React.useMemo(() => drawn(data, zone, steps, phone), [data, zone, steps, phone]);
  const table = {
    heads: ["Column", ...data.windows.map((w) => windowStart(w.window, zone))],
    rows: data.columns.map((c) => [
      c.prediction ? `${c.name} (prediction)` : c.name,
      ...c.cells.map((cell) => (cell ? `${effectText(cell)}${cell.drifted ? ", alarm" : ""}` : NONE)),
    ]),
  };
  const drifted = data.columns.filter((c) => c.cells.some((cell) => cell?.drifted)).length;
  const label = `Drift of ${data.columns.length} columns in ${data.windows.length} windows; ${drifted} columns drifted at least once`;
  const w = data.windows.find(({ key }) => key === picked?.key);
  const column = data.columns.find(({ name }) => name === picked?.column);
  const press = (event) => {
    const [x, y] = event.value ?? [];
    if (x !== undefined && !data.fleet) setPicked({ key: data.windows[x].key, column: data.columns[y].name });
  };
  return html`<${React.Fragment}>
    <${Panel} title="Drift per column and window">
      <${ChartOrTable} label="Drift" table=${table}>
        <${Chart} option=${option} height=${40 + TALL * data.columns.length} label=${label} onClick=${press} />
        <${Legend} steps=${steps} />
      <//>
      <${Small}>
        ${data.fleet
          ? "Each key is held against what its own model learned from. A framed cell is a column that drifted in some keys, or in all together; the report and the models' alarms name the keys."
          : "A cell's colour says how far the column has moved from training, measured by the limit from which a move matters; a frame marks an alarm: beyond the limit, and not by chance. Click a cell to see the distributions."}
      <//>
      ${!data.fleet && html`<${Choice} data=${data} picked=${w && column ? picked : null} onPick=${setPicked} />`}
    <//>
    ${w && column &&
    html`<${Column} query=${query} window=${w} column=${column.name} cell=${column.cells[data.windows.indexOf(w)]} onClose=${() => setPicked(null)} />`}
  <//>`;
}

function Windows({ windows }) {
  const words = useWords();
  return html`<${Panel} title="Checks" mt=${4}>
    <${C.Box} as="ul" listStyleType="none" fontSize="sm" maxH="24rem" overflowY="auto" tabIndex=${0} aria-label="Drift checks">
      ${windows.toReversed().map(
        (w, i) => html`<${C.Flex} as="li" key=${w.key} gap=${3} py=${1.5} borderTopWidth=${i ? "1px" : 0} wrap="wrap" align="baseline">
          <${C.Box} minW=${{ base: 0, md: "20" }}><${Word} tone=${w.tone}>${w.verdict}<//><//>
          <${Span} window=${w.window} />
          <${C.Text} flex="1" minW="14rem" overflowWrap="anywhere">${words(w.sentence)}<//>
          <${Small}>${[w.rows !== null && `${number(w.rows)} rows`, w.version !== null && `v${w.version}`].filter(Boolean).join(", ")}<//>
          ${w.report && html`<${Go} to=${w.report}>report<//>`}
        <//>`,
      )}
    <//>
  <//>`;
}

export default function Drift({ query }) {
  const read = useData(query("drift"), () => 60_000);
  return html`<${Read} of=${read} what="the drift checks" rows=${6}>
    ${(data) =>
      data.windows.length === 0
        ? html`<${Empty} title="No drift check has run yet">From level 1 on a pipeline with monitor.drift compares each window with its training data.<//>`
        : html`<${React.Fragment}>
            ${data.columns.length > 0 && html`<${Map} data=${data} query=${query} />`}
            <${Windows} windows=${data.windows} />
          <//>`}
  <//>`;
}
