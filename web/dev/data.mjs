// Believable data for designing pages. Times hang on one fixed moment so that screenshots are the same every day.

export const NOW = Date.parse('2026-11-21T09:41:00Z')
const MIN = 60_000

export const people = [
  ['u-maria', 'maria', 'Maria Keller', ['user', 'host', 'ops', 'officer', 'admin']],
  ['u-jonas', 'jonas', 'Jonas Brandt', ['user', 'host']],
  ['u-aylin', 'aylin', 'Aylin Demir', ['user']],
  ['u-samuel', 'samuel', 'Samuel Okafor', ['user', 'officer']],
  ['u-chiara', 'chiara', 'Chiara Rossi', ['user', 'ops']],
  ['u-piotr', 'piotr', 'Piotr Nowak', ['user']],
].map(([id, username, display_name, roles]) => ({ id, username, display_name, roles, disabled: id === 'u-piotr', created_at_ms: NOW - 40 * 24 * 60 * MIN }))

const person = (id) => {
  const one = people.find((p) => p.id === id)
  return { id, display_name: one?.display_name ?? id }
}

const participant = (id, i, more = {}) => ({
  identity: id,
  display_name: person(id).display_name,
  host: i < 2,
  hand_raised_at_ms: id === 'u-aylin' ? NOW - 30_000 : null,
  joined_at_ms: NOW - (24 - i) * MIN,
  consent: 'granted',
  quality: 'excellent',
  ...more,
})

export const call = {
  id: 'c-7f3a91d2',
  channel_id: 'ch-water',
  channel_name: 'Water supply north',
  title: 'Situation briefing',
  started_at_ms: NOW - 24 * MIN,
  ended_at_ms: null,
  participants: ['u-maria', 'u-jonas', 'u-aylin', 'u-samuel', 'u-chiara', 'u-piotr'].map((id, i) => participant(id, i)),
  recording: { state: 'recording', started_at_ms: NOW - 20 * MIN, started_by: 'u-maria', waiting_for: [] },
  captions: { enabled: true, language: 'en' },
}

export const channels = [
  { id: 'ch-water', name: 'Water supply north', topic: 'Operation, faults, repair crews', unread: 0, active_call: { id: call.id, started_at_ms: call.started_at_ms, participants: call.participants } },
  { id: 'ch-duty', name: 'Duty desk', topic: 'Hand-over at 06:00, 14:00 and 22:00', unread: 3, active_call: null },
  { id: 'ch-board', name: 'Crisis staff', topic: 'Situation, decisions, orders', unread: 0, active_call: null },
  { id: 'ch-health', name: 'Health office', topic: 'Coordination with hospitals', unread: 12, active_call: null },
  { id: 'ch-it', name: 'IT operations', topic: '', unread: 0, active_call: null },
]

let n = 0
const message = (who, minutesAgo, text, call_id = null) => ({ id: `m-${++n}`, author: person(who), text, at_ms: NOW - minutesAgo * MIN, call_id })
export const messages = {
  'ch-water': [
    message('u-jonas', 26 * 60, 'Pump 2 was serviced, the report is in the folder.'),
    message('u-aylin', 95, 'Good morning. The gauge at the north reservoir has been falling since five.'),
    message('u-aylin', 93, 'Now at 3.12 m, that is 18 cm below yesterday.'),
    message('u-maria', 90, 'Thanks. I will call the repair crews together. Briefing here at 9:15.'),
    message('u-samuel', 41, 'Two crews are on the way, the third waits for the excavator.'),
    message('u-chiara', 18, 'Map of the affected streets is shared on screen now.', call.id),
    message('u-jonas', 12, 'Valve 14 is closed.\nPressure is stable at 4.1 bar.', call.id),
    message('u-aylin', 3, 'Can we tell the hospital that they are not affected?', call.id),
  ],
  'ch-duty': [message('u-piotr', 200, 'Night was quiet. Keys are in the box.')],
}

const sentences = [
  ['u-maria', 'Good morning everyone, thank you for coming at such short notice.'],
  ['u-maria', 'Let us start with the situation at the north reservoir.'],
  ['u-aylin', 'The level has been falling since five this morning, about four centimetres an hour.'],
  ['u-aylin', 'We believe that the main between valve twelve and valve fourteen has a crack.'],
  ['u-jonas', 'The repair crew reached the pumping station at seven and closed valve fourteen.'],
  ['u-jonas', 'Since then the pressure is stable at four point one bar.'],
  ['u-samuel', 'Is the hospital affected in any way?'],
  ['u-aylin', 'No, the hospital is fed from the southern ring. We checked it twice.'],
  ['u-maria', 'Good. Then the restriction is only for the northern districts.'],
  ['u-jonas', 'The excavator arrives at eleven, the repair should take six hours.'],
  ['u-samuel', 'I will write the notice for the public and send it to you before ten.'],
  ['u-maria', 'Please mention that boiling water is not necessary.'],
  ['u-aylin', 'The laboratory confirms that, the samples from eight are clean.'],
  ['u-maria', 'Thank you. Next briefing at fourteen hundred.'],
]

let at = 4_000
const segments = sentences.map(([identity, text], i) => {
  const words = text.split(' ')
  const start = at
  const list = words.map((word, k) => {
    const from = at
    at += 190 + word.length * 42
    return { text: word, start_ms: from, end_ms: at - 30, confidence: (i * 7 + k * 13) % 23 === 0 ? 0.41 : 0.94 }
  })
  const end = at
  at += i === 6 ? 9_000 : 1_200
  return { id: `s-${i}`, identity, display_name: person(identity).display_name, start_ms: start, end_ms: end, text, confidence: 0.93, words: list }
})
export const DURATION = at + 6_000
const missing = [{ identity: 'u-samuel', display_name: person('u-samuel').display_name, from_ms: at - 2_000, reason: 'the sound of Samuel (track 3): segment 41 has been changed: its hash is not the one in the manifest' }]
export const transcript = { language: 'en', model: 'ggml-base.en', segments, missing }

const START = NOW - 3 * 24 * 60 * MIN
const who = ['u-maria', 'u-jonas', 'u-aylin', 'u-samuel'].map((id) => ({ identity: id, display_name: person(id).display_name }))

export function recordings(q) {
  const words = (q ?? '').toLowerCase().replaceAll('"', '').split(/\s+/).filter(Boolean)
  const hits = segments
    .filter((s) => words.length > 0 && words.every((w) => s.text.toLowerCase().includes(w)))
    .map((s) => ({
      speaker: s.display_name,
      start_ms: s.start_ms,
      text: s.text,
      match: words.map((w) => [s.text.toLowerCase().indexOf(w), s.text.toLowerCase().indexOf(w) + w.length]),
    }))
  const base = {
    call_id: 'c-1', title: '', ended_at_ms: START + DURATION, duration_ms: DURATION, state: 'sealed', participants: who, has_video: true,
    render: { state: 'done', progress: 1, mime: 'audio/wav' }, transcript: { state: 'done', progress: 1, language: 'en', words: 168 }, gaps: 0, hits: [],
  }
  const all = [
    { ...base, id: 'r-now', title: 'Situation briefing', channel_id: 'ch-water', channel_name: 'Water supply north', started_at_ms: NOW - 20 * MIN, ended_at_ms: null, duration_ms: 20 * MIN, state: 'capturing', transcript: { state: 'none', progress: 0, language: '', words: 0 }, render: { state: 'none', progress: 0, mime: '' } },
    { ...base, id: 'r-1', title: 'Situation briefing', channel_id: 'ch-water', channel_name: 'Water supply north', started_at_ms: START, gaps: 1, hits },
    { ...base, id: 'r-2', title: '', channel_id: 'ch-board', channel_name: 'Crisis staff', started_at_ms: START - 26 * 60 * MIN, duration_ms: 47 * MIN, has_video: false, transcript: { state: 'running', progress: 0.62, language: 'en', words: 0 }, participants: [...who, { identity: 'g-1', display_name: 'Dr. Weber (hospital)' }] },
    { ...base, id: 'r-3', title: 'Hand-over', channel_id: 'ch-duty', channel_name: 'Duty desk', started_at_ms: START - 50 * 60 * MIN, duration_ms: 9 * MIN, has_video: false, participants: who.slice(0, 2), render: { state: 'running', progress: 0.35, mime: '' } },
  ]
  return words.length > 0 ? all.filter((r) => r.hits.length > 0) : all
}

export function detail(id) {
  const one = recordings('').find((r) => r.id === id)
  if (!one) return null
  const d = one.duration_ms
  const track = (identity, kind, source, from, to, gaps = []) => ({
    track_sid: `TR_${identity}_${source}`, identity, display_name: person(identity).display_name, kind, source,
    mime: kind === 'audio' ? 'audio/opus' : 'video/VP8', start_ms: from, end_ms: to, segments: Math.ceil((to - from) / 2000), gaps,
  })
  return {
    ...one,
    tracks: [
      track('u-maria', 'audio', 'microphone', 0, d),
      track('u-jonas', 'audio', 'microphone', 900, d),
      track('u-aylin', 'audio', 'microphone', 1_700, d, [{ start_ms: 41_000, end_ms: 48_000, reason: 'worker restarted' }]),
      track('u-samuel', 'audio', 'microphone', 6_000, d),
      track('u-aylin', 'video', 'screen_share', 12_000, 52_000),
    ],
    consents: [
      ['u-maria', true], ['u-jonas', true], ['u-aylin', true], ['u-samuel', true], ['u-piotr', false],
    ].map(([identity, granted], i) => ({ identity, display_name: person(identity).display_name, granted, answered_at_ms: one.started_at_ms - 20_000 + i * 4_000, notice_version: '1' })),
    events: [
      { at_ms: one.started_at_ms, type: 'joined', identity: 'u-maria', display_name: 'Maria Keller' },
      { at_ms: one.started_at_ms, type: 'consent_granted', identity: 'u-maria', display_name: 'Maria Keller' },
      { at_ms: one.started_at_ms + 6_000, type: 'joined', identity: 'u-samuel', display_name: 'Samuel Okafor' },
      { at_ms: one.started_at_ms + 41_000, type: 'gap', text: 'worker restarted' },
    ],
    seal: one.state === 'sealed' ? { root: '9b1f6c0f6d2b4a7d0a1c5e1f0c7a4b8e3d2f1a6b5c4d3e2f1a0b9c8d7e6f5a4b', signed_at_ms: one.started_at_ms + d + 2_000, key_id: 'site-2026-1' } : null,
  }
}

export const accesses = [
  ['u-samuel', 'search', 'reservoir'], ['u-samuel', 'view', 'r-1'], ['u-samuel', 'play', '00:00–00:34'], ['u-maria', 'verify', 'ok'], ['u-maria', 'export', 'bundle'],
].map(([actor, action, detail], i) => ({ at_ms: NOW - (300 - i * 20) * MIN, actor, actor_name: person(actor).display_name, action, detail, recording_id: 'r-1' }))

export const nodes = [
  { node_id: 'media-1', version: '0.1.0', reachable: true, draining: false, shards: 8, calls: 3, participants: 14, uptime_s: 6 * 86_400 + 4 * 3_600, rss_bytes: 188_000_000, advertised: ['10.20.0.11:8443/udp', '10.20.0.11:8443/tcp'], warnings: ['Socket receive buffer is 212 KiB instead of 4 MiB: set net.core.rmem_max=4194304'], counters: { packets_in: 48_201_114, packets_out: 391_004_512, bad_tags: 0, unknown_addresses: 17 }, forwarding: { packets: 1_204_551, p50_us: 100, p99_us: 2000 } },
  { node_id: 'media-2', version: '0.1.0', reachable: true, draining: true, shards: 8, calls: 1, participants: 2, uptime_s: 86_400, rss_bytes: 92_000_000, advertised: ['10.20.0.12:8443/udp'], warnings: [], counters: {} },
]

const opsPerson = (id, step, more = {}) => ({
  identity: id, participant_sid: `PA_${id}`, display_name: person(id).display_name, joined_at_ms: NOW - 20 * MIN, step, step_detail: '', transport: 'udp', srtp_profile: 'AEAD_AES_128_GCM', dtls_version: '1.3', rtt_ms: 18,
  bitrate_in_bps: 742_000, bitrate_out_bps: 2_310_000, loss_in: 0.001, loss_out: 0.002, client: 'Chrome 156, Windows', remote_address: '10.4.12.7:51123',
  tracks: [{ track_sid: 'TR_a', kind: 'audio', source: 'microphone', mime: 'audio/opus', muted: false, packets: 48_211, lost: 31, layers: 1, subscribers: 4, key_frame_requests: 0 }], ...more,
})
const transport = (side, verdict, more = {}) => ({ side, verdict, candidates: 4, checks: 118, checks_refused: 0, dtls_records: 11, dtls_error: '', srtp_refused: 0, packets_in: 48_242, packets_out: 91_004, ...more })
const watched = (source, kind, verdict, more = {}) => ({ track_sid: `TR_${source}`, publisher_sid: 'PA_u-maria', kind, source, verdict, layer: 0, layer_wanted: 0, layers: 1, reason: 'only', first_packet_ms: NOW - 21 * MIN, key_frame_waits: 0, waiting_ms: 0, bitrate_bps: 32_000, ...more })
const diagnosis = (sends, receives, more = {}) => ({
  sends, receives, may_publish: true, may_subscribe: true, estimate_bps: 0,
  transports: [transport('publish', 'flows'), transport('subscribe', 'flows')],
  watched: [watched('microphone', 'audio', 'flows'), watched('camera', 'video', 'flows', { layer: 1, layer_wanted: 1, layers: 3, reason: 'wanted', key_frame_waits: 1, bitrate_bps: 480_000 })], ...more,
})
export const opsCalls = [
  { call_id: call.id, channel_name: call.channel_name, title: call.title, started_at_ms: call.started_at_ms, node_id: 'media-1', shard: 3, participants: [
    opsPerson('u-maria', 'rtp_out', { diagnosis: diagnosis('flows', 'flows') }),
    opsPerson('u-jonas', 'rtp_out', { diagnosis: diagnosis('flows', 'lower_layer', { estimate_bps: 640_000, watched: [watched('screen_share', 'video', 'lower_layer', { layer: 0, layer_wanted: 2, layers: 3, reason: 'bandwidth', bitrate_bps: 210_000 })] }), loss_in: 0.083, rtt_ms: 212, bitrate_in_bps: 88_000 }),
    opsPerson('u-aylin', 'rtp_in', { transport: 'tcp' }),
    opsPerson('u-piotr', 'negotiated', { diagnosis: diagnosis('nothing_published', 'no_checks', { watched: [], transports: [transport('subscribe', 'no_checks', { checks: 0, dtls_records: 0, packets_in: 0, packets_out: 0 })] }), step_detail: 'no check for 12 s', transport: '', srtp_profile: '', dtls_version: '', rtt_ms: 0, bitrate_in_bps: 0, bitrate_out_bps: 0, loss_in: 0, loss_out: 0, tracks: [] }),
  ] },
]

export const departed = [
  { call_id: call.id, channel_name: call.channel_name, title: call.title, left_at_ms: NOW - 9 * MIN, reason: 'media_lost', participant: opsPerson('u-aylin', 'lost', { remote_address: '', diagnosis: diagnosis('packets_refused', 'handshake_stalled') }) },
  { call_id: call.id, channel_name: call.channel_name, title: call.title, left_at_ms: NOW - 31 * MIN, reason: 'left', participant: opsPerson('u-maria', 'rtp_out', { remote_address: '', diagnosis: diagnosis('flows', 'flows') }) },
]

const job = (id, kind, state, more = {}) => ({ id, kind, state, call_id: call.id, recording_id: 'r-1', attempt: 1, fence: 3, lease_owner: 'worker-a1', lease_until_ms: NOW + 8_000, progress: 0, error: '', created_at_ms: NOW - 25 * MIN, updated_at_ms: NOW - 2 * MIN, ...more })
export const jobs = [
  job('j-41', 'record', 'running'),
  job('j-42', 'caption', 'running'),
  job('j-43', 'transcribe', 'running', { progress: 0.62, attempt: 2 }),
  job('j-40', 'render', 'queued', { lease_owner: '' }),
  job('j-39', 'render', 'failed', { attempt: 3, error: 'The disk is full: free space under /var/lib/conclave, then run the job again.' }),
  job('j-38', 'transcribe', 'done', { progress: 1 }),
]
export const captionDelay = { p50_ms: 940, p90_ms: 1_610, count: 412, by_call: [{ call_id: call.id, p50_ms: 940, p90_ms: 1_610, count: 412 }] }

/** A minute of soft tones, one pitch per speaker, as a WAV that a browser plays. */
export function wav() {
  const rate = 16_000
  const total = Math.floor((DURATION / 1000) * rate)
  const data = Buffer.alloc(44 + total * 2)
  data.write('RIFF', 0)
  data.writeUInt32LE(36 + total * 2, 4)
  data.write('WAVEfmt ', 8)
  data.writeUInt32LE(16, 16)
  data.writeUInt16LE(1, 20)
  data.writeUInt16LE(1, 22)
  data.writeUInt32LE(rate, 24)
  data.writeUInt32LE(rate * 2, 28)
  data.writeUInt16LE(2, 32)
  data.writeUInt16LE(16, 34)
  data.write('data', 36)
  data.writeUInt32LE(total * 2, 40)
  for (const s of segments) {
    const pitch = 140 + people.findIndex((p) => p.id === s.identity) * 45
    for (const w of s.words) {
      for (let i = Math.floor((w.start_ms / 1000) * rate); i < (w.end_ms / 1000) * rate && i < total; i++) {
        data.writeInt16LE(Math.round(5_000 * Math.sin((2 * Math.PI * pitch * i) / rate)), 44 + i * 2)
      }
    }
  }
  return data
}
