import { text } from "./text.js";

const show = (text) => (document.querySelector("#text").textContent = text);
show(text);
// A change of text.js is shown without a reload.
import.meta.hot?.accept("./text.js", (changed) => show(changed.text));
