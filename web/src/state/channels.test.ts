import { expect, it, vi } from 'vitest'
import type { Message, ServerEvent } from '../api/types'

const stream = vi.hoisted(() => ({ tell: (_: unknown): void => undefined }))
vi.mock('../api/events', () => ({ events: { listen: (listener: (event: unknown) => void) => (stream.tell = listener), watch: () => undefined } }))
vi.mock('../api/channels', () => ({ messages: vi.fn(), markRead: async () => undefined }))

const { channels } = await import('./channels.svelte')
const api = await import('../api/channels')

const message = (id: string, at_ms: number): Message => ({ id, author: { id: 'ann', display_name: 'Ann' }, text: id, at_ms, call_id: null })

it('keeps a message that comes while an older answer is on its way', async () => {
  let answer = (_: Message[]): void => undefined
  vi.mocked(api.messages).mockReturnValueOnce(new Promise((resolve) => (answer = resolve)))
  const showing = channels.show('ch')
  stream.tell({ type: 'message', at_ms: 0, channel_id: 'ch', message: message('live', 3) } satisfies ServerEvent)
  answer([message('first', 1), message('second', 2)])
  await showing
  expect(channels.messages.map((one) => one.id)).toEqual(['first', 'second', 'live'])
})
