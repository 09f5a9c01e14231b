// In Node the module is compiled at once; `init` is there so that the same program runs in a browser.
import { readFileSync } from "node:fs";
import { initSync } from "./bitstep.js";

initSync({ module: readFileSync(new URL("bitstep_bg.wasm", import.meta.url)) });

export * from "./bitstep.js";
export default async function init() {}
