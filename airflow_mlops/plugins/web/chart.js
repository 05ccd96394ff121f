// Charts with axes, by ECharts; it is fetched only where one is shown.
import { C, React, colours, html, useTheme } from "./host.js";

let library;
const echarts = () => (library ??= import("./vendor/echarts.js"));

const TOKENS = {
  text: "fg",
  muted: "fg.muted",
  line: "border",
  panel: "bg.panel",
  ground: "bg",
  main: "blue.solid",
  other: "orange.solid",
  good: "green.solid",
  bad: "red.solid",
  faint: "bg.emphasized",
};

// From calm to urgent; the brightness goes one way, so that it is told without seeing hues.
const STEPS = {
  light: ["gray.100", "blue.200", "blue.300", "orange.500", "red.800"],
  dark: ["gray.800", "blue.800", "blue.500", "orange.500", "yellow.300"],
};

/** Five colours of a heat map, the calmest first. */
export function useSteps() {
  const theme = useTheme();
  return React.useMemo(() => Object.values(colours({ ...STEPS[theme] })), [theme]);
}

/** Axes, tooltip and legend in the page's own colours. */
const base = (paint, label) => ({
  animation: !matchMedia("(prefers-reduced-motion: reduce)").matches,
  textStyle: { color: paint.text, fontFamily: "inherit" },
  aria: { enabled: true, label: { description: label } },
  tooltip: {
    confine: true,
    backgroundColor: paint.panel,
    borderColor: paint.line,
    textStyle: { color: paint.text, fontSize: 12 },
  },
});

/** An axis in the page's colours. */
export const axis = (paint, more) => ({
  axisLabel: { color: paint.muted, hideOverlap: true },
  axisLine: { lineStyle: { color: paint.line } },
  axisTick: { lineStyle: { color: paint.line } },
  splitLine: { lineStyle: { color: paint.line, opacity: 0.6 } },
  nameTextStyle: { color: paint.muted },
  ...more,
});

/**
 * One chart. `option` is a function of the colours, so that a change of theme draws it anew; what stands in
 * tooltips is text: build it with `tip`.
 */
export function Chart({ option, height = 280, label, onClick }) {
  const box = React.useRef(null);
  const chart = React.useRef(null);
  const clicked = React.useRef(onClick);
  clicked.current = onClick;
  const theme = useTheme();
  const [lost, setLost] = React.useState(false);
  React.useEffect(() => {
    let gone = false;
    let watch;
    echarts().then(
      (ec) => {
        if (gone || !box.current) return;
        chart.current = ec.init(box.current);
        chart.current.on("click", (event) => clicked.current?.(event));
        const paint = colours(TOKENS);
        chart.current.setOption({ ...base(paint, label), ...option(paint) });
        watch = new ResizeObserver(() => chart.current?.resize());
        watch.observe(box.current);
      },
      () => setLost(true),
    );
    return () => {
      gone = true;
      watch?.disconnect();
      chart.current?.dispose();
      chart.current = null;
    };
  }, [theme, option]);
  if (lost) return html`<${C.Text} color="fg.muted">The chart could not be loaded; the table says the same.<//>`;
  return html`<${C.Box} ref=${box} width="100%" height="${height}px" role="img" aria-label=${label} />`;
}

/** A tooltip of lines of text: an element, so that no text is ever read as markup. */
export function tip(...lines) {
  const box = document.createElement("div");
  box.style.fontSize = "12px";
  for (const line of lines.filter(Boolean)) {
    const row = document.createElement("div");
    row.textContent = line;
    box.append(row);
  }
  return box;
}
