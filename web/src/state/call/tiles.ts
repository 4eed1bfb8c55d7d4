/** Which tiles there are, in which order, and which one is large. */
import type { MediaPerson } from './media'

export type Layout = 'auto' | 'grid' | 'spotlight'

export interface TileModel {
  /** `identity` or `identity/screen`. */
  id: string
  person: MediaPerson
  screen: boolean
}

export interface StageModel {
  spotlight: TileModel | null
  others: TileModel[]
}

export interface StageInput {
  people: MediaPerson[]
  layout: Layout
  pinned: string | null
  /** Identities in the order in which they last spoke, latest first. */
  recentSpeakers: string[]
}

export function stageOf({ people, layout, pinned, recentSpeakers }: StageInput): StageModel {
  const tiles = people.map((person): TileModel => ({ id: person.identity, person, screen: false }))
  const screens = people
    .filter((person) => person.tracks.screen)
    .map((person): TileModel => ({ id: `${person.identity}/screen`, person, screen: true }))
  const all = [...screens, ...tiles]
  const spotlight = chooseSpotlight(all, screens, tiles, layout, pinned, recentSpeakers)
  return { spotlight, others: all.filter((tile) => tile !== spotlight) }
}

function chooseSpotlight(
  all: TileModel[],
  screens: TileModel[],
  tiles: TileModel[],
  layout: Layout,
  pinned: string | null,
  recentSpeakers: string[],
): TileModel | null {
  const pin = all.find((tile) => tile.id === pinned)
  if (pin) return pin
  if (layout === 'grid') return null
  // Somebody else's screen before one's own: seeing oneself share is a hall of mirrors.
  const screen = screens.find((tile) => !tile.person.local) ?? screens[0]
  if (screen) return screen
  if (layout === 'auto') return null
  for (const identity of recentSpeakers) {
    const tile = tiles.find((candidate) => candidate.person.identity === identity && !candidate.person.local)
    if (tile) return tile
  }
  return tiles.find((tile) => !tile.person.local) ?? tiles[0] ?? null
}

/**
 * Order of the tiles over several pages: whoever speaks comes to the first page, but nobody moves within it,
 * so that faces stay where people look for them.
 */
export function orderTiles(tiles: TileModel[], perPage: number, recentSpeakers: string[]): TileModel[] {
  if (tiles.length <= perPage) return tiles
  const first = tiles.slice(0, perPage)
  const rest = tiles.slice(perPage)
  const wanted = recentSpeakers.slice(0, Math.max(1, perPage - 1))
  for (const identity of wanted) {
    const from = rest.findIndex((tile) => !tile.screen && tile.person.identity === identity)
    if (from < 0) continue
    const to = lastQuiet(first, wanted)
    const incoming = rest[from]
    const outgoing = first[to]
    if (to < 0 || !incoming || !outgoing) break
    first[to] = incoming
    rest[from] = outgoing
  }
  return [...first, ...rest]
}

function lastQuiet(tiles: TileModel[], speakers: string[]): number {
  for (let i = tiles.length - 1; i >= 0; i--) {
    const tile = tiles[i]
    if (tile && !tile.screen && !tile.person.local && !speakers.includes(tile.person.identity)) return i
  }
  return -1
}
