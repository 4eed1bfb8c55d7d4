/**
 * The event stream: one WebSocket for the whole page, taken up again by itself.
 * It says nothing about lost events: whoever listens to `open` reads its state again from REST.
 */
import { BASE } from './http'
import type { ServerEvent } from './types'

/** The server may sit behind a proxy that closes silent connections after a minute. */
const PING_EVERY_MS = 25_000
/** A server that answers pings does so within a round trip. After this long the socket is dead, whatever the browser still thinks. */
const ANSWER_WITHIN_MS = 10_000
/** As long as any request may take; browsers try for minutes. */
const OPEN_WITHIN_MS = 20_000
const RETRY_FIRST_MS = 500
const RETRY_MAX_MS = 10_000

export type StreamState = 'closed' | 'connecting' | 'open'

export class EventStream {
  #socket: WebSocket | null = null
  #retries = 0
  #timer: ReturnType<typeof setTimeout> | undefined
  #ping: ReturnType<typeof setInterval> | undefined
  /** Runs out when the server did not answer, or not in time. */
  #deadline: ReturnType<typeof setTimeout> | undefined
  /**
   * Whether the server is known to answer pings. Older ones do not: their silence says nothing. Each socket that is given up
   * puts this in doubt again, so that going back to an older server costs one needless reconnect, not an endless row of them.
   */
  #answers = false
  #wanted = false
  readonly #online = () => this.check()
  readonly #shown = () => document.visibilityState === 'visible' && this.check()
  readonly #listeners = new Set<(event: ServerEvent) => void>()
  readonly #states = new Set<(state: StreamState) => void>()
  state: StreamState = 'closed'

  start(): void {
    if (this.#wanted) return
    this.#wanted = true
    addEventListener('online', this.#online)
    document.addEventListener('visibilitychange', this.#shown)
    this.#connect()
  }

  /** The network may have changed or the machine slept: find out at once whether the stream still lives. */
  check(): void {
    if (!this.#wanted) return
    if (this.#socket) this.#ask(this.#socket)
    else this.#connect()
  }

  stop(): void {
    this.#wanted = false
    removeEventListener('online', this.#online)
    document.removeEventListener('visibilitychange', this.#shown)
    clearTimeout(this.#timer)
    this.#drop()
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
    clearTimeout(this.#timer)
    this.#become('connecting')
    const socket = new WebSocket(location.origin.replace(/^http/, 'ws') + BASE + '/events')
    this.#socket = socket
    this.#deadline = setTimeout(() => this.#giveUp(), OPEN_WITHIN_MS)
    socket.onopen = () => {
      if (this.#socket !== socket) return
      this.#retries = 0
      this.#heard()
      // The first one at once: it tells whether this server answers.
      this.#ask(socket)
      this.#ping = setInterval(() => this.#ask(socket), PING_EVERY_MS)
      this.#become('open')
    }
    socket.onmessage = (message) => {
      if (this.#socket !== socket) return
      this.#heard()
      this.#handle(message.data)
    }
    socket.onclose = () => {
      if (this.#socket === socket) this.#giveUp()
    }
  }

  #ask(socket: WebSocket): void {
    if (socket.readyState !== WebSocket.OPEN) return
    socket.send('{"type":"ping"}')
    if (!this.#answers || this.#deadline !== undefined) return
    this.#deadline = setTimeout(() => {
      this.#answers = false
      this.#giveUp()
    }, ANSWER_WITHIN_MS)
  }

  #heard(): void {
    clearTimeout(this.#deadline)
    this.#deadline = undefined
  }

  /** Lets go of the socket. The `close` event of a dead one may take minutes and is not waited for. */
  #drop(): void {
    clearInterval(this.#ping)
    this.#heard()
    const socket = this.#socket
    this.#socket = null
    socket?.close()
  }

  #giveUp(): void {
    this.#drop()
    if (this.#wanted) this.#retry()
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
    if (event.type === 'pong') this.#answers = true
    for (const listener of [...this.#listeners]) listener(event)
  }

  #become(state: StreamState): void {
    if (this.state === state) return
    this.state = state
    for (const watcher of [...this.#states]) watcher(state)
  }
}

export const events = new EventStream()
