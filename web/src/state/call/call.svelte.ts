/**
 * The call as one person sees it: told by the server's events and by the media engine, asked by the views.
 * It owns no sockets and no elements; what it needs from outside comes in through `CallPorts`.
 */
import { ApiError } from '../../api/http'
import type { Attendance, Call, Caption, HostAction, JoinResult, Message, Notice, ServerEvent } from '../../api/types'
import { Captions } from './captions.svelte'
import { problemOf, type DeviceProblem } from './devices.svelte'
import type { DeviceChoice, EndCause, Media, MediaEvents, MediaPerson, MediaPhase, MediaTrack, Source } from './media'
import { advise, SteadyAdvice, type Advice, type LinkStats } from './quality'
import { load, save } from '../storage'
import { stageOf, type Layout } from './tiles'

export interface CallApi {
  one(id: string): Promise<Call>
  join(id: string): Promise<JoinResult>
  leave(id: string): Promise<void>
  end(id: string): Promise<void>
  raiseHand(id: string, raised: boolean): Promise<void>
  react(id: string, emoji: string): Promise<void>
  hostAction(id: string, identity: string, action: HostAction): Promise<void>
  recording(id: string, action: 'start' | 'stop'): Promise<void>
  consent(id: string, granted: boolean, noticeVersion: string): Promise<void>
  captions(id: string, enabled: boolean, language: string): Promise<void>
  captionLines(id: string): Promise<Caption[]>
  guestLink(id: string): Promise<{ url: string; expires_at_ms: number }>
  messages(channel: string, callId: string, beforeMs?: number): Promise<Message[]>
  send(channel: string, text: string, callId: string): Promise<Message>
}

/** Things a person should be told; the views choose words and place. */
export type CallNews =
  | { kind: 'joined' | 'left' | 'hand'; name: string }
  | { kind: 'muted-by-host' | 'recording-started' | 'recording-stopped' | 'share-lost' | 'captions-on' | 'captions-need-host' }
  | { kind: 'device'; source: Source; problem: DeviceProblem }
  | { kind: 'failed'; error: unknown }

export interface CallPorts {
  api: CallApi
  listen(listener: (event: ServerEvent) => void): () => void
  /** Whether the event stream is up; captions take the media path while it is not. */
  streamOpen(): boolean
  /** The way to the server broke for media: the event stream may be dead without knowing it. */
  checkStream(): void
  makeMedia(events: MediaEvents, devices: DeviceChoice): Media | Promise<Media>
  news(news: CallNews): void
  now(): number
}

export type CallPhase = 'loading' | 'prejoin' | 'joining' | 'in' | 'rejoining' | 'ended' | 'missing'
export type Panel = 'chat' | 'people' | 'captions' | null

export interface Reaction {
  id: number
  identity: string
  emoji: string
}

/** What can change about a source: whether it is on, and which device it uses. */
type Change = 'on' | keyof DeviceChoice
type Changes = Map<Change, () => Promise<unknown> | undefined>

const REJOIN_FIRST_MS = 1_000
const REJOIN_MAX_MS = 10_000
/** A node that restarts is back in seconds; after five minutes a person should decide, not a loop. */
const REJOIN_GIVE_UP_MS = 5 * 60_000
const STATS_EVERY_MS = 3_000
const REACTION_SHOWN_MS = 4_000
const CHAT_MAX = 500
const SOURCES: readonly Source[] = ['microphone', 'camera', 'screen', 'screen_audio']

export class CallModel {
  phase: CallPhase = $state('loading')
  call: Call | null = $state.raw(null)
  loadError: unknown = $state.raw(null)
  joinError: unknown = $state.raw(null)
  endCause: EndCause | null = $state(null)
  attendance: Attendance[] = $state.raw([])

  mediaPhase: MediaPhase = $state('idle')
  people: MediaPerson[] = $state.raw([])
  recentSpeakers: string[] = $state.raw([])
  playbackBlocked = $state(false)
  stats: LinkStats | null = $state.raw(null)
  measured: Advice = $state('fine')
  deviceProblems: Partial<Record<Source, DeviceProblem>> = $state({})
  changing: Partial<Record<Source | 'hand' | 'record' | 'captions' | 'consent', boolean>> = $state({})

  layout: Layout = $state('auto')
  pinned: string | null = $state(null)
  panel: Panel = $state(null)
  /** A person's own choice: captions run for the call, but nobody has to look at them. */
  captionsShown = $state(load('captions') === 'on')
  /** Language for the next start; empty: recognised. It cannot be changed while captions run. */
  captionsLanguage = $state(load('captions-language') ?? '')
  consentReopened = $state(false)
  readonly captions = new Captions()
  chat: Message[] = $state.raw([])
  unread = $state(0)
  reactions: Reaction[] = $state.raw([])

  readonly id: string
  readonly myIdentity: string
  readonly #ports: CallPorts
  readonly #notice: Notice
  #media: Media | null = null
  #wanted = { microphone: false, camera: false }
  /** What is still to be changed on each source of the present engine, the newest wish of each kind. */
  #asked: Partial<Record<Source, Changes>> = {}
  #devices: DeviceChoice = { microphone: null, camera: null, speaker: null }
  #stopListening: () => void
  #statsTimer: ReturnType<typeof setInterval> | undefined
  #rejoinTimer: ReturnType<typeof setTimeout> | undefined
  #nextReaction = 1
  /** Numbers what tells about the call in the order it was asked for or came, and the newest of it that was taken. */
  #callNumber = 0
  #callTaken = 0
  #chatRead = false
  readonly #steady = new SteadyAdvice()
  /** Raised whenever an attempt to load, join or come back begins or is given up: what an older one still brings is nobody's. */
  #attempt = 0

  constructor(id: string, myIdentity: string, notice: Notice, ports: CallPorts) {
    this.id = id
    this.myIdentity = myIdentity
    this.#notice = notice
    this.#ports = ports
    this.#stopListening = ports.listen((event) => this.#handleEvent(event))
  }

  // ---- asked by the views ----

  me = $derived(this.people.find((person) => person.local) ?? null)
  isHost = $derived.by(() => {
    const mine = this.call?.participants.find((p) => p.identity === this.identity)
    return mine?.host ?? this.call?.you?.host ?? false
  })
  micOn = $derived(this.me?.tracks.microphone !== undefined && !this.me.tracks.microphone.muted)
  cameraOn = $derived(this.me?.tracks.camera !== undefined && !this.me.tracks.camera.muted)
  sharing = $derived(this.me?.tracks.screen !== undefined)
  stage = $derived(
    stageOf({ people: this.people, layout: this.layout, pinned: this.pinned, recentSpeakers: this.recentSpeakers }),
  )
  advice: Advice = $derived(this.me?.quality === 'lost' ? 'lost' : this.measured)
  hands = $derived(
    (this.call?.participants ?? [])
      .filter((p) => p.hand_raised_at_ms !== null)
      .sort((a, b) => (a.hand_raised_at_ms ?? 0) - (b.hand_raised_at_ms ?? 0)),
  )
  handRaised = $derived(this.hands.some((p) => p.identity === this.identity))
  myConsent = $derived(this.call?.participants.find((p) => p.identity === this.identity)?.consent ?? 'none')
  consentAsked = $derived.by(() => {
    const state = this.call?.recording.state
    if (this.phase !== 'in' || (state !== 'asking' && state !== 'recording')) return false
    return this.myConsent === 'none' || this.consentReopened
  })

  get identity(): string {
    return this.call?.you?.identity ?? this.myIdentity
  }

  nameOf(identity: string): string {
    return (
      this.people.find((p) => p.identity === identity)?.name ??
      this.call?.participants.find((p) => p.identity === identity)?.display_name ??
      identity
    )
  }

  // ---- told by the views ----

  async load(): Promise<void> {
    const attempt = ++this.#attempt
    const number = ++this.#callNumber
    this.phase = 'loading'
    this.loadError = null
    try {
      const call = await this.#ports.api.one(this.id)
      if (this.#isOver(attempt)) return
      this.#takeCall(call, number)
      this.phase = call.ended_at_ms === null ? 'prejoin' : 'ended'
      if (this.phase === 'ended') this.endCause = 'call-ended'
    } catch (error) {
      if (this.#isOver(attempt)) return
      if (error instanceof ApiError && error.status === 404) this.phase = 'missing'
      this.loadError = error
    }
  }

  async join(want: { microphone: boolean; camera: boolean }, devices: DeviceChoice): Promise<void> {
    const attempt = ++this.#attempt
    this.phase = 'joining'
    this.joinError = null
    this.#wanted = { ...want }
    this.#devices = { ...devices }
    try {
      await this.#enter(attempt)
      if (!this.#isOver(attempt)) this.#arrive()
    } catch (error) {
      if (this.#isOver(attempt)) return
      await this.#dropMedia()
      if (this.#isOver(attempt)) return
      this.#attempt += 1
      this.joinError = error
      this.phase = 'prejoin'
    }
  }

  async leave(): Promise<void> {
    this.#finish('left')
    await this.#ports.api.leave(this.id).catch(() => undefined)
  }

  async end(): Promise<void> {
    await this.#try(async () => {
      await this.#ports.api.end(this.id)
      this.#finish('call-ended')
    })
  }

  async setMicrophone(on: boolean): Promise<void> {
    this.#wanted.microphone = on
    await this.#switch('microphone', 'on', () => this.#media?.setMicrophone(on))
  }

  async setCamera(on: boolean): Promise<void> {
    this.#wanted.camera = on
    await this.#switch('camera', 'on', () => this.#media?.setCamera(on))
  }

  /** A press on the button. While a change runs the wish is turned round: what is shown is about to be past. */
  async toggle(source: 'microphone' | 'camera'): Promise<void> {
    const on = !(this.changing[source] ? this.#wanted[source] : this.#isOn(source))
    await (source === 'microphone' ? this.setMicrophone(on) : this.setCamera(on))
  }

  #isOn(source: 'microphone' | 'camera'): boolean {
    return source === 'microphone' ? this.micOn : this.cameraOn
  }

  async setShare(on: boolean): Promise<void> {
    // The browser is asking already; it should not ask again when it was told no.
    if (on && this.changing.screen) return
    await this.#switch('screen', 'on', () => this.#media?.setShare(on))
  }

  async useDevice(kind: keyof DeviceChoice, id: string): Promise<void> {
    this.#devices[kind] = id
    const source: Source = kind === 'camera' ? 'camera' : 'microphone'
    await this.#switch(source, kind, () => this.#media?.useDevice(kind, id))
  }

  async allowPlayback(): Promise<void> {
    await this.#media?.allowPlayback()
  }

  async toggleHand(): Promise<void> {
    const raised = !this.handRaised
    await this.#once('hand', () => this.#ports.api.raiseHand(this.id, raised))
  }

  async react(emoji: string): Promise<void> {
    await this.#try(() => this.#ports.api.react(this.id, emoji))
  }

  async act(identity: string, action: HostAction): Promise<void> {
    await this.#try(() => this.#ports.api.hostAction(this.id, identity, action))
  }

  async record(action: 'start' | 'stop'): Promise<void> {
    await this.#once('record', () => this.#ports.api.recording(this.id, action))
  }

  async answerConsent(granted: boolean): Promise<void> {
    await this.#once('consent', async () => {
      await this.#ports.api.consent(this.id, granted, this.#notice.version)
      // The server's event says the same a moment later; the question should not stay until then.
      this.#patchMe({ consent: granted ? 'granted' : 'declined' })
      this.consentReopened = false
    })
  }

  /** Shows captions, and starts them for the call if they are off; or hides them here. */
  async toggleCaptions(): Promise<void> {
    const enabled = this.call?.captions.enabled ?? false
    const show = !(enabled && this.captionsShown)
    this.captionsShown = show
    save('captions', show ? 'on' : null)
    if (!show || enabled) return
    if (this.isHost) await this.setCaptions(true)
    else this.#ports.news({ kind: 'captions-need-host' })
  }

  chooseCaptionsLanguage(language: string): void {
    this.captionsLanguage = language
    save('captions-language', language || null)
  }

  async setCaptions(enabled: boolean): Promise<void> {
    await this.#once('captions', () => this.#ports.api.captions(this.id, enabled, this.captionsLanguage))
  }

  guestLink(): Promise<{ url: string; expires_at_ms: number }> {
    return this.#ports.api.guestLink(this.id)
  }

  async say(text: string): Promise<boolean> {
    const channel = this.call?.channel_id
    if (!channel) return false
    return this.#try(async () => this.#addMessage(await this.#ports.api.send(channel, text, this.id)))
  }

  show(panel: Panel): void {
    this.panel = this.panel === panel ? null : panel
    if (this.panel === 'chat') this.unread = 0
  }

  pin(id: string): void {
    this.pinned = this.pinned === id ? null : id
  }

  /** The page goes away. The media engine says goodbye by itself. */
  dispose(): void {
    this.#attempt += 1
    this.#stopListening()
    this.#stopTimers()
    void this.#dropMedia()
  }

  // ---- entering and coming back ----

  #isOver(attempt: number): boolean {
    return attempt !== this.#attempt
  }

  /** Connects a new media engine. One may leave at any of its waits: from then on nothing is connected or switched on. */
  async #enter(attempt: number): Promise<void> {
    const number = ++this.#callNumber
    const { url, token, call } = await this.#ports.api.join(this.id)
    if (this.#isOver(attempt)) return
    this.#takeCall(call, number)
    const media = await this.#ports.makeMedia(this.#mediaEvents(attempt), this.#devices)
    try {
      if (this.#isOver(attempt)) return
      this.#media = media
      await media.connect(url, token)
      // A microphone that fails must not keep anybody out: one can still listen, read and write.
      if (this.#wanted.microphone && !this.#isOver(attempt)) await this.#switch('microphone', 'on', () => media.setMicrophone(true))
      if (this.#wanted.camera && !this.#isOver(attempt)) await this.#switch('camera', 'on', () => media.setCamera(true))
    } finally {
      // Whoever ended the attempt may not have known of this engine yet.
      if (this.#isOver(attempt)) await media.leave().catch(() => undefined)
    }
  }

  #arrive(): void {
    this.phase = 'in'
    this.#startStats()
    void this.#loadChat()
    void this.#loadCaptions()
  }

  #mediaEvents(attempt: number): MediaEvents {
    // An engine that was given up may still have something on its tongue.
    const current = () => !this.#isOver(attempt)
    return {
      people: (people) => current() && this.#handlePeople(people),
      phase: (phase, cause) => current() && this.#handlePhase(phase, cause),
      spoken: (line) => {
        if (current() && !this.#ports.streamOpen()) this.captions.handleSpoken(line, this.nameOf(line.identity), this.#ports.now())
      },
      playbackBlocked: (blocked) => current() && (this.playbackBlocked = blocked),
      deviceFailed: (source, error) => current() && this.#handleDeviceError(source, error),
      devicesChanged: () => undefined,
    }
  }

  #handlePhase(phase: MediaPhase, cause: EndCause = 'lost'): void {
    const before = this.mediaPhase
    this.mediaPhase = phase
    if (phase === 'connected' && (before === 'signal-lost' || before === 'reconnecting')) this.#ports.checkStream()
    // What fails before it was connected is told by `connect` itself.
    if (phase !== 'ended' || before === 'connecting') return
    if (cause !== 'lost') return this.#finish(cause)
    if (this.sharing) this.#ports.news({ kind: 'share-lost' })
    // While a microphone is still being started: that attempt would arrive with a dead engine.
    if (this.phase !== 'in') this.#attempt += 1
    this.phase = 'rejoining'
    this.#planRejoin(REJOIN_FIRST_MS, this.#ports.now() + REJOIN_GIVE_UP_MS)
  }

  #planRejoin(waitMs: number, until: number): void {
    clearTimeout(this.#rejoinTimer)
    this.#rejoinTimer = setTimeout(() => void this.#rejoin(waitMs, until), waitMs)
  }

  async #rejoin(waitMs: number, until: number): Promise<void> {
    if (this.phase !== 'rejoining') return
    const attempt = ++this.#attempt
    await this.#dropMedia()
    if (this.#isOver(attempt)) return
    try {
      await this.#enter(attempt)
      if (!this.#isOver(attempt)) this.#arrive()
    } catch (error) {
      if (this.#isOver(attempt)) return
      if (error instanceof ApiError && (error.status === 404 || error.status === 410)) return this.#finish('call-ended')
      if (error instanceof ApiError && (error.status === 401 || error.status === 403)) return this.#finish('removed')
      if (this.#ports.now() > until) return this.#finish('lost')
      this.#planRejoin(Math.min(REJOIN_MAX_MS, waitMs * 2), until)
    }
  }

  async #dropMedia(): Promise<void> {
    const media = this.#media
    this.#media = null
    // Changes that still run are the old engine's: nothing waits for them any more.
    this.#asked = {}
    for (const source of SOURCES) this.changing[source] = false
    await media?.leave().catch(() => undefined)
  }

  #finish(cause: EndCause): void {
    if (this.phase === 'ended') return
    this.#attempt += 1
    this.endCause = cause
    this.phase = 'ended'
    this.#stopTimers()
    void this.#dropMedia()
    this.people = []
  }

  #stopTimers(): void {
    clearInterval(this.#statsTimer)
    clearTimeout(this.#rejoinTimer)
  }

  #handleStats(stats: LinkStats | null): void {
    this.stats = stats
    this.measured = this.#steady.handle(advise(stats))
  }

  #startStats(): void {
    clearInterval(this.#statsTimer)
    this.#statsTimer = setInterval(() => {
      void this.#media?.stats().then((stats) => this.#handleStats(stats), () => undefined)
    }, STATS_EVERY_MS)
  }

  // ---- told by the media engine ----

  #handlePeople(people: MediaPerson[]): void {
    const speaking = people.filter((p) => p.speaking).map((p) => p.identity)
    if (speaking.some((identity, i) => this.recentSpeakers[i] !== identity))
      this.recentSpeakers = [...speaking, ...this.recentSpeakers.filter((id) => !speaking.includes(id))].slice(0, 32)
    const mine = people.find((p) => p.local)
    if (this.micOn) this.#handleMuted('microphone', mine?.tracks.microphone)
    if (this.cameraOn) this.#handleMuted('camera', mine?.tracks.camera)
    this.people = people
    if (this.pinned && !people.some((p) => this.pinned === p.identity || (this.pinned === `${p.identity}/screen` && p.tracks.screen)))
      this.pinned = null
  }

  /** Not our doing, if we still want it on and are not in the middle of switching. */
  #handleMuted(source: 'microphone' | 'camera', track: MediaTrack | undefined): void {
    if (!track?.muted || !this.#wanted[source] || this.changing[source]) return
    // The engine mutes what lost its device and found no other. Hosts mute microphones only, which leaves these running.
    if (!track.ended && source === 'camera') return
    this.#wanted[source] = false
    if (track.ended) this.#handleDeviceProblem(source, 'gone')
    else this.#ports.news({ kind: 'muted-by-host' })
  }

  #handleDeviceError(source: Source, error: unknown): void {
    this.#handleDeviceProblem(source, problemOf(error))
  }

  #handleDeviceProblem(source: Source, problem: DeviceProblem): void {
    this.deviceProblems[source] = problem
    this.#ports.news({ kind: 'device', source, problem })
  }

  // ---- told by the server ----

  #handleEvent(event: ServerEvent): void {
    switch (event.type) {
      case 'call':
        if (event.call.id === this.id) this.#takeCall(event.call, ++this.#callNumber)
        break
      case 'call_ended':
        if (event.call_id === this.id) {
          this.attendance = event.attendance ?? []
          this.#finish('call-ended')
        }
        break
      case 'caption':
        if (event.call_id === this.id) this.captions.handleCaption(event, this.#ports.now())
        break
      case 'reaction':
        if (event.call_id === this.id) this.#showReaction(event.identity, event.emoji)
        break
      case 'message':
        if (event.message.call_id === this.id) this.#addMessage(event.message)
        break
      case 'hello':
        // The stream was away and may have missed things. While joining, the answer says how things stand.
        if (this.phase === 'in') void this.#catchUp()
        else if (this.phase === 'prejoin') void this.#readCall()
        break
      case 'ring':
      case 'job':
      case 'pong':
        break
    }
  }

  async #catchUp(): Promise<void> {
    void this.#loadChat()
    await this.#readCall()
    await this.#loadCaptions()
  }

  async #readCall(): Promise<void> {
    const attempt = this.#attempt
    const number = ++this.#callNumber
    const call = await this.#ports.api.one(this.id).catch(() => null)
    if (!call || this.#isOver(attempt)) return
    this.#takeCall(call, number)
    if (call.ended_at_ms !== null) this.#finish('call-ended')
  }

  /** Takes what was told under this number, except what something newer has overtaken. */
  #takeCall(call: Call, number: number): void {
    const before = this.call
    if (before && number < this.#callTaken) {
      // Only answers know who asked.
      this.call = { ...before, you: call.you ?? before.you }
      return
    }
    this.#callTaken = number
    // Events are the same for everybody and may leave out who is asking.
    this.call = { ...call, you: call.you ?? before?.you }
    if (call.recording.state === 'off') this.consentReopened = false
    if (!before || this.phase !== 'in') return
    this.#tellChanges(before, call)
  }

  #tellChanges(before: Call, now: Call): void {
    const known = new Map(before.participants.map((p) => [p.identity, p]))
    const still = new Set(now.participants.map((p) => p.identity))
    for (const p of now.participants) {
      if (p.identity === this.identity) continue
      const old = known.get(p.identity)
      if (!old) this.#ports.news({ kind: 'joined', name: p.display_name })
      else if (old.hand_raised_at_ms === null && p.hand_raised_at_ms !== null)
        this.#ports.news({ kind: 'hand', name: p.display_name })
    }
    for (const p of before.participants) {
      if (!still.has(p.identity) && p.identity !== this.identity) this.#ports.news({ kind: 'left', name: p.display_name })
    }
    if (now.captions.enabled && !before.captions.enabled && !this.captionsShown) this.#ports.news({ kind: 'captions-on' })
    const was = before.recording.state === 'recording'
    const is = now.recording.state === 'recording'
    if (is && !was) this.#ports.news({ kind: 'recording-started' })
    if (was && now.recording.state === 'off') this.#ports.news({ kind: 'recording-stopped' })
  }

  #showReaction(identity: string, emoji: string): void {
    const reaction = { id: this.#nextReaction++, identity, emoji }
    this.reactions = [...this.reactions, reaction].slice(-24)
    setTimeout(() => (this.reactions = this.reactions.filter((other) => other.id !== reaction.id)), REACTION_SHOWN_MS)
  }

  async #loadCaptions(): Promise<void> {
    // Somebody may have stopped them during a break: what was said before belongs here all the same.
    if (!this.call?.captions.enabled && this.captions.lines.length === 0) return
    const lines = await this.#ports.api.captionLines(this.id).catch(() => [])
    for (const line of lines) this.captions.handleEarlier(line)
  }

  async #loadChat(): Promise<void> {
    const channel = this.call?.channel_id
    if (!channel) return
    const messages = await this.#newMessages(channel).catch(() => null)
    if (!messages) return
    const known = new Set(this.chat.map((message) => message.id))
    const found = messages.filter((message) => !known.has(message.id))
    this.chat = [...found, ...this.chat].sort((a, b) => a.at_ms - b.at_ms).slice(-CHAT_MAX)
    // What was written before one came is there to read up; what a break kept away is news.
    if (this.#chatRead && this.panel !== 'chat') this.unread += found.filter((message) => message.author.id !== this.identity).length
    this.#chatRead = true
  }

  /** The newest page; after a break as many more as it takes to come to a message that is known. */
  async #newMessages(channel: string): Promise<Message[]> {
    // Not what comes live meanwhile: that is newer than what was missed.
    const known = new Set(this.chat.map((message) => message.id))
    let found: Message[] = []
    for (;;) {
      // The first moment of a page may have messages on the page before it, too.
      const page = await this.#ports.api.messages(channel, this.id, found[0] && found[0].at_ms + 1)
      const taken = new Set(found.map((message) => message.id))
      const older = page.filter((message) => message.call_id === this.id && !taken.has(message.id))
      found = [...older, ...found]
      const isReached = page.some((message) => known.has(message.id))
      if (!this.#chatRead || isReached || older.length === 0 || found.length >= CHAT_MAX) return found
    }
  }

  #addMessage(message: Message): void {
    if (this.chat.some((other) => other.id === message.id)) return
    this.chat = [...this.chat, message].slice(-CHAT_MAX)
    if (this.panel !== 'chat' && message.author.id !== this.identity) this.unread += 1
  }

  #patchMe(change: { consent: 'granted' | 'declined' }): void {
    if (!this.call) return
    const participants = this.call.participants.map((p) => (p.identity === this.identity ? { ...p, ...change } : p))
    this.call = { ...this.call, participants }
  }

  // ---- doing things once, and saying when they fail ----

  /** One change of a source at a time. What is asked for meanwhile comes right after it, switching on or off first. */
  async #switch(source: Source, what: Change, run: () => Promise<unknown> | undefined): Promise<void> {
    const asked = this.#asked
    const queue: Changes = (asked[source] ??= new Map())
    queue.set(what, run)
    if (this.changing[source]) return
    this.changing[source] = true
    while (queue.size > 0) {
      const next = queue.has('on') ? 'on' : [...queue.keys()][0]!
      await this.#change(source, next, queue)
      if (asked !== this.#asked) return
    }
    this.changing[source] = false
  }

  async #change(source: Source, what: Change, queue: Changes): Promise<void> {
    const asked = this.#asked
    const run = queue.get(what)
    queue.delete(what)
    try {
      await run?.()
      if (asked === this.#asked) delete this.deviceProblems[source]
    } catch (error) {
      // Of no interest once the engine is gone, or when something else is wanted by now.
      if (asked !== this.#asked || queue.has(what)) return
      const problem = problemOf(error)
      // Closing the browser's "what to share" dialog is an answer, not a failure.
      if (source === 'screen' && problem === 'denied') return
      // Shown as off, it must not come on by itself with the next engine. (An unknown failure may be the network's.)
      if ((source === 'microphone' || source === 'camera') && problem !== 'unknown' && !this.#isOn(source)) this.#wanted[source] = false
      this.#handleDeviceError(source, error)
    }
  }

  async #once(what: 'hand' | 'record' | 'captions' | 'consent', run: () => Promise<unknown>): Promise<void> {
    if (this.changing[what]) return
    this.changing[what] = true
    await this.#try(run)
    this.changing[what] = false
  }

  async #try(run: () => Promise<unknown>): Promise<boolean> {
    try {
      await run()
      return true
    } catch (error) {
      this.#ports.news({ kind: 'failed', error })
      return false
    }
  }
}
