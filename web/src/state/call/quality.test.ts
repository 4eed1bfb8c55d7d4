import { describe, expect, it } from 'vitest'
import { advise, readStats, SteadyAdvice, type LinkStats, type StatsMemory } from './quality'

const report = (entries: object[]) => new Map(entries.map((entry, i) => [String(i), entry])) as unknown as RTCStatsReport
const fine: LinkStats = { rttMs: 20, lossIn: 0, lossOut: 0, jitterMs: 1, sendBps: 1, receiveBps: 1, limitedBy: null, protocol: 'udp' }

describe('link statistics', () => {
  it('makes rates and loss from two readings', () => {
    const memory: StatsMemory = new Map()
    const at = (timestamp: number, bytesReceived: number, packetsReceived: number, packetsLost: number) =>
      report([{ id: 'i', type: 'inbound-rtp', ssrc: 1, timestamp, bytesReceived, packetsReceived, packetsLost, jitter: 0.004 }])
    expect(readStats([at(1_000, 0, 0, 0)], memory)?.receiveBps).toBeNull()
    const stats = readStats([at(2_000, 12_500, 90, 10)], memory)
    expect(stats).toMatchObject({ receiveBps: 100_000, lossIn: 0.1, jitterMs: 4 })
  })

  it('reads the round trip and the transport of the pair in use', () => {
    const stats = readStats(
      [report([
        { id: 'p', type: 'candidate-pair', timestamp: 1, nominated: true, localCandidateId: 'l', currentRoundTripTime: 0.05 },
        { id: 'l', type: 'local-candidate', timestamp: 1, protocol: 'tcp' },
        { id: 'x', type: 'local-candidate', timestamp: 1, protocol: 'udp' },
      ])],
      new Map(),
    )
    expect(stats).toMatchObject({ rttMs: 50, protocol: 'tcp' })
  })

  it('counts a report only once when several tracks share it', () => {
    const memory: StatsMemory = new Map()
    const one = (timestamp: number, bytesSent: number) => report([{ id: 'o', type: 'outbound-rtp', ssrc: 7, timestamp, bytesSent, packetsSent: 1 }])
    readStats([one(0, 0), one(0, 0)], memory)
    expect(readStats([one(1_000, 1_000), one(1_000, 1_000)], memory)?.sendBps).toBe(8_000)
  })

  it('says nothing without a report', () => {
    expect(readStats([], new Map())).toBeNull()
  })
})

describe('advice', () => {
  it('is quiet while all is well', () => expect(advise(fine)).toBe('fine'))
  it('tells sending loss from receiving loss', () => {
    expect(advise({ ...fine, lossOut: 0.1 })).toBe('lossUp')
    expect(advise({ ...fine, lossIn: 0.1 })).toBe('lossDown')
  })
  it('waits for trouble to last and takes it back at once', () => {
    const steady = new SteadyAdvice()
    expect(['slow', 'slow', 'slow', 'fine', 'slow', 'lossUp', 'slow'].map((one) => steady.handle(one as 'slow'))).toEqual(['fine', 'fine', 'slow', 'fine', 'fine', 'fine', 'fine'])
    expect(steady.handle('lost')).toBe('lost')
  })
  it('names delay, processor, bandwidth and a blocked UDP', () => {
    expect(advise({ ...fine, rttMs: 900 })).toBe('slow')
    expect(advise({ ...fine, limitedBy: 'cpu' })).toBe('cpu')
    expect(advise({ ...fine, limitedBy: 'bandwidth' })).toBe('bandwidth')
    expect(advise({ ...fine, protocol: 'tcp' })).toBe('tcp')
  })
})
