// Draws a panel of the type `timeseries` with the component of @grafana/ui, and the moments that annotations mark.

import { TimeSeries as Graph } from '@grafana/ui';

/** Dashes of the lines that mark moments, in pixels. */
const MARK_DASH = [4, 4];
const LEGEND = { calcs: [], displayMode: 'list', placement: 'bottom', showLegend: true };

/** Paints a dashed vertical line for each marked moment. */
function paintMarks({ ctx, bbox, valToPos }, annotations, theme) {
  ctx.save();
  ctx.setLineDash(MARK_DASH);
  for (const { time, color } of annotations) {
    const x = Math.round(valToPos(time, 'x', true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.strokeStyle = theme.visualization.getColorByName(color ?? 'red');
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

export function TimeSeries({ frames, panel, width, height, timeRange, annotations, theme }) {
  const marked = new WeakSet();
  return (
    <Graph
      frames={frames}
      width={width}
      height={height}
      timeRange={timeRange}
      timeZone="utc"
      legend={{ ...LEGEND, ...panel.options?.legend }}
      options={panel.options}
    >
      {(config) => {
        if (!marked.has(config)) config.addHook('draw', (plot) => paintMarks(plot, annotations, theme));
        marked.add(config);
        return null;
      }}
    </Graph>
  );
}
