import { describe, expect, it } from 'vitest'
import type { RecordedTrack, TranscriptSegment } from '../../api/types'
import { pieces, termsOf } from './highlight'
import { segmentAt } from './recording.svelte'
import { filtersOf, queryOf } from './search.svelte'
import { join, lanesOf, ticks } from './timeline'

const hit = (text: string, match: Parameters<typeof pieces>[1], terms: string[] = []) =>
  pieces(text, match, terms).map((piece) => (piece.hit ? `[${piece.text}]` : piece.text)).join('')

describe('marking hits', () => {
  it('takes offsets, matched words or the query itself', () => {
    expect(hit('Valve twelve is open', [[0, 5]])).toBe('[Valve] twelve is open')
    expect(hit('Valve twelve is open', ['twelve'])).toBe('Valve [twelve] is open')
    expect(hit('Valve twelve is open', 'open')).toBe('Valve twelve is [open]')
    expect(hit('Valve twelve is open', undefined, ['valve', 'is'])).toBe('[Valve] twelve [is] open')
  })
  it('survives overlaps and offsets outside the text', () => {
    expect(hit('abcdef', [[0, 3], [2, 4], [5, 99]])).toBe('[abc][d]e[f]')
  })
  it('keeps phrases together and leaves operators out', () => {
    expect(termsOf('"north reservoir" AND Valve NOT')).toEqual(['north reservoir', 'valve'])
  })
})

describe('lanes', () => {
  const track = (identity: string, source: string, start_ms: number, end_ms: number, gaps: RecordedTrack['gaps'] = []): RecordedTrack => ({
    track_sid: identity + source, identity, display_name: identity, kind: source === 'microphone' ? 'audio' : 'video', source, mime: '', start_ms, end_ms, segments: 1, gaps,
  })
  const said = (identity: string, start_ms: number, end_ms: number): TranscriptSegment => ({ id: `${identity}${start_ms}`, identity, display_name: identity, start_ms, end_ms, text: '', confidence: 1, words: [] })

  it('shows speech, shares and gaps per person, with the share of the talk', () => {
    const lanes = lanesOf(
      [track('ann', 'microphone', 0, 10_000, [{ start_ms: 4_000, end_ms: 5_000, reason: 'x' }]), track('bob', 'screen_share', 2_000, 8_000)],
      [said('ann', 1_000, 4_000), said('bob', 5_000, 6_000)],
      [{ identity: 'cat', display_name: 'cat' }],
    )
    const lane = (name: string) => lanes.find((one) => one.identity === name)
    expect(lane('ann')).toMatchObject({ talk: 0.75, gaps: [{ start: 4_000, end: 5_000, reason: 'x' }] })
    expect(lane('bob')?.shares).toEqual([{ start: 2_000, end: 8_000 }])
    expect(lane('cat')).toMatchObject({ talk: 0, speech: [] })
  })
  it('joins sentences over short pauses only', () => {
    expect(join([{ start: 0, end: 10 }, { start: 12, end: 20 }, { start: 40, end: 50 }], 5)).toEqual([{ start: 0, end: 20 }, { start: 40, end: 50 }])
  })
  it('has at most a handful of marks, from seconds to hours', () => {
    for (const length of [900, 20_000, 94_000, 3_600_000, 14_400_000]) expect(ticks(length).length).toBeLessThanOrEqual(9)
  })
})

describe('transcript in step', () => {
  const segment = (id: string, start_ms: number, end_ms: number) => ({ id, start_ms, end_ms }) as TranscriptSegment
  const all = [segment('a', 1_000, 5_000), segment('b', 3_000, 4_000), segment('c', 9_000, 10_000)]
  it.each([[0, null], [1_500, 'a'], [3_500, 'b'], [4_500, 'a'], [7_000, 'a'], [9_500, 'c'], [99_000, 'c']])('at %i ms', (at, id) => expect(segmentAt(all, at)?.id ?? null).toBe(id))
})

describe('filters', () => {
  it('keeps whole days, also over a change of clocks', () => {
    const query = queryOf(filtersOf(new URLSearchParams('q=dam&from=2026-10-25&to=2026-10-25')))
    expect(query.q).toBe('dam')
    const hours = ((query.to ?? 0) - (query.from ?? 0) + 1) / 3_600_000
    expect([23, 24, 25]).toContain(hours)
  })
  it('leaves out days that are none', () => {
    expect(queryOf(filtersOf(new URLSearchParams('from=soon'))).from).toBeUndefined()
  })
})
