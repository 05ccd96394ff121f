// What the page around us gives: React, Chakra UI and the router are Airflow's own, so that theme, keyboard
// behaviour and addresses are Airflow's too. Nothing here is built: the browser loads these files as they are.
import htm from "./vendor/htm.js";

export const React = globalThis.React;
export const C = globalThis.ChakraUI;
export const Router = globalThis.ReactRouterDOM;
export const html = htm.bind(React.createElement);

/** Airflow's root as a URL; it may lie below a prefix, which only the page's <base> knows. */
export const here = (path) => new URL(path, document.baseURI);

const ZONE_KEY = "timezone"; // where Airflow keeps the user's choice, as JSON

function chosenZone() {
  try {
    const zone = JSON.parse(localStorage.getItem(ZONE_KEY));
    if (typeof zone === "string") {
      new Intl.DateTimeFormat("en", { timeZone: zone }); // throws for a zone this browser does not know
      return zone;
    }
  } catch {
    // Nothing chosen, or nothing usable: the browser's zone, as Airflow does.
  }
  return Intl.DateTimeFormat().resolvedOptions().timeZone;
}

function onZone(changed) {
  // Airflow tells its own window by "local-storage"; other windows get the browser's "storage".
  for (const name of ["storage", "local-storage"]) addEventListener(name, changed);
  return () => {
    for (const name of ["storage", "local-storage"]) removeEventListener(name, changed);
  };
}

/** The time zone that is chosen in Airflow; the caller is drawn again when it changes. */
export const useZone = () => React.useSyncExternalStore(onZone, chosenZone);

function onTheme(changed) {
  const watch = new MutationObserver(changed);
  watch.observe(document.documentElement, { attributes: true, attributeFilter: ["class", "data-theme", "style"] });
  return () => watch.disconnect();
}

/** "dark" or "light", for what is painted on a canvas; all else follows Chakra's tokens. */
export const useTheme = () =>
  React.useSyncExternalStore(onTheme, () => (document.documentElement.classList.contains("dark") ? "dark" : "light"));

/** Colours of Chakra tokens as "rgb(…)": a canvas knows no CSS variables, and ECharts no oklch. */
export function colours(tokens) {
  const dot = document.createElement("canvas");
  dot.width = dot.height = 1;
  const pen = dot.getContext("2d", { willReadFrequently: true });
  const style = getComputedStyle(document.documentElement);
  const found = {};
  for (const [name, token] of Object.entries(tokens)) {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = style.getPropertyValue(`--chakra-colors-${token.replaceAll(".", "-")}`).trim() || "gray";
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b] = pen.getImageData(0, 0, 1, 1).data;
    found[name] = `rgb(${r}, ${g}, ${b})`;
  }
  return found;
}

const phone = matchMedia("(max-width: 640px)");

function onWidth(changed) {
  phone.addEventListener("change", changed);
  return () => phone.removeEventListener("change", changed);
}

/** Whether the window is as narrow as a phone: cards then, no wide tables. */
export const usePhone = () => React.useSyncExternalStore(onWidth, () => phone.matches);
