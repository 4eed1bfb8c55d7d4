/** What the browser measures about our own link, and the sentence that says what to do about it. */

export interface LinkStats {
  /** Round trip to the media node. */
  rttMs: number | null
  /** 0…1 since the last reading. */
  lossIn: number | null
  lossOut: number | null
  jitterMs: number | null
  sendBps: number | null
  receiveBps: number | null
  /** Why the browser itself lowers our picture. */
  limitedBy: 'cpu' | 'bandwidth' | null
  /** udp or tcp; tcp means that a firewall is in the way. */
  protocol: string | null
}

/** Earlier counters, to make rates from totals. */
export type StatsMemory = Map<string, { at: number; bytes: number; packets: number; lost: number }>

export type Advice = 'fine' | 'lossUp' | 'lossDown' | 'slow' | 'cpu' | 'bandwidth' | 'tcp' | 'lost'

// Opus conceals single losses well; above one packet in twenty people begin to ask "sorry?".
const LOSS_BAD = 0.05
// ITU-T G.114: above 400 ms there and back people begin to talk over each other.
const RTT_BAD_MS = 400

export function advise(stats: LinkStats | null): Advice {
  if (!stats) return 'fine'
  if ((stats.lossOut ?? 0) > LOSS_BAD) return 'lossUp'
  if ((stats.lossIn ?? 0) > LOSS_BAD) return 'lossDown'
  if ((stats.rttMs ?? 0) > RTT_BAD_MS) return 'slow'
  if (stats.limitedBy === 'cpu') return 'cpu'
  if (stats.limitedBy === 'bandwidth') return 'bandwidth'
  if (stats.protocol === 'tcp') return 'tcp'
  return 'fine'
}

/** Worth a line over the stage: people notice these. The others are told where one looks for them. */
export const URGENT: readonly Advice[] = ['lost', 'lossUp', 'lossDown', 'slow']

/**
 * Steady advice from jumpy readings: trouble counts after several readings in a row (browsers start every picture
 * small and call it a lack of bandwidth), its end counts at once.
 */
export class SteadyAdvice {
  #candidate: Advice = 'fine'
  #times = 0

  handle(advice: Advice): Advice {
    this.#times = advice === this.#candidate ? this.#times + 1 : 1
    this.#candidate = advice
    if (advice === 'lost') return advice
    return this.#times >= READINGS ? advice : 'fine'
  }
}

/** Nine seconds at one reading every three. */
const READINGS = 3

type Entry = Record<string, unknown> & { id: string; type: string; timestamp: number }

export function readStats(reports: Iterable<RTCStatsReport>, memory: StatsMemory): LinkStats | null {
  const seen = new Map<string, Entry>()
  for (const report of reports) report.forEach((entry: Entry) => seen.set(`${entry.type}/${entry.id}/${String(entry.ssrc ?? '')}`, entry))
  if (seen.size === 0) return null

  const stats: LinkStats = {
    rttMs: null,
    lossIn: null,
    lossOut: null,
    jitterMs: null,
    sendBps: null,
    receiveBps: null,
    limitedBy: null,
    protocol: null,
  }
  let lostIn = 0
  let packetsIn = 0
  for (const [key, entry] of seen) {
    switch (entry.type) {
      case 'inbound-rtp': {
        const delta = change(memory, key, entry, num(entry.bytesReceived), num(entry.packetsReceived), num(entry.packetsLost))
        if (delta) {
          stats.receiveBps = (stats.receiveBps ?? 0) + delta.bps
          lostIn += Math.max(0, delta.lost)
          packetsIn += delta.packets
        }
        stats.jitterMs = Math.max(stats.jitterMs ?? 0, num(entry.jitter) * 1000)
        break
      }
      case 'outbound-rtp': {
        const delta = change(memory, key, entry, num(entry.bytesSent), num(entry.packetsSent), 0)
        if (delta) stats.sendBps = (stats.sendBps ?? 0) + delta.bps
        if (entry.qualityLimitationReason === 'cpu' || entry.qualityLimitationReason === 'bandwidth')
          stats.limitedBy = entry.qualityLimitationReason
        break
      }
      case 'remote-inbound-rtp':
        stats.lossOut = Math.max(stats.lossOut ?? 0, num(entry.fractionLost))
        if (typeof entry.roundTripTime === 'number') stats.rttMs = Math.max(stats.rttMs ?? 0, entry.roundTripTime * 1000)
        break
      case 'candidate-pair':
        if (entry.nominated === true && typeof entry.currentRoundTripTime === 'number')
          stats.rttMs ??= entry.currentRoundTripTime * 1000
        break
      case 'local-candidate':
        if (typeof entry.protocol === 'string' && stats.protocol !== 'tcp') stats.protocol = usedProtocol(entry, seen)
        break
    }
  }
  if (packetsIn + lostIn > 0) stats.lossIn = lostIn / (packetsIn + lostIn)
  return stats
}

/** Only the candidate of the pair in use says how packets travel. */
function usedProtocol(candidate: Entry, seen: Map<string, Entry>): string | null {
  for (const entry of seen.values()) {
    if (entry.type === 'candidate-pair' && entry.nominated === true && entry.localCandidateId === candidate.id) return String(candidate.protocol)
  }
  return null
}

function change(memory: StatsMemory, key: string, entry: Entry, bytes: number, packets: number, lost: number) {
  const before = memory.get(key)
  memory.set(key, { at: entry.timestamp, bytes, packets, lost })
  if (!before || entry.timestamp <= before.at) return null
  const seconds = (entry.timestamp - before.at) / 1000
  return { bps: ((bytes - before.bytes) * 8) / seconds, packets: packets - before.packets, lost: lost - before.lost }
}

const num = (value: unknown): number => (typeof value === 'number' ? value : 0)
