// Finds and starts the browser in which pages are drawn.

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';
import { chromium } from 'playwright-core';

/** Where Debian and others install Chromium. */
const BROWSERS = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
/** Colours of a picture. */
const COLOURS = 256;

/** Starts the browser, and opens a page whose language and time zone do not depend on the host. */
export async function openBrowser() {
  const executablePath = process.env.CHROMIUM ?? BROWSERS.find(existsSync);
  if (!executablePath) throw new Error(`no Chromium in ${BROWSERS.join(', ')}: install it, or name it by CHROMIUM=PATH`);
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
  const context = await browser.newContext({
    timezoneId: 'UTC',
    locale: 'en-GB',
    reducedMotion: 'reduce',
  });
  return { browser, page: await context.newPage() };
}

/** Saves a picture of the page. */
export async function takePicture(page, file, options = {}) {
  await page.screenshot({ path: file, animations: 'disabled', ...options });
  // A palette makes a picture a third as large.
  await promisify(execFile)('pngquant', ['--force', '--strip', '--output', file, String(COLOURS), file]);
}
