// Opens the map of a network, checks it as a user would see it, and draws it to a PNG file.

import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { openBrowser, takePicture } from './browser.js';

const USAGE = `Opens the map of a network, checks it, and draws it to a PNG file. The last line that it prints is JSON.

  lab/boards/draw-map [OPTION…]

  --url URL         the page that a node serves
  --files FILE      JSON with html, policy and update, which are served as the page instead
  --out FILE        where the picture goes
  --nodes COUNT     how many nodes the map must show, the viewer included
  --until-gone ID   prints "ready", and waits until this node or tunnel is no longer drawn
`;
/** The address under which files are served to the browser, which no network reaches. */
const FILES_URL = 'http://map.invalid/map';
/** Longest wait for a change, in milliseconds. */
const CHANGE_TIMEOUT_MS = 60_000;
/** Width of the window, and its least height, in pixels. */
const WIDTH = 1500;
const LEAST_HEIGHT = 400;

function fail(message) {
  throw new Error(message);
}

function options() {
  const { values } = parseArgs({
    options: {
      url: { type: 'string' },
      files: { type: 'string' },
      out: { type: 'string' },
      nodes: { type: 'string' },
      'until-gone': { type: 'string' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help || (values.url === undefined) === (values.files === undefined)) {
    process.stdout.write(USAGE);
    process.exit(values.help ? 0 : 2);
  }
  return values;
}

/** Serves a page from files, with the header that a node sends. */
async function serve(page, file) {
  const { html, policy, update } = JSON.parse(await readFile(file, 'utf8'));
  await page.route('**/*', (route) => {
    const path = new URL(route.request().url()).pathname;
    if (path === '/map/update') return route.fulfill({ contentType: 'application/json', body: JSON.stringify(update) });
    if (path === '/map') return route.fulfill({ contentType: 'text/html', headers: { 'Content-Security-Policy': policy }, body: html });
    return route.fulfill({ status: 404, body: '' });
  });
}

/** Returns the least contrast of a text with what is behind it (WCAG 2.2, section 1.4.3). */
function leastContrast() {
  const luminance = (colour) => {
    const parts = colour.match(/[\d.]+/g).slice(0, 3).map((part) => part / 255);
    const [r, g, b] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (text) => {
    const behind = text.parentElement.querySelector(':scope > rect') ?? document.querySelector('.map .ground');
    const [low, high] = [text, behind].map((element) => luminance(getComputedStyle(element).fill)).sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  return Math.min(...[...document.querySelectorAll('.map text')].map(contrast));
}

/** Goes through the map by the keyboard; returns what the page says of the node that has the focus in the end. */
async function useKeyboard(page) {
  const name = await page.locator('.map .node').last().getAttribute('data-name');
  await page.keyboard.press('/');
  await page.keyboard.type(name);
  await page.keyboard.press('Enter');
  const found = await page.locator('#about').textContent();
  if (!found.includes(name)) fail(`the search for ${name} by the keyboard leads to "${found}"`);
  await page.keyboard.press('Escape');
  await page.keyboard.press('ArrowLeft');
  const about = await page.locator('#about').textContent();
  if ((await page.locator('.map .node').count()) > 1 && (about === '' || about === found)) fail(`the arrow keys do not move the focus: "${about}"`);
  await page.keyboard.press('Escape');
  return about;
}

/** Waits until a node is no longer drawn; returns the moment in milliseconds since 1970. */
async function waitUntilGone(page, id) {
  const isDrawn = `.map [data-id="${id}"]`;
  if ((await page.locator(isDrawn).count()) === 0) fail(`${id} is not drawn`);
  process.stdout.write('ready\n');
  await page.waitForFunction((selector) => !document.querySelector(selector), isDrawn, { timeout: CHANGE_TIMEOUT_MS, polling: 50 });
  return page.evaluate(() => Date.now());
}

async function main() {
  const settings = options();
  const { browser, page } = await openBrowser();
  try {
    const complaints = [];
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
    page.on('dialog', (dialog) => complaints.push(`dialog: ${dialog.message()}`));
    await page.setViewportSize({ width: WIDTH, height: LEAST_HEIGHT });
    if (settings.files) await serve(page, settings.files);
    const startedAt = Date.now();
    await page.goto(settings.url ?? FILES_URL);
    // A node whose traffic moves to another tunnel may be drawn twice for a moment.
    const isDrawn = ({ least, exactly }) => {
      const count = document.querySelectorAll('.map .node').length;
      return count >= least && (exactly === undefined || count === exactly) && count;
    };
    const exactly = settings.nodes === undefined ? undefined : Number(settings.nodes);
    const drawn = await page.waitForFunction(isDrawn, { least: 1, exactly }, { timeout: CHANGE_TIMEOUT_MS });
    const loadedMs = Date.now() - startedAt;
    const nodes = await drawn.jsonValue();
    const about = await useKeyboard(page);
    const contrast = await page.evaluate(leastContrast);
    if (settings.out) {
      await page.evaluate(() => document.activeElement?.blur());
      await page.evaluate(() => (document.getElementById('about').textContent = ''));
      await takePicture(page, settings.out, { fullPage: true });
    }
    const names = await page.locator('.map .node').evaluateAll((all) => all.map((node) => node.dataset.name));
    const goneAtMs = settings['until-gone'] ? await waitUntilGone(page, settings['until-gone']) : undefined;
    const left = await page.locator('.map .node').count();
    process.stdout.write(`${JSON.stringify({ nodes, left, names, about, contrast, loadedMs, goneAtMs, complaints })}\n`);
    if (complaints.length > 0) process.exitCode = 1;
  } finally {
    await browser.close();
  }
}

main().catch((error) => {
  process.stderr.write(`draw-map: ${error.message}\n`);
  process.exitCode = 1;
});
