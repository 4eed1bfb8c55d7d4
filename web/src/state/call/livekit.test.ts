import { LocalParticipant, Room } from 'livekit-client'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { LiveKitMedia } from './livekit'

/** A device as the library sees it; the browser of these tests has none. */
class Track extends EventTarget {
  readonly id = 'track'
  readyState = 'live'
  enabled = true
  constructor(readonly kind: 'audio' | 'video') {
    super()
  }
  stop() {
    this.readyState = 'ended'
  }
  getSettings = () => ({})
  getConstraints = () => ({})
  applyConstraints = async () => undefined
}
class Stream {
  constructor(readonly tracks: Track[]) {}
  getTracks = () => this.tracks
  getAudioTracks = () => this.tracks.filter((track) => track.kind === 'audio')
  getVideoTracks = () => this.tracks.filter((track) => track.kind === 'video')
}

const nothing = () => undefined
const media = () =>
  new LiveKitMedia(
    { people: nothing, phase: nothing, spoken: nothing, playbackBlocked: nothing, deviceFailed: nothing, devicesChanged: nothing },
    { microphone: null, camera: null, speaker: null },
  )

describe('changing to a device that does not start', () => {
  const busy = new DOMException('', 'NotReadableError')
  afterEach(() => void vi.restoreAllMocks())

  it('goes back to the one before', async () => {
    vi.spyOn(Room.prototype, 'getActiveDevice').mockReturnValue('old')
    const change = vi.spyOn(Room.prototype, 'switchActiveDevice').mockRejectedValueOnce(busy).mockResolvedValue(true)
    await expect(media().useDevice('camera', 'new')).rejects.toBe(busy)
    expect(change.mock.calls).toEqual([['videoinput', 'new'], ['videoinput', 'old']])
  })

  it('shows the microphone as off when that one is gone too', async () => {
    vi.spyOn(Room.prototype, 'getActiveDevice').mockReturnValue('old')
    vi.spyOn(Room.prototype, 'switchActiveDevice').mockRejectedValue(busy)
    const set = vi.spyOn(LocalParticipant.prototype, 'setMicrophoneEnabled').mockResolvedValue(undefined)
    await expect(media().useDevice('microphone', 'new')).rejects.toBe(busy)
    expect(set).toHaveBeenCalledWith(false)
  })
})

describe('leaving while the browser asks', () => {
  let grant: ((stream: Stream) => void) | undefined
  beforeEach(() => {
    grant = undefined
    const asked = () => new Promise<Stream>((resolve) => (grant = resolve))
    vi.stubGlobal('MediaStream', Stream)
    vi.stubGlobal('navigator', { ...navigator, userAgent: navigator.userAgent, mediaDevices: { getUserMedia: asked, getDisplayMedia: asked, enumerateDevices: async () => [], addEventListener: () => undefined } })
  })
  afterEach(() => vi.unstubAllGlobals())

  it.each(['microphone', 'screen'] as const)('gives a %s back that is granted too late', async (source) => {
    const engine = media()
    const switching = source === 'microphone' ? engine.setMicrophone(true) : engine.setShare(true)
    await vi.waitFor(() => expect(grant).toBeDefined())
    await engine.leave()
    const track = new Track(source === 'microphone' ? 'audio' : 'video')
    grant?.(new Stream([track]))
    await expect(switching).rejects.toThrow('left')
    expect(track.readyState).toBe('ended')
  })

  it('gives a microphone back that was granted, but not published yet', async () => {
    const engine = media()
    void engine.setMicrophone(true).catch(() => undefined)
    await vi.waitFor(() => expect(grant).toBeDefined())
    const track = new Track('audio')
    grant?.(new Stream([track]))
    await new Promise((done) => setTimeout(done))
    expect(track.readyState).toBe('live')
    await engine.leave()
    expect(track.readyState).toBe('ended')
  })
})
