/**
 * What the call page needs from a media engine. One body talks to LiveKit (`livekit.ts`), one makes people up for
 * designing the page (`demo.ts`, development builds only). No engine type crosses this line.
 */
import type { Quality } from '../../api/types'
import type { LinkStats } from './quality'

export type Source = 'microphone' | 'camera' | 'screen' | 'screen_audio'

export interface MediaTrack {
  /** Changes whenever a view must attach again. */
  key: string
  muted: boolean
  /** Its source is gone: a device was unplugged, or its permission withdrawn. A camera that is off looks the same. */
  ended: boolean
  attach(element: HTMLMediaElement): () => void
}

export interface MediaPerson {
  identity: string
  name: string
  local: boolean
  speaking: boolean
  quality: Quality
  joinedAt: number
  tracks: Partial<Record<Source, MediaTrack>>
}

export type MediaPhase =
  | 'idle'
  | 'connecting'
  | 'connected'
  /** Signalling is away; sound and pictures go on. */
  | 'signal-lost'
  /** The media path is away as well. */
  | 'reconnecting'
  | 'ended'

export type EndCause = 'left' | 'removed' | 'call-ended' | 'elsewhere' | 'lost'

export interface SpokenLine {
  identity: string
  trackSid: string
  segmentId: string
  text: string
  final: boolean
  language: string
}

export interface MediaEvents {
  /** Anything about people or their tracks changed. */
  people(people: MediaPerson[]): void
  phase(phase: MediaPhase, cause?: EndCause): void
  spoken(line: SpokenLine): void
  /** The browser wants a click before it plays sound. */
  playbackBlocked(blocked: boolean): void
  deviceFailed(source: Source, error: unknown): void
  devicesChanged(): void
}

export interface DeviceChoice {
  microphone: string | null
  camera: string | null
  speaker: string | null
}

export interface Media {
  connect(url: string, token: string): Promise<void>
  /** Ends for good. */
  leave(): Promise<void>
  setMicrophone(on: boolean): Promise<void>
  setCamera(on: boolean): Promise<void>
  /** Answers whether the share really is as asked: the person may have closed the browser's dialog. */
  setShare(on: boolean): Promise<boolean>
  useDevice(kind: keyof DeviceChoice, id: string): Promise<void>
  allowPlayback(): Promise<void>
  stats(): Promise<LinkStats | null>
}
