/** Accounts (administrators) and the plain directory (everybody). */
import { get, patch, path, post } from './http'
import type { ManagedUser, Person, Role } from './types'

export const directory = async (q: string) => (await get<{ people: Person[] }>('/people', { q })).people
export const users = async () => (await get<{ users: ManagedUser[] }>('/users')).users
export const create = (user: { username: string; display_name: string; password: string; roles: Role[] }) => post<ManagedUser>('/users', user)
export const change = (id: string, to: { display_name?: string; roles?: Role[]; password?: string; disabled?: boolean }) =>
  patch<ManagedUser>(path`/users/${id}`, to)
