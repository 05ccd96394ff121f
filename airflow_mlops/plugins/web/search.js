// A search field that asks when the hand rests.
import { C, React, html } from "./host.js";

export function SearchField({ label, value, onChange }) {
  const [text, setText] = React.useState(value);
  const tell = React.useRef(onChange);
  tell.current = onChange;
  // What it has asked for itself comes back as `value`, by when more may have been typed.
  const told = React.useRef(value);
  React.useEffect(() => {
    if (value === told.current) return;
    told.current = value;
    setText(value);
  }, [value]);
  React.useEffect(() => {
    if (text === told.current) return undefined;
    const timer = setTimeout(() => {
      told.current = text;
      tell.current(text);
    }, 300);
    return () => clearTimeout(timer);
  }, [text]);
  return html`<${C.Input} type="search" size="sm" maxW=${{ base: "100%", md: "20rem" }} placeholder=${label} aria-label=${label}
    value=${text} onChange=${(e) => setText(e.target.value)} />`;
}
