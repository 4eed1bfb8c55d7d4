/** Numbers for the people who run the site. */
import { del, get, path, post } from './http'
import type { CaptionDelay, Job, NodeStatus, OpsCall, OpsDeparture } from './types'

export const nodes = async () => (await get<{ nodes: NodeStatus[] }>('/ops/nodes')).nodes
export const calls = async () => (await get<{ calls: OpsCall[] }>('/ops/calls')).calls
export const departed = async () => (await get<{ departed: OpsDeparture[] }>('/ops/departed?limit=50')).departed
export const jobs = async () => (await get<{ jobs: Job[] }>('/ops/jobs')).jobs
export const captions = () => get<CaptionDelay>('/ops/captions')
export const drain = (node: string) => post<void>(path`/ops/nodes/${node}/drain`)
export const cancelDrain = (node: string) => del<void>(path`/ops/nodes/${node}/drain`)
