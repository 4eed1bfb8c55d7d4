/** Who is signed in on this page, and what they may see. */
import * as api from '../api/session'
import { events, type StreamState } from '../api/events'
import { ApiError, whenSignedOut } from '../api/http'
import type { Role, SessionInfo } from '../api/types'

type Phase = 'loading' | 'out' | 'in' | 'unreachable'

/** How long to wait before asking again while the server does not answer. */
const RETRY_MS = 3_000
/** Shorter breaks mend themselves before anybody could act on a message. */
const OFFLINE_AFTER_MS = 2_000

class Session {
  phase: Phase = $state('loading')
  info: SessionInfo | null = $state.raw(null)
  /** True once the event stream has been away long enough to tell somebody. */
  offline = $state(false)
  #offlineTimer: ReturnType<typeof setTimeout> | undefined

  constructor() {
    events.watch((state) => this.#watchStream(state))
    whenSignedOut(() => {
      if (this.phase === 'in') this.#exit()
    })
  }

  get user() {
    return this.info?.user ?? null
  }

  has(role: Role): boolean {
    return this.user?.roles.includes(role) ?? false
  }

  /** Officers and operators may be kept apart from conversations: then their own page is home. */
  get home(): string {
    if (this.converses) return '/'
    if (this.has('officer')) return '/officer'
    if (this.has('ops')) return '/ops'
    return this.has('admin') ? '/people' : '/'
  }

  get converses(): boolean {
    return this.has('user') || this.has('host')
  }

  async load(): Promise<void> {
    try {
      this.#enter(await api.current())
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) return this.#exit()
      this.phase = 'unreachable'
      setTimeout(() => void this.load(), RETRY_MS)
    }
  }

  async signIn(username: string, password: string): Promise<void> {
    this.#enter(await this.#full(await api.signIn(username, password)))
  }

  async setUp(input: Parameters<typeof api.setUp>[0]): Promise<void> {
    this.#enter(await this.#full(await api.setUp(input)))
  }

  async joinAsGuest(token: string, name: string): Promise<SessionInfo> {
    const info = await this.#full(await api.joinAsGuest(token, name))
    this.#enter(info)
    return info
  }

  async signOut(): Promise<void> {
    await api.signOut()
    this.#exit()
  }

  /** The sign-in answer may be brief; features and the notice come with GET /session. */
  async #full(answer: SessionInfo | undefined): Promise<SessionInfo> {
    return answer?.user && answer.features && answer.notice ? answer : api.current()
  }

  #watchStream(state: StreamState): void {
    clearTimeout(this.#offlineTimer)
    if (state !== 'connecting') {
      this.offline = false
      return
    }
    this.#offlineTimer = setTimeout(() => {
      this.offline = true
      // A refused WebSocket does not say why: perhaps the session has ended, which any request tells.
      void api.current().catch((error: unknown) => {
        if (error instanceof ApiError && error.status === 401) this.#exit()
      })
    }, OFFLINE_AFTER_MS)
  }

  #enter(info: SessionInfo): void {
    this.info = info
    this.phase = 'in'
    events.start()
  }

  #exit(): void {
    this.info = null
    this.phase = 'out'
    events.stop()
  }
}

export const session = new Session()
