import { describe, expect, it } from 'vitest'
import type { MediaPerson } from './media'
import { orderTiles, stageOf, type TileModel } from './tiles'

const person = (identity: string, more: Partial<MediaPerson> = {}): MediaPerson => ({
  identity, name: identity, local: false, speaking: false, quality: '', joinedAt: 0, tracks: {}, ...more,
})
const screen = { screen: { key: 's', muted: false, ended: false, attach: () => () => undefined } }
const ask = (people: MediaPerson[], more: object = {}) => stageOf({ people, layout: 'auto', pinned: null, recentSpeakers: [], ...more })

describe('stage', () => {
  it('is a grid while nobody shares', () => {
    expect(ask([person('me', { local: true }), person('a')]).spotlight).toBeNull()
  })

  it('shows a shared screen large and keeps its owner among the others', () => {
    const stage = ask([person('me', { local: true }), person('a', { tracks: screen })])
    expect(stage.spotlight?.id).toBe('a/screen')
    expect(stage.others.map((tile) => tile.id)).toEqual(['me', 'a'])
  })

  it("prefers somebody else's screen to one's own", () => {
    expect(ask([person('me', { local: true, tracks: screen }), person('a', { tracks: screen })]).spotlight?.id).toBe('a/screen')
  })

  it('lets a pin win over everything', () => {
    expect(ask([person('me', { local: true }), person('a', { tracks: screen }), person('b')], { pinned: 'b' }).spotlight?.id).toBe('b')
  })

  it('follows the last speaker in spotlight, never oneself', () => {
    const people = [person('me', { local: true }), person('a'), person('b')]
    expect(ask(people, { layout: 'spotlight', recentSpeakers: ['me', 'b', 'a'] }).spotlight?.id).toBe('b')
  })
})

describe('order over pages', () => {
  const tiles = ['me', 'a', 'b', 'c', 'd', 'e'].map((id): TileModel => ({ id, person: person(id, { local: id === 'me' }), screen: false }))

  it('brings a speaker from a later page to the first, in the place of somebody quiet', () => {
    const first = orderTiles(tiles, 3, ['e']).slice(0, 3).map((tile) => tile.id)
    expect(first).toContain('e')
    expect(first[0]).toBe('me')
  })

  it('moves nobody when the speaker is already there', () => {
    expect(orderTiles(tiles, 3, ['a'])).toEqual(tiles)
  })

  it('loses nobody', () => {
    expect(orderTiles(tiles, 2, ['e', 'd', 'c']).map((tile) => tile.id).sort()).toEqual(tiles.map((tile) => tile.id).sort())
  })
})
