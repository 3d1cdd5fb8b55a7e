/** Lines of equal value on a grid (marching squares, Lorensen and Cline 1987 in two dimensions). */

// For each of the 16 cases the edges that a line enters and leaves by: 0 top, 1 right, 2 bottom, 3 left.
// The saddles (5 and 10) are cut as if their middle were below the level.
const CASES = [
  [], [[3, 0]], [[0, 1]], [[3, 1]], [[1, 2]], [[3, 0], [1, 2]], [[0, 2]], [[3, 2]],
  [[2, 3]], [[2, 0]], [[0, 1], [2, 3]], [[2, 1]], [[1, 3]], [[1, 0]], [[0, 3]], [],
];

/**
 * Segments of the lines on which a grid takes a value.
 *
 * @param {ArrayLike<number>} values rows of the grid, top first.
 * @param {number} rows of the grid.
 * @param {number} columns of the grid.
 * @param {number} level the value.
 * @returns {number[]} x0, y0, x1, y1 of each segment; x is 0 at the first column's centre and columns - 1 at the last's.
 */
export function contour(values, rows, columns, level) {
  const found = [];
  for (let y = 0; y + 1 < rows; y++) {
    for (let x = 0; x + 1 < columns; x++) {
      const at = y * columns + x;
      const corners = [values[at], values[at + 1], values[at + columns + 1], values[at + columns]];
      const index = corners.reduce((bits, value, corner) => bits | (value >= level ? 1 << corner : 0), 0);
      for (const [from, to] of CASES[index]) {
        found.push(...crossing(from, corners, level, x, y), ...crossing(to, corners, level, x, y));
      }
    }
  }
  return found;
}

/** Where the level crosses an edge of a square, between its two corners. */
function crossing(edge, [topLeft, topRight, bottomRight, bottomLeft], level, x, y) {
  const share = (a, b) => (a === b ? 0.5 : (level - a) / (b - a));
  if (edge === 0) return [x + share(topLeft, topRight), y];
  if (edge === 1) return [x + 1, y + share(topRight, bottomRight)];
  if (edge === 2) return [x + share(bottomLeft, bottomRight), y + 1];
  return [x, y + share(topLeft, bottomLeft)];
}
