import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { EventStream } from './events'

class Socket {
  static all: Socket[] = []
  static readonly OPEN = 1
  readyState = 1
  onopen: (() => void) | null = null
  onclose: (() => void) | null = null
  onmessage: ((event: { data: unknown }) => void) | null = null
  sent: string[] = []
  constructor(readonly url: string) {
    Socket.all.push(this)
  }
  send(text: string) {
    this.sent.push(text)
  }
  close() {
    this.onclose?.()
  }
}

beforeEach(() => {
  vi.useFakeTimers()
  Socket.all = []
  vi.stubGlobal('WebSocket', Socket)
})
afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

describe('event stream', () => {
  it('gives events to listeners and survives frames that are not JSON', () => {
    const stream = new EventStream()
    const seen: string[] = []
    stream.listen((event) => seen.push(event.type))
    stream.start()
    Socket.all[0]!.onmessage?.({ data: 'not json' })
    Socket.all[0]!.onmessage?.({ data: '{"type":"pong","at_ms":0}' })
    expect(seen).toEqual(['pong'])
  })

  it('connects again after a break, waiting longer each time, and pings while open', async () => {
    const stream = new EventStream()
    stream.start()
    Socket.all[0]!.onopen?.()
    await vi.advanceTimersByTimeAsync(26_000)
    expect(Socket.all[0]!.sent).toEqual(['{"type":"ping"}'])
    Socket.all[0]!.onclose?.()
    expect(stream.state).toBe('connecting')
    await vi.advanceTimersByTimeAsync(600)
    expect(Socket.all.length).toBe(2)
    Socket.all[1]!.onclose?.()
    await vi.advanceTimersByTimeAsync(400)
    expect(Socket.all.length).toBe(2)
    await vi.advanceTimersByTimeAsync(700)
    expect(Socket.all.length).toBe(3)
  })

  it('stays closed after sign-out', async () => {
    const stream = new EventStream()
    stream.start()
    stream.stop()
    await vi.advanceTimersByTimeAsync(60_000)
    expect(Socket.all.length).toBe(1)
    expect(stream.state).toBe('closed')
  })
})
