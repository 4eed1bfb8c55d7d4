/** Who is signed in, and the four ways in. */
import { del, get, post } from './http'
import type { SessionInfo } from './types'

export const current = () => get<SessionInfo>('/session')
export const signIn = (username: string, password: string) => post<SessionInfo>('/session', { username, password })
export const signOut = () => del<void>('/session')
export const setUp = (input: { token: string; username: string; display_name: string; password: string }) =>
  post<SessionInfo>('/session/setup', input)
export const joinAsGuest = (token: string, display_name: string) => post<SessionInfo>('/session/guest', { token, display_name })
