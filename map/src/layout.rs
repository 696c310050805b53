//! Places the viewer on the left, the tunnels below each other, and the nodes behind each tunnel in rows.
//!
//! No two labels overlap, whatever the number of nodes, and a node keeps its place as long as the nodes before it do.

use wire::map::MapDocument;

/// Width of the cell of a node that is no neighbour.
pub(crate) const CELL_WIDTH: u32 = 128;
/// Height of such a cell.
pub(crate) const CELL_HEIGHT: u32 = 22;
/// Nodes beside each other in a row.
pub(crate) const COLUMNS: usize = 6;
/// Left edge of the viewer.
pub(crate) const VIEWER_X: u32 = 16;
/// Width of the boxes of the viewer and of the neighbours.
pub(crate) const BOX_WIDTH: u32 = 150;
/// Height of these boxes.
pub(crate) const BOX_HEIGHT: u32 = 36;
/// Left edge of the labels of tunnels.
pub(crate) const LABEL_X: u32 = 236;
/// Left edge of the neighbours.
pub(crate) const PEER_X: u32 = 516;
/// Left edge of the rows of nodes.
pub(crate) const ROWS_X: u32 = 698;
/// Width of the whole drawing.
pub(crate) const WIDTH: u32 = ROWS_X + 6 * CELL_WIDTH + 16;
/// Height of the heading.
const HEADING_HEIGHT: u32 = 64;
/// Least height of a group.
const GROUP_HEIGHT: u32 = 46;
/// Space between two groups.
const GROUP_GAP: u32 = 10;

/// Most nodes that are drawn, so that a page stays usable and its server is not kept busy; each group gets an equal part.
pub(crate) const MAX_DRAWN_NODES: usize = 2_000;

/// The place of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its upper edge.
    pub(crate) top: u32,
    /// The height that it takes.
    pub(crate) height: u32,
    /// Number of its nodes that are drawn. If there are more, one more cell says how many.
    pub(crate) drawn: usize,
    /// Number of cells.
    pub(crate) cells: usize,
}

impl Place {
    /// The height at which its tunnel ends.
    pub(crate) fn middle(self) -> u32 {
        self.top + self.height / 2
    }
}

/// The places of all groups, in their order, and the height of the whole drawing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) groups: Vec<Place>,
    pub(crate) height: u32,
}

impl Layout {
    pub(crate) fn new(document: &MapDocument) -> Self {
        let mut top = HEADING_HEIGHT;
        let mut groups = Vec::new();
        let most = MAX_DRAWN_NODES / document.groups.len().max(1);
        for group in &document.groups {
            let drawn = group.nodes.len().min(most);
            let cells = drawn + usize::from(drawn < group.nodes.len());
            let rows = u32::try_from(cells.div_ceil(COLUMNS)).unwrap_or(u32::MAX);
            let height = GROUP_HEIGHT.max(rows.saturating_mul(CELL_HEIGHT));
            groups.push(Place {
                top,
                height,
                drawn,
                cells,
            });
            top = top.saturating_add(height).saturating_add(GROUP_GAP);
        }
        let least = HEADING_HEIGHT + 2 * GROUP_HEIGHT;
        Self {
            groups,
            height: top.max(least),
        }
    }

    /// The height at which tunnels leave the viewer.
    pub(crate) fn viewer_y(&self) -> u32 {
        // Where a map is higher than a screen, its viewer stays in sight.
        const MAX_Y: u32 = 400;
        let middle = HEADING_HEIGHT + (self.height - HEADING_HEIGHT) / 2;
        middle.min(MAX_Y)
    }
}

/// The upper left corner of the cell with this number in its group.
pub(crate) fn cell(place: Place, number: usize) -> (u32, u32) {
    let coordinate = |count: usize, size: u32| {
        u32::try_from(count)
            .unwrap_or(u32::MAX)
            .saturating_mul(size)
    };
    let rows_height = coordinate(place.cells.div_ceil(COLUMNS), CELL_HEIGHT);
    let first_row = place.top + place.height.saturating_sub(rows_height) / 2;
    (
        ROWS_X + coordinate(number % COLUMNS, CELL_WIDTH),
        first_row + coordinate(number / COLUMNS, CELL_HEIGHT),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::sample;

    #[test]
    fn no_two_nodes_overlap_and_all_are_inside_the_drawing() {
        for count in [1, 5, 50, 500, 9_999] {
            let document = sample(count);
            let layout = Layout::new(&document);
            let mut corners = Vec::new();
            let mut bottom = 0;
            for place in &layout.groups {
                assert!(place.top >= bottom, "groups overlap");
                bottom = place.top + place.height;
                for number in 0..place.cells {
                    let (x, y) = cell(*place, number);
                    assert!(y >= place.top && y + CELL_HEIGHT <= bottom);
                    assert!(x + CELL_WIDTH <= WIDTH);
                    corners.push((x, y));
                }
            }
            assert!(bottom <= layout.height);
            let all = corners.len();
            corners.sort_unstable();
            corners.dedup();
            assert_eq!(corners.len(), all, "nodes overlap");
        }
    }
}
