/** Why media does or does not flow: the node's closed list of answers. What they mean stands in i18n. */
export const VERDICTS = [
  'flows',
  'wrong_certificate',
  'handshake_failed',
  'no_description',
  'no_checks',
  'checks_refused',
  'no_handshake',
  'handshake_stalled',
  'closed_by_client',
  'consent_lost',
  'packets_refused',
  'not_offered',
  'not_answered',
  'no_common_codec',
  'no_packets',
  'stopped',
  'waits_for_key_frame',
  'paused_for_bandwidth',
  'lower_layer',
  'not_permitted',
  'not_wanted',
  'nothing_published',
  'nobody_publishes',
  'muted',
  'kept_back',
  'source_silent',
] as const

export type Verdict = (typeof VERDICTS)[number]

/** Nothing is wrong with these, whether or not something flows. */
const FINE: readonly Verdict[] = ['flows', 'not_permitted', 'not_wanted', 'nothing_published', 'nobody_publishes', 'muted', 'kept_back', 'source_silent']
/** Something flows, but less than wanted; it mends itself. */
const MILD: readonly Verdict[] = ['lower_layer', 'waits_for_key_frame', 'paused_for_bandwidth', 'not_offered', 'not_answered']

/** `null` for what this page does not know: a newer node. */
export function verdictOf(text: string): Verdict | null {
  return VERDICTS.find((one) => one === text) ?? null
}

export function toneOf(verdict: Verdict): 'good' | 'warn' | 'bad' | '' {
  if (verdict === 'flows') return 'good'
  if (FINE.includes(verdict)) return ''
  return MILD.includes(verdict) ? 'warn' : 'bad'
}

/** The direction to look at first. */
export function worseOf(sends: Verdict | null, receives: Verdict | null): Verdict | null {
  const weight = (verdict: Verdict | null) => (verdict === null ? -1 : { bad: 3, warn: 2, '': 0, good: 1 }[toneOf(verdict)])
  return weight(sends) >= weight(receives) ? sends : receives
}
