import { describe, expect, it } from 'vitest'
import { ladderOf, stepOf } from './ladder'

describe('media ladder', () => {
  it('shows what worked and where it stopped', () => {
    expect(ladderOf('ice_checked').rungs.map((rung) => rung.state)).toEqual(['done', 'done', 'done', 'here', 'todo', 'todo'])
  })
  it('is whole only when media flows to them', () => {
    expect(ladderOf('rtp_out').whole).toBe(true)
    expect(ladderOf('rtp_in').whole).toBe(false)
  })
  it('claims nothing about a lost or unknown one', () => {
    for (const step of ['lost', 'what']) expect(ladderOf(step).rungs.every((rung) => rung.state === 'todo')).toBe(true)
  })
  it("reads the wire's spelling", () => {
    expect(stepOf('MEDIA_STEP_DTLS_DONE')).toBe('dtls_done')
    expect(stepOf('')).toBe('unknown')
  })
})
