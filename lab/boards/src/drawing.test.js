import assert from 'node:assert/strict';
import { test } from 'node:test';
import { place } from './grid.js';
import { seconds } from './prometheus.js';
import { stepOf } from './questions.js';
import { Variables } from './variables.js';

/** A server that knows these values of every label, and one series for each of them. */
function serverWith(...values) {
  const series = (name) => ({ metric: { instance: `${name}:9197`, node: name }, value: [1, '1'] });
  return { labelValues: async () => values, instant: async () => ({ result: values.map(series) }) };
}

async function defined(definition, chosen, ...values) {
  const variables = new Variables({ __range: '60s' });
  await variables.define({ name: 'node', type: 'query', query: 'label_values(up, instance)', ...definition }, chosen, serverWith(...values), {});
  return variables;
}

test('all values of a variable become alternatives, escaped for a string of PromQL', async () => {
  const variables = await defined({ includeAll: true, current: { value: ['$__all'] } }, undefined, '[fd00::1]:9197', 'b');
  assert.equal(variables.inQuery('up{instance=~"$node"}'), 'up{instance=~"(\\\\[fd00::1\\\\]:9197|b)"}');
  assert.equal(variables.inText('up of ${node}'), 'up of [fd00::1]:9197 + b');
});

test('a variable without a saved value has its first option, and one with a value that is gone, too', async () => {
  for (const current of [{}, { value: 'gone' }]) {
    const variables = await defined({ current }, undefined, 'a.b', 'c');
    assert.equal(variables.inQuery('{x="$node"} {x=~"${node:regex}"} [$__range] $other'), '{x="a.b"} {x=~"a\\\\.b"} [60s] $other');
  }
});

test('the command line decides first, and an all-value is taken as it is', async () => {
  const chosen = await defined({ includeAll: true, allValue: '.*' }, 'c', 'a', 'c');
  assert.equal(chosen.inQuery('$node'), 'c');
  const all = await defined({ includeAll: true, allValue: '.*' }, undefined, 'a', 'c');
  assert.equal(all.inQuery('$node'), '.*');
});

test('options are filtered by the first group of an expression, and sorted', async () => {
  const variables = await defined({ includeAll: true, regex: '/(.*):9197/', sort: 2 }, undefined, 'a:9197', 'c:1', 'b:9197');
  assert.equal(variables.inQuery('$node'), '(b|a)');
});

test('value and text of an option come from different labels of a series, and either chooses it', async () => {
  const definition = { query: 'query_result(info)', regex: '/instance="(?<value>[^"]+)|node="(?<text>[^"]+)/g' };
  for (const chosen of ['b', 'b:9197']) {
    const variables = await defined(definition, chosen, 'a', 'b');
    assert.equal(variables.inQuery('$node'), 'b:9197');
    assert.equal(variables.inText('$node'), 'b');
  }
});

test('a step is a round number of seconds, and never shorter than a scrape', () => {
  assert.equal(stepOf({ start: 0, end: 6 * 3600 }, 500, 15), 60);
  assert.equal(stepOf({ start: 0, end: 100 }, 500, 15), 15);
});

test('durations are read as Prometheus writes them', () => {
  assert.equal(seconds('1h30m'), 5400);
  assert.equal(seconds('7d'), 604_800);
  assert.throws(() => seconds('soon'), /no duration/);
});

test('a repeated panel has a copy for each value, and moves down what is below it', async () => {
  const variables = await defined({ includeAll: true }, undefined, 'a', 'b', 'c');
  const panels = [
    { title: 'below', gridPos: { x: 0, y: 4, w: 24, h: 4 } },
    { title: 'each', repeat: 'node', maxPerRow: 2, gridPos: { x: 0, y: 0, w: 24, h: 4 } },
  ];
  const placed = place({ panels }, variables, 1200);
  assert.deepEqual(
    placed.map(({ panel, variables: own }) => [panel.title, own.inText('$node'), panel.gridPos.x, panel.gridPos.y]),
    [
      ['each', 'a', 0, 0],
      ['each', 'b', 12, 0],
      ['each', 'c', 0, 4],
      ['below', 'a + b + c', 0, 8],
    ],
  );
});
