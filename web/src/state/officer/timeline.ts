/** One lane per person: when they were recorded, spoke, shared, and where something is missing. Pure; times in ms from the start. */
import type { RecordedTrack, TranscriptSegment } from '../../api/types'

export interface Span {
  start: number
  end: number
}

export interface Lane {
  identity: string
  name: string
  present: Span[]
  speech: Span[]
  shares: Span[]
  gaps: (Span & { reason: string })[]
  /** 0…1 of all speech. */
  talk: number
}

/** Pauses shorter than this belong to the sentence: a lane of crumbs is unreadable. */
const PAUSE_MS = 700

export function lanesOf(tracks: RecordedTrack[], segments: TranscriptSegment[], participants: { identity: string; display_name: string }[]): Lane[] {
  const lanes = new Map<string, Lane>()
  const lane = (identity: string, name: string): Lane => {
    let one = lanes.get(identity)
    if (!one) lanes.set(identity, (one = { identity, name, present: [], speech: [], shares: [], gaps: [], talk: 0 }))
    return one
  }
  for (const p of participants) lane(p.identity, p.display_name)
  for (const track of tracks) {
    const one = lane(track.identity, track.display_name)
    const span = { start: track.start_ms, end: track.end_ms }
    if (track.source.startsWith('screen_share')) {
      if (track.kind === 'video') one.shares.push(span)
    } else one.present.push(span)
    for (const gap of track.gaps) one.gaps.push({ start: gap.start_ms, end: gap.end_ms, reason: gap.reason })
  }
  let all = 0
  const talked = new Map<string, number>()
  for (const segment of segments) {
    const one = lane(segment.identity, segment.display_name)
    one.speech.push({ start: segment.start_ms, end: segment.end_ms })
    const length = Math.max(0, segment.end_ms - segment.start_ms)
    talked.set(segment.identity, (talked.get(segment.identity) ?? 0) + length)
    all += length
  }
  for (const one of lanes.values()) {
    one.present = join(one.present, 0)
    one.speech = join(one.speech, PAUSE_MS)
    one.shares = join(one.shares, 0)
    one.talk = all > 0 ? (talked.get(one.identity) ?? 0) / all : 0
  }
  return [...lanes.values()]
}

/** Sorted and merged where they touch or nearly touch. */
export function join(spans: Span[], within: number): Span[] {
  const out: Span[] = []
  for (const span of [...spans].sort((a, b) => a.start - b.start)) {
    const last = out[out.length - 1]
    if (last && span.start <= last.end + within) last.end = Math.max(last.end, span.end)
    else out.push({ ...span })
  }
  return out
}

/** Marks for the time axis: round steps, at most about eight. */
export function ticks(durationMs: number): number[] {
  const steps = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200].map((s) => s * 1000)
  const step = steps.find((s) => durationMs / s <= 8) ?? 14_400_000
  const out: number[] = []
  for (let at = 0; at < durationMs; at += step) out.push(at)
  return out
}
