/** The channel list, the open channel's messages, and incoming rings. */
import * as api from '../api/channels'
import { events } from '../api/events'
import type { Call, Channel, Message, Person, ServerEvent } from '../api/types'

/** Kept of a channel that is open while people write. */
const MESSAGES_MAX = 500
/** Kept of a channel that is read back page after page: what a browser lays out without effort. */
const HISTORY_MAX = 5_000
/** Where messages come faster than the list of channels is answered, numbers beside channels may be a little behind. */
const LIST_TRIES = 3

/** What lies before the first message that is shown. */
export type Earlier = 'nothing' | 'more' | 'loading' | 'failed' | 'too-many'

class Channels {
  list: Channel[] = $state.raw([])
  loaded = $state(false)
  error: unknown = $state.raw(null)
  open: string | null = $state(null)
  messages: Message[] = $state.raw([])
  messagesError: unknown = $state.raw(null)
  earlier: Earlier = $state('nothing')
  ring: { call: Call; from: Person } | null = $state.raw(null)
  current = $derived(this.list.find((channel) => channel.id === this.open) ?? null)

  /** More once it is read back, so that a new message does not take away what is being read. */
  #kept = MESSAGES_MAX

  constructor() {
    events.listen((event) => this.#handle(event))
    events.watch((state) => {
      // Not before a page has asked for them: guests, officers and operators may not see channels at all.
      if (state === 'open' && this.loaded) void this.refresh()
    })
  }

  async refresh(): Promise<void> {
    try {
      await this.#loadList()
      this.error = null
      if (this.open) await this.#loadMessages(this.open)
    } catch (error) {
      this.error = error
    }
    this.loaded = true
  }

  async show(id: string | null): Promise<void> {
    if (this.open === id) return
    this.open = id
    this.messages = []
    this.earlier = 'nothing'
    this.#kept = MESSAGES_MAX
    if (id) await this.#loadMessages(id)
  }

  async create(name: string, topic: string): Promise<Channel> {
    const channel = await api.create(name, topic)
    await this.refresh()
    return channel
  }

  async send(text: string): Promise<void> {
    if (!this.open) return
    this.#add(this.open, await api.send(this.open, text))
  }

  startCall(id: string): Promise<Call> {
    return api.startCall(id)
  }

  dismissRing(): void {
    this.ring = null
  }

  /** Reads one page further back. */
  async showEarlier(): Promise<void> {
    const id = this.open
    const first = this.messages[0]
    if (!id || !first || (this.earlier !== 'more' && this.earlier !== 'failed')) return
    this.earlier = 'loading'
    this.#kept = HISTORY_MAX
    try {
      // The first moment that is shown may have messages on the page before, too.
      const page = await api.messages(id, undefined, first.at_ms + 1)
      // Meanwhile another channel was opened, or this one anew.
      if (this.open !== id || this.messages[0]?.id !== first.id) return
      const known = new Set(this.messages.map((message) => message.id))
      const found = page.filter((message) => !known.has(message.id))
      const isFull = this.messages.length + found.length > HISTORY_MAX
      if (!isFull) this.messages = [...found, ...this.messages]
      this.earlier = isFull ? 'too-many' : found.length > 0 && page.length >= api.MESSAGES_PER_PAGE ? 'more' : 'nothing'
    } catch {
      if (this.open === id && this.earlier === 'loading') this.earlier = 'failed'
    }
  }

  async #loadList(): Promise<void> {
    for (let left = LIST_TRIES; ; left -= 1) {
      const before = this.list
      const list = await api.list()
      // What came live meanwhile may be newer than the answer.
      if (this.list !== before && left > 1) continue
      this.list = list
      return
    }
  }

  async #loadMessages(id: string): Promise<void> {
    try {
      const messages = await api.messages(id)
      if (this.open !== id) return
      const known = new Set(messages.map((message) => message.id))
      const last = messages.at(-1)?.at_ms ?? 0
      // What was read back stays where nothing is missing between; what came live while the answer was on its way is newer than all of it.
      const meeting = Math.max(this.messages.findIndex((message) => known.has(message.id)), 0)
      const older = this.messages.slice(0, meeting)
      const live = this.messages.slice(meeting).filter((message) => message.at_ms >= last && !known.has(message.id))
      if (older.length === 0) this.earlier = messages.length >= api.MESSAGES_PER_PAGE ? 'more' : 'nothing'
      this.#show([...older, ...messages, ...live])
      this.messagesError = null
      this.#markRead(id)
    } catch (error) {
      this.messagesError = error
    }
  }

  #handle(event: ServerEvent): void {
    switch (event.type) {
      case 'message':
        this.#add(event.channel_id, event.message)
        break
      case 'call':
        this.#patchCall(event.call)
        break
      case 'call_ended':
        this.list = this.list.map((channel) => (channel.active_call?.id === event.call_id ? { ...channel, active_call: null } : channel))
        if (this.ring?.call.id === event.call_id) this.ring = null
        break
      case 'ring':
        this.ring = { call: event.call, from: event.from }
        this.#patchCall(event.call)
        break
      default:
        break
    }
  }

  #patchCall(call: Call): void {
    const active = call.ended_at_ms === null ? { id: call.id, started_at_ms: call.started_at_ms, participants: call.participants } : null
    this.list = this.list.map((channel) => (channel.id === call.channel_id ? { ...channel, active_call: active } : channel))
  }

  #add(channelId: string, message: Message): void {
    if (channelId !== this.open) {
      this.list = this.list.map((channel) => (channel.id === channelId ? { ...channel, unread: channel.unread + 1 } : channel))
      return
    }
    if (this.messages.some((other) => other.id === message.id)) return
    this.#show([...this.messages, message])
    this.#markRead(channelId)
  }

  #show(messages: Message[]): void {
    this.messages = messages.slice(-this.#kept)
    if (messages.length > this.#kept) this.earlier = this.#kept === HISTORY_MAX ? 'too-many' : 'more'
  }

  #markRead(id: string): void {
    this.list = this.list.map((channel) => (channel.id === id ? { ...channel, unread: 0 } : channel))
    // Only a number in a list: if the server does not take it now, the next message tells it again.
    void api.markRead(id).catch(() => undefined)
  }
}

export const channels = new Channels()
