// Draws the panels of each type that the boards use.

import { getDisplayValueAlignmentFactors, getFieldDisplayValues, renderMarkdown } from '@grafana/data';
import { BarGauge, BigValue, VizRepeater } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import { Timeline } from './timeline.jsx';
import { TimeSeries } from './timeseries.jsx';

/** What Grafana reduces a series to, unless the board says otherwise. */
const REDUCE = { calcs: ['lastNotNull'], fields: '', values: false };
/** Gap between two values of one panel, in pixels. */
const SPACING = 8;

/** Repeats a component for each value that the panel shows. */
function Values({ frames, panel, width, height, theme, sparkline, render }) {
  const options = panel.options ?? {};
  const getValues = () =>
    getFieldDisplayValues({
      data: frames,
      fieldConfig: { defaults: {}, overrides: [], ...panel.fieldConfig },
      reduceOptions: { ...REDUCE, ...options.reduceOptions },
      replaceVariables: (text) => text,
      sparkline,
      theme,
      timeZone: 'utc',
    });
  return (
    <VizRepeater
      getValues={getValues}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={render}
      width={width}
      height={height}
      source={frames}
      renderCounter={0}
      itemSpacing={SPACING}
      autoGrid
      orientation={options.orientation ?? 'auto'}
    />
  );
}

function Stat(props) {
  const { colorMode = 'value', graphMode = 'area', justifyMode = 'auto', textMode = 'auto', text } = props.panel.options ?? {};
  const render = ({ value, alignmentFactors, width, height, count }) => (
    <BigValue
      value={value.display}
      sparkline={value.sparkline}
      alignmentFactors={alignmentFactors}
      count={count}
      width={width}
      height={height}
      theme={props.theme}
      {...{ colorMode, graphMode, justifyMode, textMode, text }}
    />
  );
  return <Values {...props} sparkline={graphMode !== 'none'} render={render} />;
}

function Bars(props) {
  const { displayMode = 'gradient', showUnfilled = true, valueMode, namePlacement, sizing, text } = props.panel.options ?? {};
  const render = ({ value, alignmentFactors, orientation, width, height, count }) => (
    <BarGauge
      value={value.display}
      field={value.field}
      display={value.view?.getFieldDisplayProcessor(value.colIndex)}
      alignmentFactors={count > 1 ? alignmentFactors : undefined}
      orientation={orientation}
      width={width}
      height={height}
      itemSpacing={SPACING}
      lcdCellWidth={12}
      theme={props.theme}
      {...{ displayMode, showUnfilled, valueMode: valueMode ?? 'color', namePlacement, sizing, text }}
    />
  );
  return <Values {...props} render={render} />;
}

function Cells({ frames, panel, width, height, timeRange }) {
  const { frameIndex = 0, showHeader = true, cellHeight = 'sm', sortBy } = panel.options ?? {};
  return (
    <div style={{ width, height }}>
      <TableNG
        data={frames[frameIndex] ?? frames[0]}
        width={width}
        height={height}
        noHeader={!showHeader}
        cellHeight={cellHeight}
        sortBy={sortBy}
        timeRange={timeRange}
        structureRev={1}
        contentAwareWidthsEnabled
        enableVirtualization={false}
      />
    </div>
  );
}

function Text({ panel, text }) {
  const { mode = 'markdown' } = panel.options ?? {};
  return <div className="markdown-html" dangerouslySetInnerHTML={{ __html: mode === 'html' ? text : renderMarkdown(text) }} />;
}

/** The component for each panel type; `text` needs no data. */
export const PANELS = {
  timeseries: TimeSeries,
  'state-timeline': Timeline,
  'status-history': Timeline,
  stat: Stat,
  bargauge: Bars,
  table: Cells,
  text: Text,
};
