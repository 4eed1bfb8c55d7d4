import { describe, expect, it } from 'vitest'
import { GAP, planGrid } from './layout'

describe('grid', () => {
  for (const [width, height] of [[1240, 560], [1880, 900], [344, 500], [800, 300]] as const) {
    for (const tiles of [1, 2, 3, 5, 9, 12, 25, 50]) {
      it(`${tiles} tiles fit into ${width}×${height} without overlap`, () => {
        const plan = planGrid(tiles, width, height)
        expect(plan.columns * plan.tileWidth + (plan.columns - 1) * GAP).toBeLessThanOrEqual(width)
        expect(plan.rows * plan.tileHeight + (plan.rows - 1) * GAP).toBeLessThanOrEqual(height)
        expect(plan.columns * plan.rows).toBeGreaterThanOrEqual(plan.perPage)
        expect(plan.perPage * plan.pages).toBeGreaterThanOrEqual(tiles)
      })
    }
  }

  it('uses pages before tiles become unreadable', () => {
    const plan = planGrid(30, 344, 500)
    expect(plan.pages).toBeGreaterThan(1)
    expect(plan.tileWidth).toBeGreaterThanOrEqual(148)
  })

  it('puts two people side by side on a wide window and one above the other on a phone', () => {
    expect(planGrid(2, 1240, 560).columns).toBe(2)
    expect(planGrid(2, 344, 560).columns).toBe(1)
  })

  it('survives a window that has no size yet', () => {
    expect(planGrid(3, 0, 0).pages).toBeGreaterThanOrEqual(1)
  })
})
