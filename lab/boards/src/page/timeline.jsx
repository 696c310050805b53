// Draws a panel of the type `state-timeline` or `status-history`: a row for each series, a box for each state.

import { FieldType, colorManipulator, formattedValueToString, getFieldDisplayName } from '@grafana/data';
import { AxisPlacement, ScaleDirection, ScaleOrientation, UPlotChart, UPlotConfigBuilder, VizLayout, VizLegend } from '@grafana/ui';
import { useMemo } from 'react';

/** Part of a row's height that its boxes take, and the opacity of their colour, unless the board says otherwise. */
const ROW_HEIGHT = 0.9;
const FILL_OPACITY = 70;
/** Gap between a box and its text, and the least width of a box that has a text, in pixels. */
const TEXT_PADDING = 4;
const TEXT_FONT_PX = 12;

/** Adds the time axis. */
function addTimeAxis(builder, timeRange, theme) {
  builder.addScale({
    scaleKey: 'x',
    isTime: true,
    orientation: ScaleOrientation.Horizontal,
    direction: ScaleDirection.Right,
    range: () => [timeRange.from.valueOf(), timeRange.to.valueOf()],
  });
  builder.addAxis({ scaleKey: 'x', isTime: true, placement: AxisPlacement.Bottom, timeZone: 'utc', theme });
}

/** Returns the rows: name, and the times and values of each series. */
function rowsOf(frames) {
  return frames.flatMap((frame) => {
    const time = frame.fields.find((field) => field.type === FieldType.time);
    const states = frame.fields.filter((field) => field !== time);
    return states.map((field) => ({ name: getFieldDisplayName(field, frame, frames), field, times: time?.values ?? [], values: field.values }));
  });
}

/** Returns the spans of a row in which the shown state stays the same. */
function boxesOf({ field, times, values }, step, doMerge) {
  const boxes = [];
  values.forEach((value, index) => {
    if (value == null) return;
    const shown = field.display(value);
    const text = formattedValueToString(shown);
    const last = boxes.at(-1);
    if (doMerge && last?.text === text && last.end === times[index]) last.end = times[index] + step;
    else boxes.push({ start: times[index], end: times[index] + step, text, color: shown.color });
  });
  return boxes;
}

/** Paints the boxes of all rows into the plot. */
function paint(plot, rows, options, theme) {
  const { ctx, bbox } = plot;
  const rowHeight = bbox.height / rows.length;
  const boxHeight = rowHeight * (options.rowHeight ?? ROW_HEIGHT);
  const ratio = window.devicePixelRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.font = `500 ${TEXT_FONT_PX * ratio}px ${theme.typography.fontFamily}`;
  ctx.textBaseline = 'middle';
  rows.forEach((row, index) => {
    const top = bbox.top + rowHeight * index + (rowHeight - boxHeight) / 2;
    const opacity = (row.field.config.custom?.fillOpacity ?? FILL_OPACITY) / 100;
    for (const box of row.boxes) {
      const [left, right] = [box.start, box.end].map((time) => plot.valToPos(time, 'x', true));
      const fill = colorManipulator.alpha(box.color ?? theme.colors.text.disabled, opacity);
      ctx.fillStyle = fill;
      ctx.fillRect(left, top, right - left, boxHeight);
      const hasRoom = ctx.measureText(box.text).width + 2 * TEXT_PADDING * ratio <= right - left && boxHeight >= TEXT_FONT_PX * ratio;
      if (options.showValue === 'never' || !hasRoom) continue;
      ctx.fillStyle = theme.colors.getContrastText(box.color ?? theme.colors.text.disabled);
      ctx.fillText(box.text, left + TEXT_PADDING * ratio, top + boxHeight / 2);
    }
  });
  ctx.restore();
}

export function Timeline({ frames, panel, width, height, timeRange, theme }) {
  const options = panel.options ?? {};
  const rows = useMemo(() => {
    const named = rowsOf(frames);
    return named.map((row) => {
      const step = row.times.length > 1 ? row.times[1] - row.times[0] : 0;
      return { ...row, boxes: boxesOf(row, step, panel.type === 'state-timeline' && options.mergeValues !== false) };
    });
  }, [frames, panel, options]);
  const builder = useMemo(() => {
    const made = new UPlotConfigBuilder('utc');
    const middles = rows.map((_, index) => 1 - (index + 0.5) / rows.length);
    addTimeAxis(made, timeRange, theme);
    made.addScale({ scaleKey: 'y', orientation: ScaleOrientation.Vertical, direction: ScaleDirection.Up, range: () => [0, 1] });
    made.addAxis({
      scaleKey: 'y',
      placement: AxisPlacement.Left,
      splits: () => middles,
      values: () => rows.map((row) => row.name),
      grid: { show: false },
      ticks: { show: false },
      theme,
    });
    // A plot needs a series, and the hook paints instead.
    made.addSeries({ scaleKey: 'y', theme, pathBuilder: () => null, pointsBuilder: () => false });
    made.addHook('draw', (plot) => paint(plot, rows, options, theme));
    return made;
  }, [rows, timeRange, options, theme]);
  const data = useMemo(() => [[timeRange.from.valueOf(), timeRange.to.valueOf()], [0, 0]], [timeRange]);
  const states = new Map(rows.flatMap((row) => row.boxes.map((box) => [box.text, box.color])));
  const items = [...states].map(([label, color]) => ({ label, color, yAxis: 1 }));
  const legend = options.legend ?? {};
  const isShown = legend.showLegend !== false && legend.displayMode !== 'hidden';
  return (
    <VizLayout
      width={width}
      height={height}
      legend={
        isShown ? (
          <VizLayout.Legend placement={legend.placement ?? 'bottom'}>
            <VizLegend items={items} displayMode={legend.displayMode ?? 'list'} placement={legend.placement ?? 'bottom'} />
          </VizLayout.Legend>
        ) : null
      }
    >
      {(plotWidth, plotHeight) => <UPlotChart config={builder} data={data} width={plotWidth} height={plotHeight} />}
    </VizLayout>
  );
}
