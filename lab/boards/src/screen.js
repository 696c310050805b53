// Draws the text of a terminal to a PNG file: screen.js TEXT-FILE PNG-FILE.

import { readFile } from 'node:fs/promises';
import { openBrowser, takePicture } from './browser.js';

const STYLE = 'body{margin:0;display:inline-block;background:#1b1f24}pre{margin:12px;color:#f0f3f6;font:15px/1.25 "DejaVu Sans Mono",monospace}';

async function main() {
  const [from, to] = process.argv.slice(2);
  const text = await readFile(from, 'utf8');
  const { browser, page } = await openBrowser();
  try {
    await page.setContent(`<!doctype html><meta charset="utf-8"><style>${STYLE}</style><body><pre></pre></body>`);
    await page.locator('pre').evaluate((pre, shown) => (pre.textContent = shown), text);
    const box = await page.locator('body').boundingBox();
    await page.setViewportSize({ width: Math.ceil(box.width), height: Math.ceil(box.height) });
    await takePicture(page, to);
  } finally {
    await browser.close();
  }
}

main().catch((error) => {
  process.stderr.write(`draw-screen: ${error.message}\n`);
  process.exitCode = 1;
});
