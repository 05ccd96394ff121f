// Drift per column over time as a heat map; a click shows how the column was spread then and in training.
import { C, React, html, useZone } from "./host.js";
import { useData } from "./api.js";
import { Chart, axis, tip } from "./chart.js";
import { NONE, number, percent, windowText } from "./format.js";
import { ChartOrTable, Go, Panel, Small, Word } from "./parts.js";
import { Empty, Read } from "./states.js";

const TALL = 24; // px a row of the heat map

function drawn(data, zone) {
  const names = data.columns.map((c) => c.name);
  const cells = data.columns.flatMap((c, y) =>
    c.cells.flatMap((cell, x) => (cell ? [{ value: [x, y, cell.effect], drifted: cell.drifted }] : [])),
  );
  // Alarms last: what is drawn later lies above, and its frame stays whole.
  cells.sort((a, b) => a.drifted - b.drifted);
  const top = Math.max(0.01, ...cells.map((c) => c.value[2]));
  return (paint) => ({
    // Where names are long, so that the map begins at one line.
    grid: { left: 8, right: 16, top: 8, bottom: 64, containLabel: true },
    xAxis: axis(paint, { type: "category", data: data.windows.map((w) => w.window.start.slice(0, 10)), splitArea: { show: false } }),
    yAxis: axis(paint, { type: "category", data: names, inverse: true, axisLabel: { color: paint.text, width: 160, overflow: "truncate", interval: 0 } }),
    visualMap: {
      min: 0, max: top, calculable: false, orient: "horizontal", left: "center", bottom: 0, itemHeight: 140, itemWidth: 12,
      text: [`effect ${number(top)}`, "0"], textStyle: { color: paint.muted }, inRange: { color: [paint.faint, paint.other, paint.bad] },
    },
    tooltip: {
      confine: true, backgroundColor: paint.panel, borderColor: paint.line, textStyle: { color: paint.text, fontSize: 12 },
      formatter: ({ value: [x, y] }) => {
        const cell = data.columns[y].cells[x];
        return tip(names[y], windowText(data.windows[x].window, zone), `${cell.statistic} ${number(cell.effect)}`, cell.sentence);
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
  const select = (label, value, options, change) => html`<${C.NativeSelect.Root} size="xs" width="auto">
    <${C.NativeSelect.Field} aria-label=${label} value=${value} onChange=${(e) => change(Number(e.target.value))}>
      ${options.map((text, i) => html`<option key=${i} value=${i}>${text}</option>`)}
    <//>
    <${C.NativeSelect.Indicator} />
  <//>`;
  const [x, y] = picked ?? [data.windows.length - 1, 0];
  return html`<${C.HStack} wrap="wrap" mt=${2} gap=${2}>
    <${Small}>Distribution of<//>
    ${select("Column", y, data.columns.map((c) => c.name), (n) => onPick([x, n]))}
    <${Small}>in<//>
    ${select("Window", x, data.windows.map((w) => w.window.start.slice(0, 10)), (n) => onPick([n, y]))}
    ${!picked && html`<${C.Button} size="xs" variant="outline" onClick=${() => onPick([x, y])}>Show<//>`}
  <//>`;
}

function Map({ data, query }) {
  const zone = useZone();
  const [picked, setPicked] = React.useState(null);
  const option = React.useMemo(() => drawn(data, zone), [data, zone]);
  const table = {
    heads: ["Column", ...data.windows.map((w) => w.window.start.slice(0, 10))],
    rows: data.columns.map((c) => [
      c.prediction ? `${c.name} (prediction)` : c.name,
      ...c.cells.map((cell) => (cell ? `${number(cell.effect)}${cell.drifted ? " drift" : ""}` : NONE)),
    ]),
  };
  const drifted = data.columns.filter((c) => c.cells.some((cell) => cell?.drifted)).length;
  const label = `Drift of ${data.columns.length} columns in ${data.windows.length} windows; ${drifted} columns drifted at least once`;
  const [x, y] = picked ?? [];
  return html`<${React.Fragment}>
    <${Panel} title="Drift per column and window">
      <${ChartOrTable} label="Drift" table=${table}>
        <${Chart} option=${option} height=${110 + TALL * data.columns.length} label=${label} onClick=${(e) => e.value && setPicked(e.value.slice(0, 2))} />
      <//>
      <${Small}>A cell's colour is the size of the effect; a frame marks an alarm: large enough and not by chance. Click a cell to see the distributions.<//>
      <${Choice} data=${data} picked=${picked} onPick=${setPicked} />
    <//>
    ${picked &&
    html`<${Column} query=${query} window=${data.windows[x]} column=${data.columns[y].name} cell=${data.columns[y].cells[x]} onClose=${() => setPicked(null)} />`}
  <//>`;
}

function Windows({ windows }) {
  const zone = useZone();
  return html`<${Panel} title="Checks" mt=${4}>
    <${C.Box} as="ul" listStyleType="none" fontSize="sm" maxH="24rem" overflowY="auto" tabIndex=${0} aria-label="Drift checks">
      ${windows.toReversed().map(
        (w, i) => html`<${C.Flex} as="li" key=${w.key} gap=${3} py=${1.5} borderTopWidth=${i ? "1px" : 0} wrap="wrap" align="baseline">
          <${Word} tone=${w.tone}>${w.verdict}<//>
          <${C.Text} whiteSpace="nowrap">${windowText(w.window, zone)}<//>
          <${C.Text} flex="1" minW="14rem" overflowWrap="anywhere">${w.sentence}<//>
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
