/** How far somebody's media got, and what to look at next. Pure: told a step, answers a ladder. */
import type { MediaStep } from '../../api/types'

export const STEPS: readonly Exclude<MediaStep, 'lost'>[] = ['joined', 'negotiated', 'ice_checked', 'dtls_done', 'rtp_in', 'rtp_out']

export type Rung = { step: (typeof STEPS)[number]; state: 'done' | 'here' | 'todo' }

export interface Ladder {
  rungs: Rung[]
  /** True once media flows both ways. */
  whole: boolean
  hint: MediaStep | 'unknown'
}

/** Accepts the wire's spelling too: MEDIA_STEP_RTP_IN, rtp-in. */
export function stepOf(text: string): MediaStep | 'unknown' {
  const plain = text.toLowerCase().replace(/^media_step_/, '').replaceAll('-', '_')
  return plain === 'lost' ? 'lost' : (STEPS.find((step) => step === plain) ?? 'unknown')
}

export function ladderOf(text: string): Ladder {
  const step = stepOf(text)
  const reached = step === 'lost' || step === 'unknown' ? -1 : STEPS.indexOf(step)
  const whole = step === 'rtp_out'
  return {
    rungs: STEPS.map((one, i) => ({ step: one, state: i <= reached ? 'done' : i === reached + 1 && step !== 'unknown' && step !== 'lost' ? 'here' : 'todo' })),
    whole,
    hint: step,
  }
}

/** Loss above this is heard; see `state/call/quality.ts`. */
export const LOSS_BAD = 0.05
export const RTT_BAD_MS = 300
