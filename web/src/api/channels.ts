/** Channels and the messages in them. */
import { get, path, post } from './http'
import type { Call, Channel, Message } from './types'

export const list = async () => (await get<{ channels: Channel[] }>('/channels')).channels
export const create = (name: string, topic: string) => post<Channel>('/channels', { name, topic })
/** What one request for messages answers at most. */
export const MESSAGES_PER_PAGE = 100
/** The newest page, or the newest before a moment; oldest first. */
export const messages = async (channel: string, callId?: string, beforeMs?: number) => {
  const query = { call_id: callId, before_ms: beforeMs, limit: MESSAGES_PER_PAGE }
  return (await get<{ messages: Message[] }>(path`/channels/${channel}/messages`, query)).messages
}
export const send = (channel: string, text: string, callId?: string) =>
  post<Message>(path`/channels/${channel}/messages`, callId ? { text, call_id: callId } : { text })
export const markRead = (channel: string) => post<void>(path`/channels/${channel}/read`)
export const startCall = async (channel: string) => (await post<{ call: Call }>(path`/channels/${channel}/call`)).call
