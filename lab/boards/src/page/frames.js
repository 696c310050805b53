// Turns Prometheus' answers into the data frames that Grafana's components draw.

import {
  FieldType,
  applyFieldOverrides,
  cacheFieldDisplayNames,
  standardTransformers,
  standardTransformersRegistry,
  transformDataFrame,
} from '@grafana/data';
import { firstValueFrom } from 'rxjs';

standardTransformersRegistry.setInit(() =>
  [...new Set(Object.values(standardTransformers))].map((transformation) => ({
    id: transformation.id,
    name: transformation.name,
    transformation: () => transformation,
  })),
);

/** Returns a sample's number; Prometheus writes `NaN`, `+Inf` and `-Inf` as texts. */
function number(text) {
  return Number(text.replace('Inf', 'Infinity'));
}

/** Returns the name of a series: the target's legend with its labels filled in. */
function seriesName({ legend, query }, labels) {
  const { __name__: metric = '', ...others } = labels;
  const pairs = Object.entries(others).map(([label, value]) => `${label}="${value}"`);
  if (legend === '' || legend === '__auto') {
    return metric || pairs.length > 0 ? `${metric}${pairs.length > 0 ? `{${pairs.join(', ')}}` : ''}` : query;
  }
  return legend.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => labels[label] ?? '');
}

/** Returns a field; its values belong to the frame's rows. */
function field(name, type, values, more = {}) {
  return { name, type, values, config: {}, ...more };
}

/** Returns a frame for each series, with a row for each step; steps without a sample are null. */
function seriesFrames(answer) {
  return answer.result.map(({ metric, value, values = [value] }) => {
    const name = seriesName(answer, metric);
    // A graph has a gap where the answer is no number; a single figure says so.
    const isShown = ([, text]) => answer.isInstant || text !== 'NaN';
    const samples = new Map(values.filter(isShown).map(([time, text]) => [time, number(text)]));
    const times = [];
    if (answer.isInstant) times.push(value[0]);
    else for (let time = answer.start; time <= answer.end; time += answer.step) times.push(time);
    const { __name__: _, ...labels } = metric;
    return {
      refId: answer.refId,
      name,
      length: times.length,
      fields: [
        field('Time', FieldType.time, times.map((time) => time * 1000), { config: { interval: answer.step * 1000 } }),
        field('Value', FieldType.number, times.map((time) => samples.get(time) ?? null), {
          labels,
          config: { displayNameFromDS: name },
        }),
      ],
    };
  });
}

/** Returns one frame with a row for each sample and a column for each label. */
function tableFrame(answer, valueName) {
  const rows = answer.result.flatMap(({ metric, value, values = [value] }) =>
    values.map(([time, text]) => ({ metric, time: time * 1000, number: number(text) })),
  );
  const labels = [...new Set(answer.result.flatMap(({ metric }) => Object.keys(metric)))].sort();
  return {
    refId: answer.refId,
    length: rows.length,
    fields: [
      field('Time', FieldType.time, rows.map((row) => row.time)),
      ...labels.map((label) => field(label, FieldType.string, rows.map((row) => row.metric[label] ?? ''))),
      field(valueName, FieldType.number, rows.map((row) => row.number)),
    ],
  };
}

function framesOf(answer, answers) {
  if (answer.error) return [];
  if (answer.resultType === 'scalar' || answer.resultType === 'string') {
    return seriesFrames({ ...answer, result: [{ metric: {}, value: answer.result }] });
  }
  if (answer.format === 'table') return [tableFrame(answer, answers.length > 1 ? `Value #${answer.refId}` : 'Value')];
  return seriesFrames(answer);
}

/** The properties of fields that a board sets, as a registry that Grafana can ask for each of them. */
function registryOf({ defaults = {} }) {
  const item = (id) => {
    const isCustom = id.startsWith('custom.');
    const process = (value) => (id === 'thresholds' ? withLowestStep(value) : value);
    return { id, isCustom, path: isCustom ? id.slice('custom.'.length) : id, process, shouldApply: () => true };
  };
  const ids = Object.keys(defaults).filter((id) => id !== 'custom');
  const custom = Object.keys(defaults.custom ?? {}).map((id) => `custom.${id}`);
  return { getIfExists: item, get: item, list: () => [...ids, ...custom].map(item) };
}

/** Returns thresholds whose first step begins at minus infinity, for which JSON has no number. */
function withLowestStep(thresholds) {
  if (!thresholds?.steps) return thresholds;
  const steps = thresholds.steps.map((step, index) => (index === 0 ? { ...step, value: -Infinity } : step));
  return { ...thresholds, steps };
}

/** Returns the frames of a panel, transformed and with the panel's units, colours and names. */
export async function panelFrames({ panel, answers }, theme) {
  const raw = answers.flatMap((answer) => framesOf(answer, answers));
  const steps = (panel.transformations ?? []).filter((step) => !step.disabled);
  for (const { id } of steps) {
    if (!standardTransformersRegistry.getIfExists(id)) throw new Error(`the transformation "${id}" is not known`);
  }
  const data = await firstValueFrom(transformDataFrame(steps, raw, { interpolate: (text) => text }));
  const fieldConfig = { defaults: {}, overrides: [], ...panel.fieldConfig };
  const frames = applyFieldOverrides({
    data,
    fieldConfig,
    fieldConfigRegistry: registryOf(fieldConfig),
    replaceVariables: (text) => text,
    theme,
    timeZone: 'utc',
  });
  // Names that were remembered while overrides looked for fields are older than those that overrides set.
  for (const frame of frames) for (const { state } of frame.fields) delete state.displayName;
  cacheFieldDisplayNames(frames);
  return frames;
}
