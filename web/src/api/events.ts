/**
 * The event stream: one WebSocket for the whole page, taken up again by itself.
 * It says nothing about lost events: whoever listens to `open` reads its state again from REST.
 */
import { BASE } from './http'
import type { ServerEvent } from './types'

/** The server may sit behind a proxy that closes silent connections after a minute. */
const PING_EVERY_MS = 25_000
const RETRY_FIRST_MS = 500
const RETRY_MAX_MS = 10_000

export type StreamState = 'closed' | 'connecting' | 'open'

export class EventStream {
  #socket: WebSocket | null = null
  #retries = 0
  #timer: ReturnType<typeof setTimeout> | undefined
  #ping: ReturnType<typeof setInterval> | undefined
  #wanted = false
  readonly #listeners = new Set<(event: ServerEvent) => void>()
  readonly #states = new Set<(state: StreamState) => void>()
  state: StreamState = 'closed'

  start(): void {
    if (this.#wanted) return
    this.#wanted = true
    this.#connect()
  }

  stop(): void {
    this.#wanted = false
    clearTimeout(this.#timer)
    clearInterval(this.#ping)
    this.#socket?.close()
    this.#socket = null
    this.#become('closed')
  }

  listen(listener: (event: ServerEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  watch(listener: (state: StreamState) => void): () => void {
    this.#states.add(listener)
    return () => this.#states.delete(listener)
  }

  #connect(): void {
    this.#become('connecting')
    const socket = new WebSocket(location.origin.replace(/^http/, 'ws') + BASE + '/events')
    this.#socket = socket
    socket.onopen = () => {
      this.#retries = 0
      clearInterval(this.#ping)
      this.#ping = setInterval(() => {
        if (socket.readyState === WebSocket.OPEN) socket.send('{"type":"ping"}')
      }, PING_EVERY_MS)
      this.#become('open')
    }
    socket.onmessage = (message) => this.#handle(message.data)
    socket.onclose = () => {
      if (this.#socket !== socket) return
      clearInterval(this.#ping)
      if (this.#wanted) this.#retry()
    }
  }

  #retry(): void {
    this.#become('connecting')
    const wait = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** this.#retries) * (0.5 + Math.random() / 2)
    this.#retries += 1
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#connect(), wait)
  }

  #handle(data: unknown): void {
    if (typeof data !== 'string') return
    let event: ServerEvent
    try {
      event = JSON.parse(data) as ServerEvent
    } catch {
      return // A frame that is not JSON cannot be ours; the stream itself stays good.
    }
    for (const listener of [...this.#listeners]) listener(event)
  }

  #become(state: StreamState): void {
    if (this.state === state) return
    this.state = state
    for (const watcher of [...this.#states]) watcher(state)
  }
}

export const events = new EventStream()
