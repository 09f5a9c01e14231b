// usage: wasi.mjs MODULE [ARGUMENTS…]: runs a WebAssembly program with this folder as its root.
import { readFile } from 'node:fs/promises';
import { argv, env } from 'node:process';
import { WASI } from 'node:wasi';

const [, , file, ...rest] = argv;
const wasi = new WASI({ version: 'preview1', args: [file, ...rest], env, preopens: { '.': '.' } });
const module = await WebAssembly.compile(await readFile(file));
const instance = await WebAssembly.instantiate(module, wasi.getImportObject());
process.exitCode = wasi.start(instance);
