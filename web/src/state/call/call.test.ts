import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { ApiError } from '../../api/http'
import type { Call, CallParticipant, Caption, Message, ServerEvent } from '../../api/types'
import { CallModel, type CallNews, type CallPorts } from './call.svelte'
import type { Media, MediaEvents, MediaPerson } from './media'

const participant = (identity: string, more: Partial<CallParticipant> = {}): CallParticipant => ({
  identity, display_name: identity.toUpperCase(), host: false, hand_raised_at_ms: null, joined_at_ms: 0, consent: 'none', quality: '', ...more,
})
const call = (more: Partial<Call> = {}): Call => ({
  id: 'c', channel_id: 'ch', channel_name: 'Channel', title: '', started_at_ms: 0, ended_at_ms: null, participants: [participant('me'), participant('ann')],
  recording: { state: 'off', started_at_ms: null, started_by: null, waiting_for: [] }, captions: { enabled: false, language: 'en' }, you: { identity: 'me', host: false }, ...more,
})
const person = (identity: string, more: Partial<MediaPerson> = {}): MediaPerson => ({
  identity, name: identity, local: identity === 'me', speaking: false, quality: 'good', joinedAt: 0, tracks: {}, ...more,
})
const track = (muted: boolean, ended = false) => ({ key: 'k', muted, ended, attach: () => () => undefined })

/** A promise that is settled when the test says so. */
function deferred<T = void>() {
  let resolve!: (value: T) => void
  let reject!: (error: unknown) => void
  const promise = new Promise<T>((yes, no) => ((resolve = yes), (reject = no)))
  return { promise, resolve, reject }
}

/** `engine`, `connecting` and `starting` are waited for where the engine is fetched, media connects, a microphone is switched. */
function stage(options: { micError?: Error; engine?: Promise<void>; connecting?: Promise<void>; starting?: Promise<void> } = {}) {
  const news: CallNews[] = []
  const medias: { events: MediaEvents; media: Record<keyof Media, ReturnType<typeof vi.fn>> }[] = []
  let listener: (event: ServerEvent) => void = () => undefined
  const api = {
    one: vi.fn(async () => call()),
    join: vi.fn(async () => ({ url: '/livekit', token: 't', call: call() })),
    leave: vi.fn(async () => undefined),
    end: vi.fn(async () => undefined),
    raiseHand: vi.fn(async () => undefined),
    react: vi.fn(async () => undefined),
    hostAction: vi.fn(async () => undefined),
    recording: vi.fn(async () => undefined),
    consent: vi.fn(async () => undefined),
    captions: vi.fn(async () => undefined),
    captionLines: vi.fn(async (): Promise<Caption[]> => []),
    guestLink: vi.fn(async () => ({ url: '/join/x', expires_at_ms: 0 })),
    messages: vi.fn(async (_channel: string, _call: string, _before?: number): Promise<Message[]> => []),
    send: vi.fn(async (_: string, text: string): Promise<Message> => ({ id: 'm1', author: { id: 'me', display_name: 'ME' }, text, at_ms: 0, call_id: 'c' })),
  }
  const ports: CallPorts = {
    api,
    listen: (next) => ((listener = next), () => undefined),
    streamOpen: () => true,
    checkStream: vi.fn(),
    makeMedia: async (events) => {
      await options.engine
      const media = {
        connect: vi.fn(async () => {
          events.phase('connecting')
          await options.connecting
          events.phase('connected')
        }),
        leave: vi.fn(async () => undefined),
        setMicrophone: vi.fn(async () => {
          await options.starting
          if (options.micError) throw options.micError
        }),
        setCamera: vi.fn(async () => undefined),
        setShare: vi.fn(async () => true),
        useDevice: vi.fn(async () => undefined),
        allowPlayback: vi.fn(async () => undefined),
        stats: vi.fn(async () => null),
      }
      medias.push({ events, media })
      return media as unknown as Media
    },
    news: (one) => news.push(one),
    now: () => Date.now(),
  }
  const model = new CallModel('c', 'me', { version: '1', text: 'Notice' }, ports)
  return { model, api, news, medias, checkStream: ports.checkStream, tell: (event: ServerEvent) => listener(event) }
}

/** Joining, connected, the browser still asks whether the microphone may be used. */
async function joiningWithSlowMicrophone({ camera = false } = {}) {
  const asked = deferred()
  const all = stage({ starting: asked.promise })
  await all.model.load()
  void all.model.join({ microphone: true, camera }, devices)
  await vi.advanceTimersByTimeAsync(0)
  expect(all.medias[0]!.media.setMicrophone).toHaveBeenCalled()
  expect(all.model.phase).toBe('joining')
  return { ...all, asked }
}

const devices = { microphone: null, camera: null, speaker: null }
async function joined() {
  const all = stage()
  await all.model.load()
  await all.model.join({ microphone: true, camera: false }, devices)
  return all
}

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

describe('joining', () => {
  it('goes from loading over the pre-join page into the call', async () => {
    const { model, medias } = stage()
    expect(model.phase).toBe('loading')
    await model.load()
    expect(model.phase).toBe('prejoin')
    await model.join({ microphone: true, camera: false }, devices)
    expect(model.phase).toBe('in')
    expect(medias[0]?.media.setMicrophone).toHaveBeenCalledWith(true)
    expect(medias[0]?.media.setCamera).not.toHaveBeenCalled()
  })

  it('lets people in whose microphone fails, and tells them', async () => {
    const { model, news } = stage({ micError: new DOMException('', 'NotAllowedError') })
    await model.load()
    await model.join({ microphone: true, camera: false }, devices)
    expect(model.phase).toBe('in')
    expect(news).toContainEqual({ kind: 'device', source: 'microphone', problem: 'denied' })
  })

  it('comes back to the pre-join page with the reason when the server refuses', async () => {
    const { model, api } = stage()
    await model.load()
    api.join.mockRejectedValueOnce(new ApiError(503, 'draining', 'The node is draining.'))
    await model.join({ microphone: true, camera: false }, devices)
    expect(model.phase).toBe('prejoin')
    expect(model.joinError).toBeInstanceOf(ApiError)
  })

  it('says when there is no such call', async () => {
    const { model, api } = stage()
    api.one.mockRejectedValueOnce(new ApiError(404, 'not_found', ''))
    await model.load()
    expect(model.phase).toBe('missing')
  })
})

describe('leaving before one has arrived', () => {
  const ticket = { url: '/livekit', token: 't', call: call() }
  const settled = () => vi.advanceTimersByTimeAsync(0)

  it('connects nothing when the page goes away while the server is asked', async () => {
    const { model, api, medias } = stage()
    await model.load()
    const answer = deferred<typeof ticket>()
    api.join.mockReturnValueOnce(answer.promise)
    const joining = model.join({ microphone: true, camera: true }, devices)
    model.dispose()
    answer.resolve(ticket)
    await joining
    expect(medias).toEqual([])
  })

  it('connects nothing when the page goes away while the media engine is fetched', async () => {
    const engine = deferred()
    const { model, medias } = stage({ engine: engine.promise })
    await model.load()
    const joining = model.join({ microphone: true, camera: true }, devices)
    await settled()
    model.dispose()
    engine.resolve()
    await joining
    expect(medias[0]!.media.connect).not.toHaveBeenCalled()
    expect(medias[0]!.media.setMicrophone).not.toHaveBeenCalled()
    expect(medias[0]!.media.leave).toHaveBeenCalled()
  })

  it('switches no microphone and no camera on when the page goes away while media connects', async () => {
    const connecting = deferred()
    const { model, medias } = stage({ connecting: connecting.promise })
    await model.load()
    const joining = model.join({ microphone: true, camera: true }, devices)
    await settled()
    model.dispose()
    connecting.resolve()
    await joining
    expect(medias[0]!.media.leave).toHaveBeenCalled()
    expect(medias[0]!.media.setMicrophone).not.toHaveBeenCalled()
    expect(medias[0]!.media.setCamera).not.toHaveBeenCalled()
  })

  it('switches no camera on when the page goes away while the microphone is being started', async () => {
    const { model, medias, asked } = await joiningWithSlowMicrophone({ camera: true })
    model.dispose()
    asked.resolve()
    await settled()
    expect(medias[0]!.media.setCamera).not.toHaveBeenCalled()
    expect(medias[0]!.media.leave).toHaveBeenCalled()
  })

  it('does not give a reason on the pre-join page to somebody who is gone', async () => {
    const { model, api } = stage()
    await model.load()
    const answer = deferred<typeof ticket>()
    api.join.mockReturnValueOnce(answer.promise)
    const joining = model.join({ microphone: true, camera: false }, devices)
    model.dispose()
    answer.reject(new ApiError(0, 'timeout', ''))
    await joining
    // The page would start its preview again: a microphone that nobody sees.
    expect(model.joinError).toBeNull()
  })

  it('does not come back after "Leave" when the network does', async () => {
    const { model, api, medias } = await joined()
    const answer = deferred<typeof ticket>()
    api.join.mockReturnValueOnce(answer.promise)
    medias[0]!.events.phase('ended', 'lost')
    await vi.advanceTimersByTimeAsync(1_000)
    await model.leave()
    answer.resolve(ticket)
    await vi.advanceTimersByTimeAsync(60_000)
    expect(medias.length).toBe(1)
    expect(model.phase).toBe('ended')
    expect(model.endCause).toBe('left')
  })
})

describe('trouble', () => {
  it('stays out of a call that ends while one joins it', async () => {
    const engine = deferred()
    const { model, medias, tell } = stage({ engine: engine.promise })
    await model.load()
    const joining = model.join({ microphone: true, camera: false }, devices)
    await vi.advanceTimersByTimeAsync(0)
    tell({ type: 'call_ended', at_ms: 0, call_id: 'c', attendance: [] })
    engine.resolve()
    await joining
    expect(model.phase).toBe('ended')
    expect(model.endCause).toBe('call-ended')
    expect(medias[0]!.media.connect).not.toHaveBeenCalled()
  })

  it('is told by the media engine that the call is over while a microphone is being started', async () => {
    const { model, medias, asked } = await joiningWithSlowMicrophone()
    medias[0]!.events.phase('ended', 'removed')
    asked.resolve()
    await vi.advanceTimersByTimeAsync(0)
    expect(model.phase).toBe('ended')
    expect(model.endCause).toBe('removed')
  })

  it('comes back by itself when the media is lost while a microphone is being started', async () => {
    const { model, medias, asked } = await joiningWithSlowMicrophone()
    medias[0]!.events.phase('ended', 'lost')
    asked.resolve()
    await vi.advanceTimersByTimeAsync(0)
    expect(model.phase).toBe('rejoining')
    expect(medias[0]!.media.leave).toHaveBeenCalled()
    await vi.advanceTimersByTimeAsync(1_000)
    expect(model.phase).toBe('in')
    expect(medias.length).toBe(2)
  })

  it('takes nothing from a media engine that was given up', async () => {
    const { model, medias } = await joined()
    await model.leave()
    medias[0]!.events.people([person('me')])
    expect(model.people).toEqual([])
  })

  it('stays at the end of a call that ends while it is read', async () => {
    const { model, api, tell } = stage()
    const answer = deferred<Call>()
    api.one.mockReturnValueOnce(answer.promise)
    const loading = model.load()
    tell({ type: 'call_ended', at_ms: 0, call_id: 'c', attendance: [] })
    answer.resolve(call())
    await loading
    expect(model.phase).toBe('ended')
  })

  it('joins again by itself with a new token after the media was lost, as often as needed', async () => {
    const { model, api, medias } = await joined()
    api.join.mockRejectedValueOnce(new ApiError(0, 'unreachable', ''))
    medias[0]!.events.phase('ended', 'lost')
    expect(model.phase).toBe('rejoining')
    await vi.advanceTimersByTimeAsync(1_000)
    expect(model.phase).toBe('rejoining')
    await vi.advanceTimersByTimeAsync(2_000)
    expect(model.phase).toBe('in')
    expect(medias.at(-1)?.media.setMicrophone).toHaveBeenCalledWith(true)
  })

  const hello: ServerEvent = { type: 'hello', at_ms: 0, user: { id: 'me', username: '', display_name: '', roles: [], guest_call_id: null } }
  const message = (id: string, at_ms: number, author = 'ann'): Message => ({ id, author: { id: author, display_name: author }, text: id, at_ms, call_id: 'c' })
  const settled = () => vi.advanceTimersByTimeAsync(0)

  it('reads up the chat that a break of the event stream kept away, and counts it as unread', async () => {
    const { model, api, tell } = stage()
    api.messages.mockResolvedValueOnce([message('before', 1)])
    await model.load()
    await model.join({ microphone: false, camera: false }, devices)
    await settled()
    expect(model.unread).toBe(0)
    tell({ type: 'message', at_ms: 0, channel_id: 'ch', message: message('live', 4) })
    expect(model.unread).toBe(1)
    api.messages.mockResolvedValueOnce([message('missed', 2), message('own', 3, 'me'), message('live', 4)])
    tell(hello)
    await settled()
    expect(model.chat.map((one) => one.id)).toEqual(['before', 'missed', 'own', 'live'])
    expect(model.unread).toBe(2)
  })

  it('reads up page after page where a break kept more away than one page holds', async () => {
    const { model, api, tell } = stage()
    api.messages.mockResolvedValueOnce([message('before', 1)])
    await model.load()
    await model.join({ microphone: false, camera: false }, devices)
    await settled()
    // As the server answers, by pages of three. Two came in one moment, on either side of a page's edge.
    const all = [message('before', 1), message('a', 2), message('b', 3), message('c', 3), message('d', 4), message('e', 5)]
    api.messages.mockImplementation(async (_channel: string, _call: string, before = Infinity) => all.filter((one) => one.at_ms < before).slice(-3))
    tell(hello)
    await settled()
    expect(model.chat.map((one) => one.id)).toEqual(['before', 'a', 'b', 'c', 'd', 'e'])
    expect(model.unread).toBe(5)
    expect(api.messages).toHaveBeenCalledTimes(4)
  })

  it('counts nothing as unread in a chat that is open, nor a whole chat that could not be read at first', async () => {
    const open = await joined()
    open.model.show('chat')
    open.api.messages.mockResolvedValueOnce([message('missed', 2)])
    open.tell(hello)
    await settled()
    expect(open.model.chat.length).toBe(1)
    expect(open.model.unread).toBe(0)

    const late = stage()
    late.api.messages.mockRejectedValueOnce(new ApiError(0, 'unreachable', ''))
    await late.model.load()
    await late.model.join({ microphone: false, camera: false }, devices)
    late.api.messages.mockResolvedValueOnce([message('before', 2)])
    late.tell(hello)
    await settled()
    expect(late.model.chat.length).toBe(1)
    expect(late.model.unread).toBe(0)
  })

  it('reads up the captions that a break of the event stream kept away', async () => {
    const { model, api, tell } = await joined()
    const caption = { call_id: 'c', identity: 'ann', display_name: 'ANN', track_sid: 't', segment_id: 's', committed: 'Missed.', pending: '', final: true, language: 'en', start_ms: 0, end_ms: 1, delay_ms: 0 }
    // They were started during the break.
    api.one.mockResolvedValueOnce(call({ captions: { enabled: true, language: 'en' } }))
    api.captionLines.mockResolvedValueOnce([caption])
    tell(hello)
    await settled()
    expect(model.captions.lines.map((line) => line.committed)).toEqual(['Missed.'])
  })

  it('reads up the chat after it came back into the call', async () => {
    const { model, api, medias } = await joined()
    await settled()
    medias[0]!.events.phase('ended', 'lost')
    api.messages.mockResolvedValueOnce([message('missed', 2)])
    await vi.advanceTimersByTimeAsync(1_000)
    expect(model.phase).toBe('in')
    expect(model.chat.map((one) => one.id)).toEqual(['missed'])
    expect(model.unread).toBe(1)
  })

  it('keeps what an event told while an older answer was on its way', async () => {
    const { model, api, tell } = await joined()
    const answer = deferred<Call>()
    api.one.mockReturnValueOnce(answer.promise)
    tell(hello)
    tell({ type: 'call', at_ms: 0, call: call({ you: undefined, title: 'new' }) })
    answer.resolve(call({ title: 'old', you: { identity: 'me', host: true } }))
    await settled()
    expect(model.call?.title).toBe('new')
    expect(model.call?.you?.host).toBe(true)
  })

  it('keeps the newer of two answers that overtake each other', async () => {
    const { model, api, tell } = await joined()
    const older = deferred<Call>()
    api.one.mockReturnValueOnce(older.promise).mockResolvedValueOnce(call({ title: 'new' }))
    tell(hello)
    tell(hello)
    await settled()
    older.resolve(call({ title: 'old' }))
    await settled()
    expect(model.call?.title).toBe('new')
  })

  it('ends when the call ended during a break of the event stream', async () => {
    const { model, api, tell } = await joined()
    api.one.mockResolvedValueOnce(call({ ended_at_ms: 5 }))
    tell(hello)
    await settled()
    expect(model.phase).toBe('ended')
    expect(model.endCause).toBe('call-ended')
  })

  it('knows on the pre-join page what happened during a break of the event stream', async () => {
    const { model, api, tell } = stage()
    await model.load()
    api.one.mockResolvedValueOnce(call({ title: 'new' }))
    tell(hello)
    await settled()
    expect(model.call?.title).toBe('new')
  })

  it('looks after the event stream once the media engine has reconnected', async () => {
    const { medias, checkStream } = await joined()
    expect(checkStream).not.toHaveBeenCalled()
    medias[0]!.events.phase('signal-lost')
    medias[0]!.events.phase('connected')
    expect(checkStream).toHaveBeenCalledTimes(1)
  })

  it('gives up after five minutes and says so', async () => {
    const { model, api, medias } = await joined()
    api.join.mockRejectedValue(new ApiError(0, 'unreachable', ''))
    medias[0]!.events.phase('ended', 'lost')
    await vi.advanceTimersByTimeAsync(6 * 60_000)
    expect(model.phase).toBe('ended')
    expect(model.endCause).toBe('lost')
  })

  it('does not join again when the call is over or a host removed us', async () => {
    const over = await joined()
    over.api.join.mockRejectedValueOnce(new ApiError(404, 'not_found', ''))
    over.medias[0]!.events.phase('ended', 'lost')
    await vi.advanceTimersByTimeAsync(1_000)
    expect(over.model.endCause).toBe('call-ended')

    const removed = await joined()
    removed.medias[0]!.events.phase('ended', 'removed')
    expect(removed.model.phase).toBe('ended')
    expect(removed.model.endCause).toBe('removed')
  })

  it('reads the call again when the event stream comes back', async () => {
    const { model, api, tell } = await joined()
    api.one.mockResolvedValueOnce(call({ participants: [participant('me'), participant('ann'), participant('bob')] }))
    tell({ type: 'hello', at_ms: 0, user: { id: 'me', username: '', display_name: '', roles: [], guest_call_id: null } })
    await vi.waitFor(() => expect(model.call?.participants.length).toBe(3))
  })
})

describe('switching', () => {
  const settled = () => vi.advanceTimersByTimeAsync(0)

  it('mutes right after a change of device during which somebody pressed mute', async () => {
    const { model, medias } = await joined()
    const { media } = medias[0]!
    const changing = deferred()
    media.useDevice.mockReturnValueOnce(changing.promise)
    void model.useDevice('microphone', 'headset')
    void model.setMicrophone(false)
    expect(model.changing.microphone).toBe(true)
    changing.resolve()
    await settled()
    expect(media.setMicrophone).toHaveBeenLastCalledWith(false)
    expect(model.changing.microphone).toBe(false)
  })

  it('follows the newest of many wishes that came while a microphone was being started', async () => {
    const { model, medias } = await joined()
    const { media } = medias[0]!
    const starting = deferred()
    media.setMicrophone.mockClear()
    media.setMicrophone.mockReturnValueOnce(starting.promise)
    void model.setMicrophone(true)
    void model.useDevice('microphone', 'headset')
    void model.setMicrophone(false)
    void model.setMicrophone(true)
    void model.setMicrophone(false)
    starting.resolve()
    await settled()
    expect(media.setMicrophone.mock.calls).toEqual([[true], [false]])
    // A device that is chosen meanwhile is used, but only once the microphone is off.
    expect(media.useDevice).toHaveBeenCalledWith('microphone', 'headset')
    expect(media.useDevice.mock.invocationCallOrder[0]).toBeGreaterThan(media.setMicrophone.mock.invocationCallOrder[1]!)
  })

  it('turns the wish round, not what is shown, when a button is pressed again during a change', async () => {
    const { model, medias } = await joined()
    const { media } = medias[0]!
    const starting = deferred()
    media.setCamera.mockReturnValueOnce(starting.promise)
    void model.toggle('camera')
    expect(media.setCamera).toHaveBeenLastCalledWith(true)
    void model.toggle('camera')
    starting.resolve()
    await settled()
    expect(media.setCamera).toHaveBeenLastCalledWith(false)
  })

  it('follows a newer wish also when the older one failed, and does not complain about that', async () => {
    const { model, medias, news } = await joined()
    const { media } = medias[0]!
    const starting = deferred()
    media.setMicrophone.mockReturnValueOnce(starting.promise)
    void model.setMicrophone(true)
    void model.setMicrophone(false)
    starting.reject(new DOMException('', 'NotReadableError'))
    await settled()
    expect(media.setMicrophone).toHaveBeenLastCalledWith(false)
    expect(news).toEqual([])
  })

  it('asks only once what to share, and stops a share that is being started', async () => {
    const { model, medias } = await joined()
    const { media } = medias[0]!
    const asking = deferred<boolean>()
    media.setShare.mockReturnValueOnce(asking.promise)
    void model.setShare(true)
    void model.setShare(true)
    void model.setShare(false)
    asking.resolve(true)
    await settled()
    expect(media.setShare.mock.calls).toEqual([[true], [false]])
  })

  it('says nothing about a share or a device that fails after one has left', async () => {
    const { model, medias, news } = await joined()
    const asking = deferred<boolean>()
    medias[0]!.media.setShare.mockReturnValueOnce(asking.promise)
    void model.setShare(true)
    await model.leave()
    asking.reject(new Error('the room is gone'))
    await settled()
    expect(news).toEqual([])
    expect(model.changing.screen).toBe(false)
  })

  it('starts the microphone of the next media engine though that of the last one hangs', async () => {
    const { model, medias } = await joined()
    medias[0]!.media.setMicrophone.mockReturnValueOnce(deferred().promise)
    void model.setMicrophone(true)
    medias[0]!.events.phase('ended', 'lost')
    await vi.advanceTimersByTimeAsync(1_000)
    expect(model.phase).toBe('in')
    expect(medias[1]!.media.setMicrophone).toHaveBeenCalledWith(true)
    expect(model.changing.microphone).toBe(false)
  })

  it('leaves a microphone off with the next media engine that a change of device ended', async () => {
    const { model, medias } = await joined()
    const { media, events } = medias[0]!
    const say = (muted: boolean) => events.people([person('me', { tracks: { microphone: track(muted, muted) } })])
    say(false)
    media.useDevice.mockImplementationOnce(async () => {
      say(true)
      throw new DOMException('', 'NotReadableError')
    })
    await model.useDevice('microphone', 'headset')
    expect(model.deviceProblems.microphone).toBe('busy')
    events.phase('ended', 'lost')
    await vi.advanceTimersByTimeAsync(1_000)
    expect(model.phase).toBe('in')
    expect(medias[1]!.media.setMicrophone).not.toHaveBeenCalled()
  })

  it('does not switch on with the next media engine what failed with the last one', async () => {
    const options: { micError?: Error } = { micError: new DOMException('', 'NotAllowedError') }
    const { model, medias } = stage(options)
    await model.load()
    await model.join({ microphone: true, camera: false }, devices)
    delete options.micError
    medias[0]!.events.phase('ended', 'lost')
    await vi.advanceTimersByTimeAsync(1_000)
    expect(model.phase).toBe('in')
    expect(medias[1]!.media.setMicrophone).not.toHaveBeenCalled()
  })
})

describe('in the call', () => {
  it('tells a person that a host muted them, but not when they did it themselves', async () => {
    const { model, news, medias } = await joined()
    const say = (muted: boolean) => medias[0]!.events.people([person('me', { tracks: { microphone: track(muted) } })])
    say(false)
    say(true)
    expect(news).toContainEqual({ kind: 'muted-by-host' })
    news.length = 0
    await model.setMicrophone(true)
    say(false)
    await model.setMicrophone(false)
    say(true)
    expect(news).toEqual([])
  })

  it.each(['microphone', 'camera'] as const)('does not blame a host for an unplugged %s, and does not switch it on by itself later', async (source) => {
    const { model, news, medias } = await joined()
    await (source === 'microphone' ? model.setMicrophone(true) : model.setCamera(true))
    const say = (muted: boolean, ended: boolean) => medias[0]!.events.people([person('me', { tracks: { [source]: track(muted, ended) } })])
    say(false, false)
    // The media engine looks for another device first.
    say(false, true)
    expect(news).toEqual([])
    say(true, true)
    expect(news).toEqual([{ kind: 'device', source, problem: 'gone' }])
    expect(model.deviceProblems[source]).toBe('gone')
    medias[0]!.events.phase('ended', 'lost')
    await vi.advanceTimersByTimeAsync(1_000)
    expect(medias[1]!.media[source === 'microphone' ? 'setMicrophone' : 'setCamera']).not.toHaveBeenCalled()
  })

  it('takes a camera that one switched off oneself for no trouble', async () => {
    const { model, news, medias } = await joined()
    await model.setCamera(true)
    medias[0]!.events.people([person('me', { tracks: { camera: track(false) } })])
    await model.setCamera(false)
    medias[0]!.events.people([person('me', { tracks: { camera: track(true, true) } })])
    expect(news).toEqual([])
  })

  it('remembers who spoke last', async () => {
    const { model, medias } = await joined()
    medias[0]!.events.people([person('me'), person('ann', { speaking: true }), person('bob')])
    medias[0]!.events.people([person('me'), person('ann'), person('bob', { speaking: true })])
    expect(model.recentSpeakers).toEqual(['bob', 'ann'])
  })

  it('asks for consent while it is asked or recorded, until it is answered', async () => {
    const { model, api, tell } = await joined()
    expect(model.consentAsked).toBe(false)
    const asking = { state: 'asking' as const, started_at_ms: null, started_by: 'ann', waiting_for: ['me', 'ann'] }
    tell({ type: 'call', at_ms: 0, call: call({ recording: asking }) })
    expect(model.consentAsked).toBe(true)
    await model.answerConsent(false)
    expect(api.consent).toHaveBeenCalledWith('c', false, '1')
    expect(model.consentAsked).toBe(false)
    expect(model.myConsent).toBe('declined')
  })

  it('asks again when an answer did not reach the server', async () => {
    const { model, api, news, tell } = await joined()
    tell({ type: 'call', at_ms: 0, call: call({ recording: { state: 'asking', started_at_ms: null, started_by: 'ann', waiting_for: ['me'] } }) })
    api.consent.mockRejectedValueOnce(new ApiError(0, 'unreachable', ''))
    await model.answerConsent(true)
    expect(model.consentAsked).toBe(true)
    expect(news.some((one) => one.kind === 'failed')).toBe(true)
  })

  it('keeps knowing who we are when an event leaves it out', async () => {
    const { model, tell } = await joined()
    tell({ type: 'call', at_ms: 0, call: call({ you: undefined, participants: [participant('me', { host: true })] }) })
    expect(model.identity).toBe('me')
    expect(model.isHost).toBe(true)
  })

  it('counts chat messages that nobody looked at, and shows each once', async () => {
    const { model, tell } = await joined()
    const message = { id: 'm9', author: { id: 'ann', display_name: 'ANN' }, text: 'hi', at_ms: 0, call_id: 'c' }
    tell({ type: 'message', at_ms: 0, channel_id: 'ch', message })
    tell({ type: 'message', at_ms: 0, channel_id: 'ch', message })
    expect(model.chat.length).toBe(1)
    expect(model.unread).toBe(1)
    model.show('chat')
    expect(model.unread).toBe(0)
  })

  it('starts captions for the call at the first press and hides them for oneself at the next', async () => {
    const { model, api, tell } = await joined()
    tell({ type: 'call', at_ms: 0, call: call({ participants: [participant('me', { host: true })] }) })
    await model.toggleCaptions()
    expect(api.captions).toHaveBeenCalledWith('c', true, '')
    tell({ type: 'call', at_ms: 0, call: call({ captions: { enabled: true, language: 'en' } }) })
    expect(model.captionsShown).toBe(true)
    await model.toggleCaptions()
    expect(model.captionsShown).toBe(false)
    expect(api.captions).toHaveBeenCalledTimes(1)
  })

  it('does not ask the server for what only a host may start, but shows captions once they run', async () => {
    const { model, api, news, tell } = await joined()
    await model.toggleCaptions()
    expect(api.captions).not.toHaveBeenCalled()
    expect(news).toContainEqual({ kind: 'captions-need-host' })
    tell({ type: 'call', at_ms: 0, call: call({ captions: { enabled: true, language: '' } }) })
    expect(model.captionsShown).toBe(true)
  })

  it('lets somebody who declined agree later', async () => {
    const { model, tell } = await joined()
    const recording = { state: 'recording' as const, started_at_ms: 0, started_by: 'ann', waiting_for: [] }
    tell({ type: 'call', at_ms: 0, call: call({ recording, participants: [participant('me', { consent: 'declined' })] }) })
    expect(model.consentAsked).toBe(false)
    model.consentReopened = true
    expect(model.consentAsked).toBe(true)
    await model.answerConsent(true)
    expect(model.consentAsked).toBe(false)
    expect(model.myConsent).toBe('granted')
  })

  it('drops a pin when its screen is gone', async () => {
    const { model, medias } = await joined()
    medias[0]!.events.people([person('me'), person('ann', { tracks: { screen: track(false) } })])
    model.pin('ann/screen')
    medias[0]!.events.people([person('me'), person('ann')])
    expect(model.pinned).toBeNull()
  })

  it('ends with the attendance when the server ends the call', async () => {
    const { model, medias, tell } = await joined()
    tell({ type: 'call_ended', at_ms: 0, call_id: 'c', attendance: [{ identity: 'ann', display_name: 'ANN', joined_at_ms: 0, left_at_ms: 5 }] })
    expect(model.phase).toBe('ended')
    expect(model.attendance.length).toBe(1)
    await vi.waitFor(() => expect(medias[0]?.media.leave).toHaveBeenCalled())
  })
})
