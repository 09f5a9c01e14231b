// usage: facts.mjs PACKAGE FACTS.json: what a package knows.
import { readFileSync, writeFileSync } from "node:fs";
import { argv } from "node:process";
import vm from "node:vm";

const [, , from, to] = argv;
vm.runInThisContext(readFileSync("report.js", "utf8"));
writeFileSync(to, vm.runInThisContext("facts")(await import(from)));
