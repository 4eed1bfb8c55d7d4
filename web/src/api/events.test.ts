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

/** Started, open, and greeted as every server does. */
function opened() {
  stream.start()
  const socket = newest()
  socket.onopen?.()
  socket.onmessage?.({ data: '{"type":"hello","at_ms":0}' })
  return socket
}
const newest = () => Socket.all.at(-1)!
const pong = (socket: Socket) => socket.onmessage?.({ data: '{"type":"pong"}' })

let stream: EventStream
beforeEach(() => {
  vi.useFakeTimers()
  stream = new EventStream()
  Socket.all = []
  vi.stubGlobal('WebSocket', Socket)
})
afterEach(() => {
  stream.stop()
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

describe('event stream', () => {
  it('gives events to listeners and survives frames that are not JSON', () => {
    const seen: string[] = []
    stream.listen((event) => seen.push(event.type))
    stream.start()
    Socket.all[0]!.onmessage?.({ data: 'not json' })
    Socket.all[0]!.onmessage?.({ data: '{"type":"pong","at_ms":0}' })
    expect(seen).toEqual(['pong'])
  })

  it('connects again after a break, waiting longer each time, and pings while open', async () => {
    stream.start()
    Socket.all[0]!.onopen?.()
    await vi.advanceTimersByTimeAsync(26_000)
    expect(Socket.all[0]!.sent).toEqual(['{"type":"ping"}', '{"type":"ping"}'])
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
    stream.start()
    stream.stop()
    await vi.advanceTimersByTimeAsync(60_000)
    expect(Socket.all.length).toBe(1)
    expect(stream.state).toBe('closed')
  })

  it('gives up a half-open socket: the server answered pings and then nothing came for ten seconds', async () => {
    const socket = opened()
    pong(socket)
    // A dead socket takes its time to notice that it is closed.
    socket.close = () => undefined
    await vi.advanceTimersByTimeAsync(25_000)
    expect(stream.state).toBe('open')
    await vi.advanceTimersByTimeAsync(10_000)
    expect(stream.state).toBe('connecting')
    await vi.advanceTimersByTimeAsync(500)
    expect(Socket.all.length).toBe(2)
  })

  it('takes anything that comes for an answer', async () => {
    const socket = opened()
    pong(socket)
    for (let pings = 0; pings < 5; pings += 1) {
      await vi.advanceTimersByTimeAsync(25_000)
      socket.onmessage?.({ data: pings % 2 ? 'not json' : '{"type":"call_ended","at_ms":0,"call_id":"c","attendance":[]}' })
    }
    await vi.advanceTimersByTimeAsync(20_000)
    expect(Socket.all.length).toBe(1)
    expect(stream.state).toBe('open')
  })

  it('stays with an older server that never answers pings', async () => {
    opened()
    await vi.advanceTimersByTimeAsync(10 * 60_000)
    expect(Socket.all.length).toBe(1)
    expect(stream.state).toBe('open')
  })

  it('reconnects once, not for ever, when an older server takes the place of one that answered', async () => {
    const socket = opened()
    pong(socket)
    socket.onclose?.()
    for (let second = 0; second < 600; second += 1) {
      await vi.advanceTimersByTimeAsync(1_000)
      if (newest().sent.length === 0) newest().onopen?.()
    }
    expect(Socket.all.length).toBe(3)
    expect(stream.state).toBe('open')
  })

  it('asks at once when the network or the page comes back', async () => {
    const socket = opened()
    pong(socket)
    const asked = () => socket.sent.length
    expect(asked()).toBe(1)
    dispatchEvent(new Event('online'))
    expect(asked()).toBe(2)
    document.dispatchEvent(new Event('visibilitychange'))
    expect(asked()).toBe(3)
    vi.spyOn(document, 'visibilityState', 'get').mockReturnValue('hidden')
    document.dispatchEvent(new Event('visibilitychange'))
    expect(asked()).toBe(3)
    vi.restoreAllMocks()
    // Asked again and again, but the answer to the first question is due in ten seconds.
    await vi.advanceTimersByTimeAsync(10_500)
    expect(Socket.all.length).toBe(2)
  })

  it('does not wait for its next try when the network comes back', async () => {
    opened().onclose?.()
    dispatchEvent(new Event('online'))
    expect(Socket.all.length).toBe(2)
    await vi.advanceTimersByTimeAsync(5_000)
    expect(Socket.all.length).toBe(2)
  })

  it('gives up a connection attempt that hangs', async () => {
    stream.start()
    await vi.advanceTimersByTimeAsync(20_500)
    expect(Socket.all.length).toBe(2)
  })

  it('asks nothing more after sign-out', () => {
    const socket = opened()
    stream.stop()
    dispatchEvent(new Event('online'))
    expect(socket.sent.length).toBe(1)
    expect(Socket.all.length).toBe(1)
  })
})
