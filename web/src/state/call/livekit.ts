/** The media engine on `livekit-client`: its room, its tracks and its reconnecting, seen through our port. */
import {
  AudioPresets,
  ConnectionQuality,
  DisconnectReason,
  LogLevel,
  Room,
  RoomEvent,
  ScreenSharePresets,
  setLogLevel,
  Track,
  VideoPresets,
  type LocalTrack,
  type Participant,
  type RemoteTrack,
  type RoomOptions,
  type ScalabilityMode,
  type TrackPublication,
  type TrackPublishOptions,
} from 'livekit-client'
import type { Quality } from '../../api/types'
import { load } from '../storage'
import type { DeviceChoice, EndCause, Media, MediaEvents, MediaPerson, MediaTrack, Source } from './media'
import { readStats, type LinkStats, type StatsMemory } from './quality'

const SOURCES: Record<Source, Track.Source> = {
  microphone: Track.Source.Microphone,
  camera: Track.Source.Camera,
  screen: Track.Source.ScreenShare,
  screen_audio: Track.Source.ScreenShareAudio,
}

const KINDS = { microphone: 'audioinput', camera: 'videoinput', speaker: 'audiooutput' } as const

/** Text on a shared screen has to stay sharp, so resolution wins over frame rate; 15 fps is enough to follow a mouse. */
const SHARE = ScreenSharePresets.h1080fps15

function roomOptions(devices: DeviceChoice): RoomOptions {
  return {
    // Ours, at `pagehide`: theirs also acts on `beforeunload`, where the person may still decide to stay.
    disconnectOnPageLeave: false,
    singlePeerConnection: !usesTwoConnections(),
    adaptiveStream: true,
    dynacast: true,
    stopLocalTrackOnUnpublish: true,
    audioCaptureDefaults: {
      deviceId: devices.microphone ?? undefined,
      echoCancellation: true,
      noiseSuppression: true,
      autoGainControl: true,
    },
    videoCaptureDefaults: { deviceId: devices.camera ?? undefined, resolution: VideoPresets.h720.resolution },
    audioOutput: devices.speaker ? { deviceId: devices.speaker } : undefined,
    publishDefaults: {
      ...cameraLayers(),
      // Silence costs almost nothing with DTX. RED would double the sound's rate; in-band FEC covers single losses.
      dtx: true,
      // Speech at twice that sounds no better to a listener and does not fit through 64 kbit/s.
      audioPreset: AudioPresets.speech,
      red: false,
      screenShareEncoding: SHARE.encoding,
      screenShareSimulcastLayers: [],
      degradationPreference: 'maintain-resolution',
    },
  }
}

/**
 * Browser tests cannot answer the dialog that asks what to share. With `localStorage['conclave.share'] = 'tab'`
 * the page asks for its own tab, which headless Chromium grants under `--auto-accept-this-tab-capture`.
 */
const sharesOwnTab = () => load('share') === 'tab'

/**
 * One connection carries both directions. With `localStorage['conclave.connections'] = 'two'` there is one per direction,
 * as older clients have it: for whoever looks for the cause of a trouble, and for tests of both.
 */
const usesTwoConnections = () => load('connections') === 'two'

/**
 * VP8 in several sizes is what every browser encodes cheaply and decodes. With `localStorage['conclave.layers'] = 'vp9/L3T3_KEY'`
 * (or `av1/L1T3` …) cameras send one stream with layers inside (SVC): to try it out, and for tests.
 */
function cameraLayers(): TrackPublishOptions {
  const [codec, mode] = load('layers')?.split('/') ?? []
  if (codec !== 'vp9' && codec !== 'av1') return { simulcast: true, videoCodec: 'vp8' }
  return { simulcast: false, backupCodec: false, videoCodec: codec, scalabilityMode: (mode || 'L3T3_KEY') as ScalabilityMode }
}

export class LiveKitMedia implements Media {
  readonly #room: Room
  readonly #events: MediaEvents
  readonly #memory: StatsMemory = new Map()
  readonly #captured = new Set<LocalTrack>()
  #leaving = false
  #planned = false

  readonly #leavePage = () => void this.#room.disconnect()

  constructor(events: MediaEvents, devices: DeviceChoice) {
    this.#events = events
    setLogLevel(LogLevel.warn)
    this.#room = new Room(roomOptions(devices))
    this.#watchCaptures()
    this.#listen()
    addEventListener('pagehide', this.#leavePage)
  }

  async connect(url: string, token: string): Promise<void> {
    this.#events.phase('connecting')
    await this.#room.connect(new URL(url, location.href).href.replace(/^http/, 'ws'), token)
    this.#events.phase('connected')
    this.#changed()
  }

  async leave(): Promise<void> {
    this.#leaving = true
    removeEventListener('pagehide', this.#leavePage)
    for (const track of this.#captured) track.stop()
    await this.#room.disconnect()
    this.#room.removeAllListeners()
  }

  async setMicrophone(on: boolean): Promise<void> {
    await this.#room.localParticipant.setMicrophoneEnabled(on)
    this.#changed()
  }

  async setCamera(on: boolean): Promise<void> {
    await this.#room.localParticipant.setCameraEnabled(on)
    this.#changed()
  }

  async setShare(on: boolean): Promise<boolean> {
    const me = this.#room.localParticipant
    await me.setScreenShareEnabled(
      on,
      {
        audio: true,
        contentHint: 'detail',
        resolution: SHARE.resolution,
        surfaceSwitching: 'include',
        systemAudio: 'include',
        selfBrowserSurface: sharesOwnTab() ? 'include' : 'exclude',
        preferCurrentTab: sharesOwnTab(),
      },
      // What is shared may be music.
      { simulcast: false, audioPreset: AudioPresets.music },
    )
    this.#changed()
    return me.isScreenShareEnabled
  }

  async useDevice(kind: keyof DeviceChoice, id: string): Promise<void> {
    const before = this.#room.getActiveDevice(KINDS[kind])
    try {
      await this.#room.switchActiveDevice(KINDS[kind], id)
    } catch (error) {
      if (kind !== 'speaker') await this.#goBack(kind, before)
      throw error
    }
  }

  /** The library stops the old device before it asks for the new one. If that fails, a dead track would be shown as on. */
  async #goBack(kind: 'microphone' | 'camera', before: string | undefined): Promise<void> {
    try {
      if (before === undefined) throw new Error('no device was in use')
      await this.#room.switchActiveDevice(KINDS[kind], before)
    } catch {
      await (kind === 'microphone' ? this.setMicrophone(false) : this.setCamera(false))
    }
  }

  async allowPlayback(): Promise<void> {
    await this.#room.startAudio()
  }

  async stats(): Promise<LinkStats | null> {
    const reports: RTCStatsReport[] = []
    for (const person of [this.#room.localParticipant, ...this.#room.remoteParticipants.values()]) {
      for (const publication of person.trackPublications.values()) {
        const track = publication.track as LocalTrack | RemoteTrack | undefined
        const report = await track?.getRTCStatsReport().catch(() => undefined)
        if (report) reports.push(report)
      }
    }
    return readStats(reports, this.#memory)
  }

  /**
   * One may leave while the browser still asks for a microphone or a screen. The library would publish what is granted then to
   * a room that is gone, and capture on until that runs out of time: 15 s (livekit-client 2.23, `publishOrRepublishTrack`).
   */
  #watchCaptures(): void {
    const me = this.#room.localParticipant
    const watched =
      <Options>(capture: (options?: Options) => Promise<LocalTrack[]>) =>
      async (options?: Options) => {
        const tracks = await capture.call(me, options)
        for (const track of tracks) this.#captured.add(track)
        if (!this.#leaving) return tracks
        for (const track of tracks) track.stop()
        throw new Error('left while the browser asked')
      }
    me.createTracks = watched(me.createTracks)
    me.createScreenTracks = watched(me.createScreenTracks)
  }

  #listen(): void {
    const changed = () => this.#changed()
    const changes = [
      RoomEvent.ParticipantConnected,
      RoomEvent.ParticipantDisconnected,
      RoomEvent.ParticipantNameChanged,
      RoomEvent.TrackPublished,
      RoomEvent.TrackUnpublished,
      RoomEvent.TrackSubscribed,
      RoomEvent.TrackUnsubscribed,
      RoomEvent.TrackMuted,
      RoomEvent.TrackUnmuted,
      RoomEvent.LocalTrackPublished,
      RoomEvent.LocalTrackUnpublished,
      RoomEvent.ActiveSpeakersChanged,
      RoomEvent.ConnectionQualityChanged,
    ] as const
    for (const event of changes) this.#room.on(event, changed)
    this.#room
      .on(RoomEvent.SignalReconnecting, () => this.#events.phase('signal-lost'))
      .on(RoomEvent.Reconnecting, () => this.#events.phase('reconnecting'))
      .on(RoomEvent.Reconnected, () => {
        this.#events.phase('connected')
        this.#changed()
      })
      .on(RoomEvent.Disconnected, (reason) => {
        if (!this.#leaving) this.#events.phase('ended', endCause(reason))
      })
      .on(RoomEvent.TranscriptionReceived, (segments, participant, publication) => {
        for (const segment of segments) {
          this.#events.spoken({
            identity: participant?.identity ?? '',
            trackSid: publication?.trackSid ?? '',
            segmentId: segment.id,
            text: segment.text,
            final: segment.final,
            language: segment.language,
          })
        }
      })
      .on(RoomEvent.AudioPlaybackStatusChanged, () => this.#events.playbackBlocked(!this.#room.canPlaybackAudio))
      .on(RoomEvent.MediaDevicesError, (error, kind) =>
        this.#events.deviceFailed(kind === 'videoinput' ? 'camera' : 'microphone', error),
      )
      .on(RoomEvent.MediaDevicesChanged, () => this.#events.devicesChanged())
  }

  /** One read of everybody per task, however many events came in it. */
  #changed(): void {
    if (this.#planned) return
    this.#planned = true
    queueMicrotask(() => {
      this.#planned = false
      const room = this.#room
      this.#events.people([room.localParticipant, ...room.remoteParticipants.values()].filter((p) => p.identity).map(personOf))
    })
  }
}

function personOf(participant: Participant): MediaPerson {
  const tracks: MediaPerson['tracks'] = {}
  for (const [name, source] of Object.entries(SOURCES) as [Source, Track.Source][]) {
    const track = trackOf(participant.getTrackPublication(source))
    if (track) tracks[name] = track
  }
  return {
    identity: participant.identity,
    name: participant.name || participant.identity,
    local: participant.isLocal,
    speaking: participant.isSpeaking,
    quality: qualityOf(participant.connectionQuality),
    joinedAt: participant.joinedAt?.getTime() ?? 0,
    tracks,
  }
}

function trackOf(publication: TrackPublication | undefined): MediaTrack | undefined {
  const track = publication?.track
  if (!publication || !track) return undefined
  return {
    key: `${publication.trackSid}/${track.mediaStreamTrack.id}`,
    muted: publication.isMuted,
    ended: track.mediaStreamTrack.readyState === 'ended',
    attach(element) {
      track.attach(element)
      return () => void track.detach(element)
    },
  }
}

function qualityOf(quality: ConnectionQuality): Quality {
  switch (quality) {
    case ConnectionQuality.Excellent:
      return 'excellent'
    case ConnectionQuality.Good:
      return 'good'
    case ConnectionQuality.Poor:
      return 'poor'
    case ConnectionQuality.Lost:
      return 'lost'
    default:
      return ''
  }
}

function endCause(reason: DisconnectReason | undefined): EndCause {
  switch (reason) {
    case DisconnectReason.CLIENT_INITIATED:
      return 'left'
    case DisconnectReason.PARTICIPANT_REMOVED:
      return 'removed'
    case DisconnectReason.ROOM_DELETED:
    case DisconnectReason.ROOM_CLOSED:
      return 'call-ended'
    case DisconnectReason.DUPLICATE_IDENTITY:
      return 'elsewhere'
    default:
      return 'lost'
  }
}

export type { LinkStats }
