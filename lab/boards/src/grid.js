// Places panels on the board's grid as Grafana does.

/** Columns of the grid. */
const COLUMNS = 24;
/** Height of one row of the grid, and the gap between two panels, in pixels. */
const ROW_HEIGHT = 30;
const GAP = 8;

/** Returns one panel for each value of the variable that it is repeated for. */
function repeated(panel, variables) {
  const values = variables.selected(panel.repeat);
  const isVertical = panel.repeatDirection === 'v';
  const perRow = Math.min(values.length, panel.maxPerRow ?? 4);
  const w = isVertical ? panel.gridPos.w : Math.floor(COLUMNS / Math.max(perRow, 1));
  return values.map((value, index) => {
    const row = isVertical ? index : Math.floor(index / perRow);
    const x = isVertical ? panel.gridPos.x : (index % perRow) * w;
    const gridPos = { ...panel.gridPos, x, w, y: panel.gridPos.y + row * panel.gridPos.h };
    return { panel: { ...panel, gridPos }, variables: variables.withValue(panel.repeat, value) };
  });
}

/**
 * Returns the panels in the order of their places, each with its place in pixels and its variables.
 *
 * Panels of a collapsed row are left out, and repeated panels push down what is below them.
 */
export function place(board, variables, width) {
  const column = (width - GAP * (COLUMNS + 1)) / COLUMNS;
  const sorted = [...(board.panels ?? [])].sort((a, b) => a.gridPos.y - b.gridPos.y || a.gridPos.x - b.gridPos.x);
  let shift = 0;
  return sorted.flatMap((panel) => {
    const moved = { ...panel, gridPos: { ...panel.gridPos, y: panel.gridPos.y + shift } };
    const copies = panel.repeat && panel.type !== 'row' ? repeated(moved, variables) : [{ panel: moved, variables }];
    const bottom = Math.max(...copies.map((copy) => copy.panel.gridPos.y + copy.panel.gridPos.h), 0);
    shift += Math.max(bottom - (moved.gridPos.y + moved.gridPos.h), 0);
    return copies.map((copy) => {
      const { x, y, w, h } = copy.panel.gridPos;
      return {
        ...copy,
        left: GAP + x * (column + GAP),
        top: y * (ROW_HEIGHT + GAP),
        width: w * column + (w - 1) * GAP,
        height: h * ROW_HEIGHT + (h - 1) * GAP,
      };
    });
  });
}
