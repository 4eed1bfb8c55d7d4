/** Everything a person can ask of one call, except its media (that is LiveKit's signalling). */
import { get, path, post } from './http'
import type { Call, Caption, HostAction, JoinResult } from './types'

export const one = (id: string) => get<Call>(path`/calls/${id}`)
export const join = (id: string) => post<JoinResult>(path`/calls/${id}/join`)
export const leave = (id: string) => post<void>(path`/calls/${id}/leave`)
export const end = (id: string) => post<void>(path`/calls/${id}/end`)
export const raiseHand = (id: string, raised: boolean) => post<void>(path`/calls/${id}/hand`, { raised })
export const react = (id: string, emoji: string) => post<void>(path`/calls/${id}/reactions`, { emoji })
export const hostAction = (id: string, identity: string, action: HostAction) =>
  post<void>(path`/calls/${id}/participants/${identity}/` + action)
export const recording = (id: string, action: 'start' | 'stop') => post<void>(path`/calls/${id}/recording`, { action })
export const consent = (id: string, granted: boolean, noticeVersion: string) =>
  post<void>(path`/calls/${id}/consent`, { granted, notice_version: noticeVersion })
export const captions = (id: string, enabled: boolean, language: string) => post<void>(path`/calls/${id}/captions`, { enabled, language })
/** What was said so far, for who joins late. */
export const captionLines = async (id: string) => (await get<{ captions: Caption[] }>(path`/calls/${id}/captions`)).captions
export const guestLink = (id: string) => post<{ url: string; expires_at_ms: number }>(path`/calls/${id}/guest-links`)
