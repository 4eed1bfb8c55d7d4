/** Where tiles go. Pure geometry: told the room and the number of tiles, answers columns, size and pages. */

export interface GridPlan {
  columns: number
  rows: number
  tileWidth: number
  tileHeight: number
  perPage: number
  pages: number
}

export const GAP = 10
/** Below this a face and its name are no longer readable. */
const TILE_MIN_WIDTH = 148
const ASPECT = 16 / 9
/** On narrow windows a squarer tile shows more of each face. */
const ASPECT_NARROW = 4 / 3

export function planGrid(tiles: number, width: number, height: number): GridPlan {
  const aspect = width < 600 ? ASPECT_NARROW : ASPECT
  const count = Math.max(1, tiles)
  const most = fitting(width, height, aspect)
  const perPage = Math.min(count, most)
  const best = bestColumns(perPage, width, height, aspect)
  return { ...best, perPage, pages: Math.ceil(count / perPage) }
}

/** How many tiles of the smallest readable size the window holds. */
function fitting(width: number, height: number, aspect: number): number {
  const columns = Math.max(1, Math.floor((width + GAP) / (TILE_MIN_WIDTH + GAP)))
  const rows = Math.max(1, Math.floor((height + GAP) / (TILE_MIN_WIDTH / aspect + GAP)))
  return columns * rows
}

function bestColumns(count: number, width: number, height: number, aspect: number) {
  let best = { columns: 1, rows: count, tileWidth: 0, tileHeight: 0 }
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns)
    const wide = (width - GAP * (columns - 1)) / columns
    const high = (height - GAP * (rows - 1)) / rows
    const tileWidth = Math.floor(Math.min(wide, high * aspect))
    if (tileWidth > best.tileWidth) best = { columns, rows, tileWidth, tileHeight: Math.floor(tileWidth / aspect) }
  }
  return best
}
