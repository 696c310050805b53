// Asks a Prometheus server over its HTTP API (https://prometheus.io/docs/prometheus/latest/querying/api/).

/** Longest wait for one response, in milliseconds. */
const TIMEOUT_MS = 30_000;
/** Scrape interval in seconds that is assumed while the server has no target. */
const DEFAULT_SCRAPE_INTERVAL_S = 15;
const SECONDS = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86_400, w: 604_800, y: 31_536_000 };

/** Returns the seconds of a duration such as `90s`, `1h30m` or `7d`; throws if it is none. */
export function seconds(duration) {
  const parts = [...duration.matchAll(/(\d+)(ms|[smhdwy])/g)];
  if (parts.length === 0 || parts.map((part) => part[0]).join('') !== duration) {
    throw new Error(`"${duration}" is no duration such as 90s, 1h30m or 7d`);
  }
  return parts.reduce((sum, [, count, unit]) => sum + Number(count) * SECONDS[unit], 0);
}

export class Prometheus {
  /** @param {string} url address of the server, such as `http://127.0.0.1:9090` */
  constructor(url) {
    this.url = url.replace(/\/$/, '');
  }

  /** Returns the field `data` of a response; throws what the server reports as an error. */
  async get(path, parameters = {}) {
    const url = `${this.url}/api/v1/${path}?${new URLSearchParams(parameters)}`;
    let response;
    try {
      response = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS) });
    } catch (error) {
      throw new Error(`no response from Prometheus at ${this.url}: ${error.cause?.message ?? error.message}`);
    }
    const body = await response.json().catch(() => ({ error: `HTTP status ${response.status}` }));
    if (body.status !== 'success') {
      throw new Error(body.error ?? `HTTP status ${response.status}`);
    }
    return body.data;
  }

  /** Evaluates a query at one time, in seconds since 1970. */
  instant(query, time) {
    return this.get('query', { query, time });
  }

  /** Evaluates a query at each step from `start` to `end`; all three in seconds. */
  range(query, { start, end, step }) {
    return this.get('query_range', { query, start, end, step });
  }

  /** Returns the values of a label, of all series or of those that a selector matches. */
  labelValues(label, selector, { start, end }) {
    const path = `label/${encodeURIComponent(label)}/values`;
    return this.get(path, { start, end, ...(selector ? { 'match[]': selector } : {}) });
  }

  /** Returns the longest interval in seconds at which a target is scraped. */
  async scrapeInterval() {
    const { activeTargets } = await this.get('targets', { state: 'active' });
    const intervals = activeTargets.map((target) => seconds(target.scrapeInterval));
    return intervals.length > 0 ? Math.max(...intervals) : DEFAULT_SCRAPE_INTERVAL_S;
  }
}
