/** The channel list, the open channel's messages, and incoming rings. */
import * as api from '../api/channels'
import { events } from '../api/events'
import type { Call, Channel, Message, Person, ServerEvent } from '../api/types'

const MESSAGES_MAX = 500

class Channels {
  list: Channel[] = $state.raw([])
  loaded = $state(false)
  error: unknown = $state.raw(null)
  open: string | null = $state(null)
  messages: Message[] = $state.raw([])
  messagesError: unknown = $state.raw(null)
  ring: { call: Call; from: Person } | null = $state.raw(null)
  current = $derived(this.list.find((channel) => channel.id === this.open) ?? null)

  constructor() {
    events.listen((event) => this.#handle(event))
    events.watch((state) => {
      // Not before a page has asked for them: guests, officers and operators may not see channels at all.
      if (state === 'open' && this.loaded) void this.refresh()
    })
  }

  async refresh(): Promise<void> {
    try {
      this.list = await api.list()
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

  async #loadMessages(id: string): Promise<void> {
    try {
      const messages = await api.messages(id)
      if (this.open !== id) return
      // What came live while the answer was on its way is newer than all of it.
      const known = new Set(messages.map((message) => message.id))
      const last = messages.at(-1)?.at_ms ?? 0
      const live = this.messages.filter((message) => message.at_ms >= last && !known.has(message.id))
      this.messages = [...messages, ...live].slice(-MESSAGES_MAX)
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
    this.messages = [...this.messages, message].slice(-MESSAGES_MAX)
    this.#markRead(channelId)
  }

  #markRead(id: string): void {
    this.list = this.list.map((channel) => (channel.id === id ? { ...channel, unread: 0 } : channel))
    // Only a number in a list: if the server does not take it now, the next message tells it again.
    void api.markRead(id).catch(() => undefined)
  }
}

export const channels = new Channels()
