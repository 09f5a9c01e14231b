// usage: report.mjs PLAYGROUND REPORT.json: the page's runs, by the installed package, in Node.
import { readFileSync, writeFileSync } from "node:fs";
import { argv } from "node:process";
import vm from "node:vm";
import * as bitstep from "bitstep";

const [, , playground, to] = argv;
for (const file of [`${playground}/surfaces.js`, `${playground}/trainer.js`, "report.js"]) vm.runInThisContext(readFileSync(file, "utf8"));
writeFileSync(to, JSON.stringify(vm.runInThisContext("report")(bitstep)));
