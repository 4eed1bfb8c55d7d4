/**
 * The message server's REST and event shapes. Times are Unix milliseconds unless a name says otherwise.
 * They mirror the committed OpenAPI document; nothing here has behaviour.
 */

export type Role = 'user' | 'host' | 'ops' | 'officer' | 'admin'
export const ROLES: readonly Role[] = ['user', 'host', 'ops', 'officer', 'admin']

export interface User {
  id: string
  username: string
  display_name: string
  roles: Role[]
  guest_call_id: string | null
}

export interface Features {
  recording: boolean
  transcription: boolean
  captions: boolean
}

export interface Notice {
  version: string
  text: string
}

export interface SessionInfo {
  user: User
  features: Features
  notice: Notice
}

export interface ManagedUser {
  id: string
  username: string
  display_name: string
  roles: Role[]
  disabled: boolean
  created_at_ms?: number
}

export interface Person {
  id: string
  display_name: string
}

export interface ActiveCall {
  id: string
  started_at_ms: number
  participants: { identity: string; display_name: string }[]
}

export interface Channel {
  id: string
  name: string
  topic: string
  unread: number
  active_call: ActiveCall | null
}

export interface Message {
  id: string
  author: Person
  text: string
  at_ms: number
  call_id: string | null
}

export type Consent = 'none' | 'granted' | 'declined'
export type Quality = 'excellent' | 'good' | 'poor' | 'lost' | ''

export interface CallParticipant {
  identity: string
  display_name: string
  host: boolean
  hand_raised_at_ms: number | null
  joined_at_ms: number
  consent: Consent
  quality: Quality
}

export interface RecordingStatus {
  state: 'off' | 'asking' | 'recording' | 'stopping'
  started_at_ms: number | null
  started_by: string | null
  waiting_for: string[]
  /** Why it does not go on, with what to do; empty: all is well. */
  problem?: string
}

export interface Call {
  id: string
  channel_id: string
  channel_name: string
  title: string
  started_at_ms: number
  ended_at_ms: number | null
  participants: CallParticipant[]
  recording: RecordingStatus
  captions: { enabled: boolean; language: string; problem?: string }
  you?: { identity: string; host: boolean }
}

export interface JoinResult {
  url: string
  token: string
  call: Call
}

export interface Attendance {
  identity: string
  display_name: string
  joined_at_ms: number
  left_at_ms: number | null
}

export interface Caption {
  call_id: string
  identity: string
  display_name: string
  track_sid: string
  segment_id: string
  committed: string
  pending: string
  final: boolean
  language: string
  start_ms: number
  end_ms: number
  delay_ms: number
}

export type HostAction = 'mute' | 'remove' | 'stop-share'

export type ServerEvent =
  | { type: 'hello'; at_ms: number; user: User }
  | { type: 'ring'; at_ms: number; call: Call; from: Person }
  | { type: 'call'; at_ms: number; call: Call }
  | { type: 'call_ended'; at_ms: number; call_id: string; attendance: Attendance[] }
  | { type: 'message'; at_ms: number; channel_id: string; message: Message }
  | { type: 'reaction'; at_ms: number; call_id: string; identity: string; emoji: string }
  | ({ type: 'caption'; at_ms: number } & Caption)
  | { type: 'job'; at_ms: number; job: Job }
  | { type: 'pong'; at_ms: number }

export type JobKind = 'record' | 'caption' | 'render' | 'transcribe'
export type JobState = 'queued' | 'running' | 'stopping' | 'done' | 'failed'

export interface Job {
  id: string
  kind: JobKind
  state: JobState
  call_id: string
  recording_id: string
  attempt: number
  fence: number
  lease_owner: string
  lease_until_ms: number
  progress: number
  error: string
  created_at_ms: number
  updated_at_ms: number
}

// ---- officer ----

export interface Hit {
  speaker: string
  start_ms: number
  text: string
  /** Offsets of the match in `text`, or the matched words themselves. */
  match: [number, number][] | string | string[]
}

export interface RecordingSummary {
  id: string
  call_id: string
  title: string
  channel_id: string
  channel_name: string
  started_at_ms: number
  ended_at_ms: number | null
  duration_ms: number
  state: 'capturing' | 'sealed' | 'failed'
  participants: { identity: string; display_name: string }[]
  has_video: boolean
  error?: string
  render: { state: string; progress: number; mime: string; error?: string }
  transcript: { state: string; progress: number; language: string; words: number; error?: string }
  gaps: number
  hits: Hit[]
}

export interface Gap {
  start_ms: number
  end_ms: number
  reason: string
}

export interface RecordedTrack {
  track_sid: string
  identity: string
  display_name: string
  kind: string
  source: string
  mime: string
  start_ms: number
  end_ms: number
  segments: number
  gaps: Gap[]
}

export interface ConsentEntry {
  identity: string
  display_name: string
  granted: boolean
  answered_at_ms: number
  notice_version: string
}

export interface RecordedEvent {
  at_ms: number
  type: string
  identity?: string
  display_name?: string
  text?: string
}

export interface RecordingDetail extends Omit<RecordingSummary, 'gaps'> {
  gaps: number
  tracks: RecordedTrack[]
  consents: ConsentEntry[]
  events: RecordedEvent[]
  seal: { root: string; signed_at_ms: number; key_id: string } | null
}

export interface Word {
  text: string
  start_ms: number
  end_ms: number
  confidence: number
}

export interface TranscriptSegment {
  id: string
  identity: string
  display_name: string
  start_ms: number
  end_ms: number
  text: string
  confidence: number
  words: Word[]
}

/** Somebody whose words are not in the transcript, or not all of them. */
export interface MissingWords {
  identity: string
  display_name: string
  from_ms: number
  reason: string
}

export interface Transcript {
  language: string
  model: string
  segments: TranscriptSegment[]
  /** Not there where nothing is missing. */
  missing?: MissingWords[]
}

export interface VerifyResult {
  ok: boolean
  checked_segments: number
  checked_bytes: number
  first_bad: { segment: string | number; reason: string } | null
  root: string
  signature_ok: boolean
  at_ms: number
}

export interface Access {
  at_ms: number
  actor: string
  actor_name: string
  action: string
  detail: string
  recording_id?: string
}

// ---- operations ----

export interface NodeStatus {
  node_id: string
  version: string
  reachable?: boolean
  draining: boolean
  shards: number
  calls: number
  participants: number
  uptime_s: number
  rss_bytes: number
  advertised: string[]
  warnings: string[]
  counters: Record<string, number>
  forwarding?: { packets: number; p50_us: number; p99_us: number }
}

export type MediaStep = 'joined' | 'negotiated' | 'ice_checked' | 'dtls_done' | 'rtp_in' | 'rtp_out' | 'lost'

export interface OpsTrack {
  track_sid: string
  kind: string
  source: string
  mime: string
  muted: boolean
  packets: number
  lost: number
  layers: number
  subscribers: number
  key_frame_requests: number
  verdict: string
  first_packet_ms: number
  key_frame_awaited: boolean
}

export interface OpsTransport {
  side: string
  verdict: string
  candidates: number
  checks: number
  checks_refused: number
  dtls_records: number
  dtls_error: string
  srtp_refused: number
  packets_in: number
  packets_out: number
}

export interface OpsWatched {
  track_sid: string
  publisher_sid: string
  kind: string
  source: string
  verdict: string
  layer: number
  layer_wanted: number
  layers: number
  reason: string
  first_packet_ms: number
  key_frame_waits: number
  waiting_ms: number
  bitrate_bps: number
}

export interface OpsDiagnosis {
  sends: string
  receives: string
  may_publish: boolean
  may_subscribe: boolean
  estimate_bps: number
  transports: OpsTransport[]
  watched: OpsWatched[]
}

export interface OpsDeparture {
  call_id: string
  channel_name: string
  title: string
  left_at_ms: number
  reason: string
  participant: OpsParticipant
}

export interface OpsParticipant {
  identity: string
  participant_sid: string
  display_name: string
  joined_at_ms: number
  step: string
  step_detail: string
  transport: string
  srtp_profile: string
  dtls_version: string
  rtt_ms: number
  bitrate_in_bps: number
  bitrate_out_bps: number
  loss_in: number
  loss_out: number
  client: string
  remote_address: string
  tracks: OpsTrack[]
  diagnosis: OpsDiagnosis | null
}

export interface OpsCall {
  call_id: string
  channel_name?: string
  title?: string
  started_at_ms: number
  node_id?: string
  shards: number[]
  participants: OpsParticipant[]
}

export interface CaptionDelay {
  p50_ms: number
  p90_ms: number
  count: number
  by_call: { call_id: string; p50_ms: number; p90_ms: number; count: number }[]
}
