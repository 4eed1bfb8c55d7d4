/** The operations page's numbers, read again every few seconds while somebody looks. */
import * as api from '../../api/ops'
import type { CaptionDelay, Job, NodeStatus, OpsCall, OpsDeparture } from '../../api/types'

const EVERY_MS = 3_000

export class OpsModel {
  nodes: NodeStatus[] | null = $state.raw(null)
  calls: OpsCall[] | null = $state.raw(null)
  jobs: Job[] | null = $state.raw(null)
  departed: OpsDeparture[] | null = $state.raw(null)
  captions: CaptionDelay | null = $state.raw(null)
  updatedAt: number | null = $state(null)
  error: unknown = $state.raw(null)
  #timer: ReturnType<typeof setTimeout> | undefined
  #stopped = false

  async start(): Promise<void> {
    this.#stopped = false
    await this.#read()
  }

  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
  }

  async drain(node: string): Promise<void> {
    await api.drain(node)
    await this.#read()
  }

  async cancelDrain(node: string): Promise<void> {
    await api.cancelDrain(node)
    await this.#read()
  }

  async #read(): Promise<void> {
    clearTimeout(this.#timer)
    // Each part stands alone: a missing offloader must not hide the calls.
    const parts = await Promise.allSettled([api.nodes(), api.calls(), api.jobs(), api.captions(), api.departed()] as const)
    const [nodes, calls, jobs, captions, departed] = parts
    if (nodes.status === 'fulfilled') this.nodes = nodes.value
    if (calls.status === 'fulfilled') this.calls = calls.value
    if (jobs.status === 'fulfilled') this.jobs = jobs.value
    if (captions.status === 'fulfilled') this.captions = captions.value
    if (departed.status === 'fulfilled') this.departed = departed.value
    const failed = parts.find((part) => part.status === 'rejected')
    this.error = failed?.status === 'rejected' ? failed.reason : null
    if (parts.some((part) => part.status === 'fulfilled')) this.updatedAt = Date.now()
    if (this.#stopped) return
    this.#timer = setTimeout(() => void this.#again(), EVERY_MS)
  }

  /** Nobody reads a hidden page. */
  async #again(): Promise<void> {
    if (document.hidden) this.#timer = setTimeout(() => void this.#again(), EVERY_MS)
    else await this.#read()
  }
}
