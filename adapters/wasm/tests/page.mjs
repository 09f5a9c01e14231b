// usage: page.mjs PLAYGROUND FOLDER CHROMIUM: opens the page from a file and from a server, and checks what a user finds.
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { argv } from "node:process";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const [, , playground, folder, executablePath] = argv;
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
/** Of which the time is said. */
const LOADS = 9;
const types = { html: "text/html", js: "text/javascript", css: "text/css" };
const server = createServer((request, response) => {
  const path = `${playground}${request.url.split("?")[0].replace(/\/$/, "/index.html")}`;
  if (!existsSync(path)) return response.writeHead(404).end();
  response.writeHead(200, { "Content-Type": types[path.split(".").pop()] ?? "application/octet-stream" }).end(readFileSync(path));
}).listen(0);
const served = `http://127.0.0.1:${server.address().port}/`;

/** A page that has no errors and asks nobody else. */
async function open(address, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(120000); // of a machine that is busy
  page.setDefaultNavigationTimeout(120000);
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(error.stack));
  page.on("console", (message) => message.type() === "error" && !/favicon/.test(message.location().url) && wrong.push(message.text()));
  page.on("request", (request) => {
    const url = request.url();
    if (![served, "file://", "data:", "blob:"].some((own) => url.startsWith(own))) wrong.push(`asks ${url}`);
  });
  await page.goto(address);
  await page.waitForSelector("html[data-ready]", { timeout: 120000 });
  return { page, close: async () => (assert.deepEqual(wrong, []), context.close()) };
}
const shot = (page, name, fullPage = true) => page.screenshot({ path: `${folder}/${name}.png`, fullPage });
const settle = (page) => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));

try {
  const wide = { viewport: { width: 1320, height: 900 } };
  {
    // From a file, as after a clone: its runs, for the host to compute again.
    const { page, close } = await open(pathToFileURL(`${playground}/index.html`).href, wide);
    const load = Number(await page.getAttribute("html", "data-ready"));
    console.log(`web: the page, from a file: ready ${load} ms after it was opened`);
    await page.addScriptTag({ path: "report.js" });
    writeFileSync(`${folder}/report.json`, JSON.stringify(await page.evaluate(() => report(bitstep))));
    if (existsSync(`${folder}/facts.json`))
      assert.equal(await page.evaluate(() => facts(bitstep)), readFileSync(`${folder}/facts.json`, "utf8"), "the page is not of today's sources: run .ci/web write");
    await close();
  }
  {
    // From a server, by pointer.
    const { page, close } = await open(served, wide);
    assert.equal(await page.locator("#cards .card").count(), 4);
    assert.equal(await page.locator("#results tbody tr").count(), 4);
    for (const id of ["rates", "losses", "surface"]) assert.equal(await page.locator(`#${id} path.line`).count(), 4, id);
    // The picture does not say how fast this machine was today.
    await page.evaluate(() => ($("ready").textContent = $("ready").textContent.replace(/; ready in .*/, ".")));
    await shot(page, "playground");
    const before = await page.locator("#results").innerText();
    await page.locator("#surface").click({ position: { x: 60, y: 60 } });
    assert.notEqual(await page.locator("#results").innerText(), before, "a click moves the start");
    // What is wrong is said, next to where it is.
    const lr = page.locator("details[open] label", { hasText: /^lr$/ }).first().locator("input");
    await lr.fill("-1");
    await lr.press("Tab");
    assert.match(await page.locator(".card .error").first().innerText(), /lr is -1/);
    await lr.fill("0.2");
    await lr.press("Tab");
    assert.equal(await page.locator(".card .error").first().innerText(), "");
    // The address leads back to what is on the screen.
    const [address, json, table] = [page.url(), await page.locator("#json").innerText(), await page.locator("#results").innerText()];
    assert.equal(JSON.parse(json).learning_rate, 0.2);
    const { page: again, close: closeAgain } = await open(address, wide);
    assert.equal(await again.locator("#results").innerText(), table);
    await closeAgain();
    for (const name of await page.locator("#presets button").allInnerTexts()) {
      await page.locator("#presets button", { hasText: name }).click();
      assert.deepEqual((await page.locator(".card .error").allTextContents()).filter(Boolean), [], name);
      await shot(page, `preset-${name.toLowerCase().replace(/\W+/g, "-")}`);
    }
    // Every name can be chosen, and shows a result or says why there is none.
    const silent = await page.evaluate(() => {
      const names = [];
      for (const [label, key] of [["optimizer", "optimizer"], ["schedule", "schedule"]])
        for (const name of label === "optimizer" ? bitstep.optimizers() : SCHEDULES_OF_PAGE()) {
          const find = () => [...document.querySelectorAll("details[open] label")].find((l) => l.firstChild.textContent === label).querySelector("select");
          const select = find();
          select.value = name;
          select.onchange();
          const row = document.querySelector("#results tbody tr").innerText;
          if (!/[0-9]|lost/.test(row) || state.runs[0][key] !== name || results[0].error) names.push(`${name}: ${results[0].error}`);
        }
      return names;
    });
    assert.deepEqual(silent, []);
    await close();
  }
  {
    // A damaged address is no address.
    const made = (settings, ...runs) => `#${encodeURIComponent(JSON.stringify({ settings: { surface: "valley", ...settings }, runs }))}`;
    const good = { optimizer: "sgd", args: {}, schedule: "constant", scheduleArgs: {} };
    const damaged = ["#x", "#%7B%7D", "#%E0%A4%A", made({}), made({ surface: "constructor" }, good), made({ start: [0] }, good), made({ dtype: "f8" }, good)];
    for (const run of [5, null, { optimizer: 5 }, { ...good, optimizer: "sdg" }, { ...good, schedule: "toString" }]) damaged.push(made({}, run));
    for (const hash of damaged) {
      const { page, close } = await open(served + hash, wide);
      assert.equal(await page.locator("#cards .card").count(), 4, hash); // what it opens with
      await close();
    }
    // What is only out of range is brought back into it, or said.
    const { page, close } = await open(served + made({ steps: 1e99 }, good, { ...good, args: { lr: "x", momentum: [1] } }), wide);
    assert.equal(await page.locator("[name=steps]").inputValue(), "20000");
    const errors = await page.locator(".card .error").allTextContents();
    assert.ok(errors.length === 2 && !errors[0] && errors[1], JSON.stringify(errors));
    await close();
  }
  {
    // By keyboard alone.
    const { page, close } = await open(served, wide);
    const reached = new Set();
    for (let k = 0; k < 120; k++) {
      await page.keyboard.press("Tab");
      reached.add(await page.evaluate(() => document.activeElement.id || document.activeElement.name || document.activeElement.textContent.trim()));
    }
    for (const id of ["add", "share", "copy", "rates", "losses", "surface", "steps", "Which optimizer"]) assert.ok(reached.has(id), `Tab does not reach ${id}`);
    await page.locator("#presets button").nth(1).focus();
    await page.keyboard.press("Enter");
    assert.match(await page.locator("#surface-title").innerText(), /Rosenbrock/);
    await page.locator("#losses").focus();
    await page.keyboard.press("Home");
    await page.keyboard.press("ArrowRight");
    assert.match(await page.locator("#losses .readout").innerText(), /^step 1:/);
    const start = await page.locator("[name=start]").inputValue();
    await page.locator("#surface").focus();
    await page.keyboard.press("ArrowUp");
    assert.notEqual(await page.locator("[name=start]").inputValue(), start);
    await page.locator("#add").focus();
    await page.keyboard.press("Enter");
    assert.equal(await page.locator("#cards .card").count(), 5);
    await page.locator("#cards > .card > details > summary").nth(1).focus();
    await page.keyboard.press("Enter");
    await settle(page);
    assert.equal(await page.locator("#cards > .card > details[open]").count(), 1);
    assert.equal(await page.evaluate(() => active), 1);
    await close();
  }
  {
    // On a phone: nothing wider than the screen, and everything large enough for a finger.
    const { page, close } = await open(served, { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 });
    const sizes = () => page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    for (const name of await page.locator("#presets button").allInnerTexts()) {
      await page.locator("#presets button", { hasText: name }).tap();
      const [content, screen] = await sizes();
      assert.equal(screen, 360);
      assert.ok(content <= 360, `${name}: ${content} pixels wide`);
    }
    const small = await page.evaluate(() =>
      [...document.querySelectorAll("button, select, input")].filter((e) => e.offsetParent && e.getBoundingClientRect().height < 40).map((e) => e.outerHTML));
    assert.deepEqual(small, []);
    await shot(page, "phone");
    await close();
  }
  {
    // In the dark: readable text, lines and axes.
    const { page, close } = await open(served, { ...wide, colorScheme: "dark" });
    const contrasts = await page.evaluate(() => {
      const parse = (color) => color.match(/[\d.]+/g).map(Number);
      const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
      };
      const back = (e) => {
        for (; e; e = e.parentElement) {
          const color = parse(getComputedStyle(e).backgroundColor);
          if (color.length < 4 || color[3] > 0) return color;
        }
      };
      const ratio = (a, b) => {
        const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
        return (high + 0.05) / (low + 0.05);
      };
      const found = [];
      for (const selector of ["body", "h1", ".hint", "button", "select", "input", "th", "td", "pre", ".readout", "label"]) {
        const e = document.querySelector(selector);
        found.push([selector, ratio(parse(getComputedStyle(e).color), back(e))]);
      }
      const card = document.querySelector("#losses");
      for (const line of document.querySelectorAll("#losses .line")) found.push(["line", ratio(parse(getComputedStyle(line).stroke), back(card))]);
      for (const tick of document.querySelectorAll("#losses .tick")) found.push(["tick", ratio(parse(getComputedStyle(tick).fill), back(card))]);
      return [light(back(document.body)), found];
    });
    assert.ok(contrasts[0] < 0.05, "the page is dark");
    for (const [what, ratio] of contrasts[1]) assert.ok(ratio >= (what === "line" ? 3 : 4.5), `${what}: contrast ${ratio.toFixed(2)}`);
    await shot(page, "dark");
    await close();
  }
  {
    const times = [];
    for (let k = 0; k < LOADS; k++) {
      const { page, close } = await open(served, wide);
      times.push(Number(await page.getAttribute("html", "data-ready")));
      await close();
    }
    times.sort((a, b) => a - b);
    console.log(`web: the page, from a server, nothing cached: ready after ${times[0]} to ${times.at(-1)} ms, median ${times[LOADS >> 1]} of ${LOADS} loads`);
  }
} finally {
  await browser.close();
  server.close();
}
