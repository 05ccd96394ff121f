// How well the champion did, window by window, with its interval and the moments when the champion changed.
import { C, React, html, useZone } from "./host.js";
import { useData } from "./api.js";
import { Chart, axis, tip } from "./chart.js";
import { NONE, day, number, windowText } from "./format.js";
import { ChartOrTable, Panel, Small } from "./parts.js";
import { Empty, Read } from "./states.js";

// In the legend, of lines that have no points.
const DASHES = "path://M0 5h8v2H0zM11 5h8v2h-8zM22 5h8v2h-8z";

const at = (point) => Date.parse(point.window.end);

/** The option of the chart; a gap in the values is a gap in the line. */
function drawn(data, zone) {
  const { points, marks, metric } = data;
  const line = (pick) => points.map((p) => [at(p), pick(p) ?? null]);
  const seen = points.some((p) => p.estimate);
  // The champion of the first point was promoted before it: the axis begins there, so that its line is seen.
  const first = marks.filter((m) => Date.parse(m.at) <= at(points[0])).at(-1);
  return (paint) => {
    const toned = { ok: paint.main, warning: paint.other, bad: paint.bad, unknown: paint.muted, info: paint.main };
    return {
      grid: { left: 8, right: 24, top: 36, bottom: 8, containLabel: true },
      legend: { top: 0, left: 0, textStyle: { color: paint.text }, data: [metric, { name: "at training", icon: DASHES }, ...(seen ? [{ name: "estimate", icon: DASHES }] : [])] },
      xAxis: axis(paint, { type: "time", splitLine: { show: false }, ...(first ? { min: Date.parse(first.at) } : {}) }),
      yAxis: axis(paint, { type: "value", scale: true }),
      tooltip: {
        ...{ confine: true, backgroundColor: paint.panel, borderColor: paint.line, textStyle: { color: paint.text, fontSize: 12 } },
        trigger: "axis",
        formatter: (items) => {
          const p = points[items[0]?.dataIndex];
          if (!p) return "";
          return tip(
            windowText(p.window, zone),
            p.value === null ? "outcomes are pending" : `${metric} ${number(p.value)}${p.low === null ? "" : ` (${number(p.low)} to ${number(p.high)})`}`,
            p.estimate && `estimate without outcomes ${number(p.estimate.value)}`,
            p.version !== null && `v${p.version}, ${number(p.rows)} rows`,
            p.sentence,
          );
        },
      },
      series: [
        // The band: an invisible floor and what stands on it.
        { type: "line", stack: "band", stackStrategy: "all", data: line((p) => p.low), lineStyle: { opacity: 0 }, symbol: "none", silent: true, tooltip: { show: false } },
        {
          type: "line", stack: "band", stackStrategy: "all", data: line((p) => (p.low === null || p.high === null ? null : p.high - p.low)),
          lineStyle: { opacity: 0 }, symbol: "none", silent: true, areaStyle: { color: paint.main, opacity: 0.18 },
        },
        {
          name: metric, type: "line", data: points.map((p) => ({ value: [at(p), p.value], itemStyle: { color: toned[p.tone] } })),
          color: paint.main, symbolSize: 7, showAllSymbol: true, lineStyle: { width: 2 },
          markLine: {
            symbol: "none", animation: false, label: { color: paint.muted, formatter: (m) => m.name, fontSize: 11 },
            lineStyle: { color: paint.good, type: "solid", width: 1 },
            data: marks.map((m) => ({
              xAxis: Date.parse(m.at), name: `v${m.version}`,
              ...(m.what === "promoted" ? {} : { lineStyle: { color: paint.bad } }),
            })),
          },
        },
        // A point stands at the end of its window: what it says holds from the point before.
        { name: "at training", type: "line", step: "start", data: line((p) => p.baseline), color: paint.muted, symbol: "none", lineStyle: { type: "dashed", width: 1.5 } },
        ...(seen ? [{ name: "estimate", type: "line", data: line((p) => p.estimate?.value), color: paint.other, symbol: "none", lineStyle: { type: "dotted", width: 1.5 } }] : []),
      ],
    };
  };
}

function Course({ data }) {
  const zone = useZone();
  const option = React.useMemo(() => drawn(data, zone), [data, zone]);
  const table = {
    heads: ["Window", data.metric, "95 % interval", "At training", "Rows", "Version", "Verdict"],
    rows: data.points.map((p) => [
      windowText(p.window, zone), number(p.value), p.low === null ? NONE : `${number(p.low)} to ${number(p.high)}`, number(p.baseline),
      number(p.rows), p.version === null ? NONE : `v${p.version}`, p.sentence || p.verdict,
    ]),
  };
  const label = `${data.metric} over ${data.points.length} windows; ${data.marks.length} changes of the champion`;
  return html`<${Panel} title=${`${data.metric} over time`}>
    <${ChartOrTable} label="Performance" table=${table}><${Chart} option=${option} height=${340} label=${label} /><//>
    <${Small} mt=${2}>
      ${data.lower_is_better ? "Lower is better." : "Higher is better."} The band is the 95 % interval; a vertical line is
      a new champion, a red one a roll-back.
    <//>
  <//>`;
}

function Changes({ marks }) {
  const zone = useZone();
  if (marks.length === 0) return null;
  return html`<${Panel} title="When the champion changed" mt=${4}>
    <${C.Box} as="ul" listStyleType="none" fontSize="sm">
      ${marks.toReversed().map(
        (m, i) => html`<${C.Box} as="li" key=${i} py=${1.5} borderTopWidth=${i ? "1px" : 0} overflowWrap="anywhere">
          <${C.Text} as="span" fontWeight="medium">v${m.version} ${m.what}<//>${" "}
          <${C.Text} as="span" color="fg.muted">after data until ${day(m.at, zone)}${m.by ? `, by ${m.by}` : ""}<//>
          ${m.reason && html`<${Small}>${m.reason}<//>`}
        <//>`,
      )}
    <//>
  <//>`;
}

export default function Performance({ query }) {
  const read = useData(query("performance"), () => 60_000);
  return html`<${Read} of=${read} what="the performance" rows=${6}>
    ${(data) =>
      data.metric === null || data.points.length === 0
        ? html`<${React.Fragment}>
            <${Empty} title="No performance has been measured yet">
              It is measured when outcomes arrive: give the pipeline monitor.labels and monitor.performance.
            <//>
            <${Changes} marks=${data.marks} />
          <//>`
        : html`<${React.Fragment}><${Course} data=${data} /><${Changes} marks=${data.marks} /><//>`}
  <//>`;
}
