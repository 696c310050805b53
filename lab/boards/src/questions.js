// Asks Prometheus what the panels of a board want to know.

/** Least points in a graph, for narrow panels. */
const MIN_POINTS = 100;
/** Steps in seconds between two points of a graph. */
const STEPS_S = [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 21_600, 86_400];
/** Queries that are asked at the same time. */
const CONCURRENCY = 8;

/** Returns a panel's data source without the board's variables, for the message about an unknown one. */
function isPrometheus(source) {
  return !source || typeof source === 'string' || source.type === undefined || source.type === 'prometheus';
}

/** Returns the seconds between two points of a graph of this width in pixels. */
export function stepOf({ start, end }, width, minStep) {
  const least = Math.max((end - start) / Math.max(width, MIN_POINTS), minStep);
  return STEPS_S.find((step) => step >= least) ?? Math.ceil(least / 86_400) * 86_400;
}

/** Returns the built-in variables that depend on the step in seconds, as Grafana computes them. */
function stepVariables(step, scrapeInterval) {
  const rate = Math.max(step + scrapeInterval, 4 * scrapeInterval);
  return {
    __interval: `${step}s`,
    __interval_ms: String(step * 1000),
    __rate_interval: `${rate}s`,
    __rate_interval_ms: String(rate * 1000),
  };
}

/** Returns the built-in variables that depend on the range, whose ends are in seconds since 1970. */
export function rangeVariables({ start, end }) {
  const length = Math.round(end - start);
  return {
    __range: `${length}s`,
    __range_s: String(length),
    __range_ms: String(length * 1000),
    __from: String(start * 1000),
    __to: String(end * 1000),
    __auto: '',
  };
}

/** Runs jobs, some at a time, and returns their results in order. */
async function runAll(jobs) {
  const results = [];
  let next = 0;
  const worker = async () => {
    while (next < jobs.length) {
      const index = next++;
      results[index] = await jobs[index]();
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, worker));
  return results;
}

/**
 * Asks one target of a panel.
 *
 * Returns its answer as Prometheus gave it, or the error, and the query that was asked.
 */
async function ask(target, { panel, width, variables, prometheus, range, scrapeInterval }) {
  const isInstant = Boolean(target.instant) && !target.range;
  const minStep = Math.max(scrapeInterval, Number.parseInt(panel.interval, 10) || 0, Number.parseInt(target.interval, 10) || 0);
  const step = stepOf(range, panel.maxDataPoints ?? width, minStep);
  const query = variables.with(stepVariables(step, scrapeInterval)).inQuery(target.expr ?? '');
  const answer = { refId: target.refId, format: target.format ?? 'time_series', legend: target.legendFormat ?? '', query, isInstant, step };
  if (!isPrometheus(target.datasource ?? panel.datasource) || !target.expr) {
    return { ...answer, error: 'only queries to Prometheus are drawn here' };
  }
  try {
    const start = Math.floor(range.start / step) * step;
    const end = Math.floor(range.end / step) * step;
    const data = isInstant
      ? await prometheus.instant(query, range.end)
      : await prometheus.range(query, { start, end, step });
    return { ...answer, ...data, start, end };
  } catch (error) {
    return { ...answer, error: error.message };
  }
}

/** Asks all targets of all panels; returns for each panel the list of answers. */
export async function askAll(panels, context) {
  const questions = panels.flatMap(({ panel, width, variables }, index) =>
    (panel.targets ?? [])
      .filter((target) => !target.hide)
      .map((target) => async () => ({ index, answer: await ask(target, { ...context, panel, width, variables }) })),
  );
  const answers = await runAll(questions);
  return panels.map((_, index) => answers.filter((asked) => asked.index === index).map((asked) => asked.answer));
}

/** Returns the moments that the board's annotations mark, in milliseconds since 1970. */
export async function annotationsOf(board, { variables, prometheus, range, scrapeInterval }) {
  const enabled = (board.annotations?.list ?? []).filter((one) => one.enable && one.expr && isPrometheus(one.datasource));
  const step = stepOf(range, MIN_POINTS * 10, scrapeInterval);
  const marks = await runAll(
    enabled.map(({ expr, iconColor }) => async () => {
      const query = variables.with(stepVariables(step, scrapeInterval)).inQuery(expr);
      const { result } = await prometheus.range(query, { start: range.start, end: range.end, step });
      return result.flatMap(({ values }) => {
        const moments = values.filter(([, value]) => Number(value) > 0).map(([time]) => time);
        // An event lasts several steps, and is marked where it begins.
        const starts = moments.filter((time, index) => index === 0 || time - moments[index - 1] > step * 1.5);
        return starts.map((time) => ({ time: time * 1000, color: iconColor }));
      });
    }),
  );
  return marks.flat();
}
