// Bundles the page with all that it needs into one script: bundle.js FILE.

import { build } from 'esbuild';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));

await build({
  entryPoints: [join(here, 'page/page.jsx')],
  outfile: process.argv[2],
  bundle: true,
  minify: true,
  format: 'iife',
  jsx: 'automatic',
  target: 'chrome110',
  define: { 'process.env.NODE_ENV': '"production"', global: 'window' },
  loader: { '.woff': 'empty', '.woff2': 'dataurl', '.ttf': 'empty', '.svg': 'dataurl', '.png': 'dataurl' },
  logLevel: 'warning',
});
