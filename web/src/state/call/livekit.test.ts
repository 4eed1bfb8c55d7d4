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

describe('leaving while the browser asks', () => {
  let grant: ((stream: Stream) => void) | undefined
  beforeEach(() => {
    grant = undefined
    const asked = () => new Promise<Stream>((resolve) => (grant = resolve))
    vi.stubGlobal('MediaStream', Stream)
    vi.stubGlobal('navigator', { ...navigator, userAgent: navigator.userAgent, mediaDevices: { getUserMedia: asked, getDisplayMedia: asked, enumerateDevices: async () => [], addEventListener: () => undefined } })
  })
  afterEach(() => vi.unstubAllGlobals())

  const media = () => {
    const nothing = () => undefined
    const events = { people: nothing, phase: nothing, spoken: nothing, playbackBlocked: nothing, deviceFailed: nothing, devicesChanged: nothing }
    return new LiveKitMedia(events, { microphone: null, camera: null, speaker: null })
  }

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
