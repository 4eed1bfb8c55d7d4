import { beforeEach, expect, it, vi } from 'vitest'
import type { Channel, Message, ServerEvent } from '../api/types'

const stream = vi.hoisted(() => ({ tell: (_: unknown): void => undefined }))
vi.mock('../api/events', () => ({ events: { listen: (listener: (event: unknown) => void) => (stream.tell = listener), watch: () => undefined } }))
vi.mock('../api/channels', () => ({ MESSAGES_PER_PAGE: 3, messages: vi.fn(), markRead: async () => undefined, list: vi.fn() }))

const { channels } = await import('./channels.svelte')
const api = await import('../api/channels')

beforeEach(async () => {
  vi.mocked(api.messages).mockReset().mockResolvedValue([])
  await channels.show(null)
})

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

/** Messages 1 to `count`, two in each moment, as the server pages them. */
function written(count: number): void {
  const all = Array.from({ length: count }, (_, i) => message(`m${i + 1}`, Math.floor(i / 2)))
  vi.mocked(api.messages).mockImplementation(async (_channel, _call, before = Infinity) => all.filter((one) => one.at_ms < before).slice(-3))
}
const shown = () => channels.messages.map((one) => Number(one.id.slice(1)))
const from = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, i) => first + i)

it('reads a channel back page after page until its first message', async () => {
  written(8)
  await channels.show('ch')
  expect(shown()).toEqual(from(6, 8))
  while (channels.earlier === 'more') await channels.showEarlier()
  expect(shown()).toEqual(from(1, 8))
  expect(channels.earlier).toBe('nothing')
})

it('keeps what was read back when the stream returns, and nothing before a gap', async () => {
  vi.mocked(api.list).mockResolvedValue([])
  written(5)
  await channels.refresh()
  await channels.show('ch')
  await channels.showEarlier()
  const before = shown()
  expect(before.length).toBeGreaterThan(3)
  written(7)
  await channels.refresh()
  expect(shown()).toEqual([...before, 6, 7])
  written(20)
  await channels.refresh()
  expect(shown()).toEqual(from(18, 20))
  expect(channels.earlier).toBe('more')
})

it('says that earlier messages could not be loaded, and tries again', async () => {
  written(4)
  await channels.show('ch')
  vi.mocked(api.messages).mockRejectedValueOnce(new Error('away'))
  await channels.showEarlier()
  expect(channels.earlier).toBe('failed')
  await channels.showEarlier()
  expect(shown()).toEqual(from(1, 4))
})

it('does not take away what is being read when somebody writes', async () => {
  vi.mocked(api.messages).mockResolvedValue([])
  await channels.show('ch')
  const say = (n: number) => stream.tell({ type: 'message', at_ms: 0, channel_id: 'ch', message: message(`m${n}`, n) } satisfies ServerEvent)
  for (const n of from(1, 501)) say(n)
  expect([shown()[0], channels.earlier]).toEqual([2, 'more'])
  vi.mocked(api.messages).mockResolvedValueOnce([message('m1', 1), message('m2', 2)])
  await channels.showEarlier()
  say(502)
  expect([shown()[0], shown().at(-1)]).toEqual([1, 502])
})

it('asks for the list again where something came while it was answered', async () => {
  const channel = (unread: number): Channel => ({ id: 'other', name: 'Other', topic: '', active_call: null, unread })
  vi.mocked(api.list).mockResolvedValueOnce([channel(0)])
  await channels.refresh()
  const heard = { type: 'message', at_ms: 0, channel_id: 'other', message: message('m1', 1) } satisfies ServerEvent
  vi.mocked(api.list)
    .mockImplementationOnce(async () => {
      stream.tell(heard)
      return [channel(0)]
    })
    .mockResolvedValueOnce([channel(1)])
  await channels.refresh()
  expect(channels.list.map((one) => one.unread)).toEqual([1])
})
