// Draws Grafana boards to PNG files, from the answers of a Prometheus server.

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { openBrowser, takePicture } from './browser.js';
import { place } from './grid.js';
import { Prometheus, seconds } from './prometheus.js';
import { annotationsOf, askAll, rangeVariables } from './questions.js';
import { Variables } from './variables.js';

const USAGE = `Draws Grafana boards to PNG files, from the answers of a Prometheus server.

  lab/boards/draw [OPTION…] BOARD.json…

  --prometheus URL    the server [default: http://127.0.0.1:9090]
  --out FOLDER        where the pictures go, one a board, named as the board's file [default: .]
  --last DURATION     the span that graphs show, such as 15m [default: what the board says]
  --at SECONDS        its end, in seconds since 1970 [default: now]
  --set NAME=VALUE    the value of a variable; can be repeated
  --width PIXELS      width of the pictures [default: 1200]
  --report FILE       writes as JSON what each panel shows, and the answers behind it
`;
const HERE = dirname(fileURLToPath(import.meta.url));
/** The address under which the page is served to the browser, which no network reaches. */
const PAGE = 'http://boards.invalid/';
/** Time without a load after which a page is complete, in milliseconds. */
const SETTLING_MS = 200;
/** Height of the heading and of the line below the panels, in pixels. */
const HEADING_PX = 40;
const CAPTION_PX = 28;

function fail(message) {
  throw new Error(message);
}

function options() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      prometheus: { type: 'string', default: 'http://127.0.0.1:9090' },
      out: { type: 'string', default: '.' },
      last: { type: 'string' },
      at: { type: 'string' },
      set: { type: 'string', multiple: true, default: [] },
      width: { type: 'string', default: '1200' },
      report: { type: 'string' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help || positionals.length === 0) {
    process.stdout.write(USAGE);
    process.exit(values.help ? 0 : 2);
  }
  for (const name of ['at', 'width']) {
    if (values[name] !== undefined && !/^\d+$/.test(values[name])) throw new Error(`--${name} ${values[name]}: give a number`);
  }
  const chosen = values.set.map((pair) => /^(\w+)=(.*)$/s.exec(pair) ?? fail(`--set ${pair}: give NAME=VALUE`));
  return { ...values, boards: positionals, chosen: new Map(chosen.map(([, name, value]) => [name, value])) };
}

/** Returns the range that a board's graphs show, in seconds since 1970. */
function rangeOf(board, { last, at }) {
  const end = at === undefined ? Math.floor(Date.now() / 1000) : Number(at);
  const saved = /^now-(\w+)$/.exec(board.time?.from ?? '')?.[1];
  return { start: end - seconds(last ?? saved ?? '6h'), end };
}

async function readBoard(path) {
  const text = await readFile(path, 'utf8');
  let board;
  try {
    board = JSON.parse(text);
  } catch (error) {
    fail(`${path} is no JSON: ${error.message}`);
  }
  if (!Array.isArray(board?.panels)) fail(`${path} is no Grafana board: it has no list of panels`);
  return board;
}

/** Reads a board, gives its variables values, and asks all its queries. */
async function answered(path, prometheus, settings) {
  const board = await readBoard(path);
  const range = rangeOf(board, settings);
  const variables = new Variables(rangeVariables(range));
  for (const definition of board.templating?.list ?? []) {
    await variables.define(definition, settings.chosen.get(definition.name), prometheus, range);
  }
  const scrapeInterval = await prometheus.scrapeInterval();
  const placed = place(board, variables, Number(settings.width));
  const context = { prometheus, range, scrapeInterval };
  const answers = await askAll(placed, context);
  const panels = placed.map(({ variables: own, ...panel }, index) => ({
    ...panel,
    title: own.inText(panel.panel.title),
    text: own.inText(panel.panel.options?.content),
    answers: answers[index],
  }));
  return {
    title: board.title,
    variables: variables.texts(),
    range,
    panels,
    heading: HEADING_PX,
    height: Math.max(...panels.map((panel) => panel.top + panel.height), 0) + HEADING_PX + CAPTION_PX,
    annotations: await annotationsOf(board, { ...context, variables }),
  };
}

/** What the page is loading: icons, which it asks for after a board has been rendered. */
class Loads {
  #pending = 0;
  #last = 0;

  constructor(page) {
    page.on('request', () => (this.#pending += 1));
    for (const event of ['requestfinished', 'requestfailed']) page.on(event, () => this.#end());
  }

  #end() {
    this.#pending -= 1;
    this.#last = Date.now();
  }

  /** Waits until nothing has been loaded for a while. */
  async settle() {
    while (this.#pending > 0 || Date.now() - this.#last < SETTLING_MS) await setTimeout(SETTLING_MS / 4);
  }
}

/** Starts the browser and loads the page, which it serves itself: nothing comes from a network. */
async function openPage() {
  const { browser, page } = await openBrowser();
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(error.message));
  const loads = new Loads(page);
  await page.route('**/*', async (route) => {
    const path = new URL(route.request().url()).pathname;
    if (path === '/') {
      return route.fulfill({ contentType: 'text/html', body: '<!doctype html><meta charset="utf-8"><title>boards</title><body></body>' });
    }
    const icon = /\/img\/icons\/(.+\.svg)$/.exec(path)?.[1];
    const body = icon && (await readFile(join(HERE, '../node_modules/@grafana/ui/dist/public/img/icons', icon)).catch(() => undefined));
    return body ? route.fulfill({ contentType: 'image/svg+xml', body }) : route.fulfill({ status: 404, body: '' });
  });
  await page.goto(PAGE);
  await page.addStyleTag({ path: join(HERE, '../page.css') });
  await page.addScriptTag({ path: join(HERE, '../page.js') });
  return { browser, page, complaints, loads };
}

/** Draws one board into the page and to a file; returns what its panels show. */
async function draw(path, { page, complaints, loads }, prometheus, settings) {
  const name = basename(path, '.json');
  const board = await answered(path, prometheus, settings);
  complaints.length = 0;
  await page.setViewportSize({ width: Number(settings.width), height: Math.ceil(board.height) });
  const shown = await page.evaluate((drawn) => window.drawBoard(drawn), board);
  await loads.settle();
  const picture = join(settings.out, `${name}.png`);
  await takePicture(page, picture);
  const panels = board.panels.map(({ panel, title, answers }, index) => ({
    id: panel.id,
    type: panel.type,
    title,
    ...shown[index],
    queries: answers.map(({ refId, query, isInstant, error, result }) => ({ refId, query, isInstant, error, result })),
  }));
  const queries = panels.flatMap((panel) => panel.queries);
  const count = (what) => queries.filter(what).length;
  const failed = [
    ...queries.filter((query) => query.error).map((query) => `${query.query}: ${query.error}`),
    ...panels.filter((panel) => panel.error).map((panel) => `panel "${panel.title}": ${panel.error}`),
    ...complaints,
  ];
  process.stdout.write(
    `${name}.png: ${panels.length} panels, ${queries.length} queries, empty ${count((query) => query.result?.length === 0)}, errors ${failed.length}\n`,
  );
  for (const failure of failed) process.stderr.write(`${name}: ${failure}\n`);
  return { board: name, title: board.title, at: board.range.end, variables: board.variables, panels, failed };
}

async function main() {
  const settings = options();
  const prometheus = new Prometheus(settings.prometheus);
  await mkdir(settings.out, { recursive: true });
  const opened = await openPage();
  const reports = [];
  try {
    for (const path of settings.boards) reports.push(await draw(path, opened, prometheus, settings));
  } finally {
    await opened.browser.close();
  }
  for (const name of settings.chosen.keys()) {
    if (!reports.some(({ variables }) => name in variables)) fail(`--set ${name}: no board has this variable`);
  }
  if (settings.report) await writeFile(settings.report, JSON.stringify(reports));
  if (reports.some((report) => report.failed.length > 0)) process.exitCode = 1;
}

main().catch((error) => {
  process.stderr.write(`draw: ${error.message}\n`);
  process.exitCode = 1;
});
