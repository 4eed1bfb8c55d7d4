/** One recording: its facts, its words in step with the player, its hits, and what verifying said. */
import * as api from '../../api/officer'
import { ApiError } from '../../api/http'
import type { Access, RecordingDetail, Transcript, TranscriptSegment, VerifyResult } from '../../api/types'
import { find, termsOf } from './highlight'
import { lanesOf } from './timeline'

/** Derived files take a while after a call: look again at this pace until they are there. */
const LOOK_AGAIN_MS = 3_000

export class RecordingModel {
  readonly id: string
  detail: RecordingDetail | null = $state.raw(null)
  error: unknown = $state.raw(null)
  gone = $state(false)
  transcript: Transcript | null = $state.raw(null)
  accesses: Access[] = $state.raw([])
  query = $state('')
  hitIndex = $state(0)
  /** Position of the player in ms. */
  position = $state(0)
  verifying = $state(false)
  verified: VerifyResult | null = $state.raw(null)
  verifyError: unknown = $state.raw(null)
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(id: string, query: string) {
    this.id = id
    this.query = query
  }

  segments = $derived(this.transcript?.segments ?? [])
  missing = $derived(this.transcript?.missing ?? [])
  terms = $derived(termsOf(this.query))
  lanes = $derived(this.detail ? lanesOf(this.detail.tracks, this.segments, this.detail.participants) : [])
  duration = $derived(Math.max(this.detail?.duration_ms ?? 0, this.segments.at(-1)?.end_ms ?? 0))
  hits = $derived(this.terms.length === 0 ? [] : this.segments.filter((s) => this.terms.every((term) => find(s.text, [term]).length > 0)))
  current = $derived(segmentAt(this.segments, this.position))
  mediaReady = $derived(this.detail?.render.state === 'done')

  async load(): Promise<void> {
    try {
      this.detail = await api.one(this.id)
      this.error = null
      if (this.detail.transcript.state === 'done' && !this.transcript) this.transcript = await api.transcript(this.id)
      this.accesses = await api.accesses(this.id).catch(() => this.accesses)
    } catch (error) {
      this.gone = error instanceof ApiError && (error.status === 404 || error.status === 403)
      this.error = error
    }
    clearTimeout(this.#timer)
    if (!this.gone && this.#unfinished()) this.#timer = setTimeout(() => void this.load(), LOOK_AGAIN_MS)
  }

  async verify(): Promise<void> {
    this.verifying = true
    this.verifyError = null
    try {
      this.verified = await api.verify(this.id)
      this.accesses = await api.accesses(this.id).catch(() => this.accesses)
    } catch (error) {
      this.verifyError = error
    }
    this.verifying = false
  }

  /** The next (+1) or previous (−1) hit; answers the sentence to jump to. */
  step(by: 1 | -1): TranscriptSegment | null {
    if (this.hits.length === 0) return null
    this.hitIndex = (this.hitIndex + by + this.hits.length) % this.hits.length
    return this.hits[this.hitIndex] ?? null
  }

  search(query: string): void {
    this.query = query
    this.hitIndex = 0
  }

  stop(): void {
    clearTimeout(this.#timer)
  }

  #unfinished(): boolean {
    const d = this.detail
    if (!d) return true
    const running = (state: string) => state !== 'done' && state !== 'failed'
    return d.state === 'capturing' || running(d.render.state) || running(d.transcript.state)
  }
}

/** The sentence that is being said, or was said last. */
export function segmentAt(segments: TranscriptSegment[], at: number): TranscriptSegment | null {
  let found: TranscriptSegment | null = null
  for (const segment of segments) {
    if (segment.start_ms > at) break
    // Two may speak at once: the one that began later is the one to follow, unless it is over.
    if (!found || segment.end_ms >= at || segment.start_ms >= found.end_ms) found = segment
  }
  return found
}
