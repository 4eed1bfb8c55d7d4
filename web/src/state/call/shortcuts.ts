/** Single-key shortcuts in a call. They can be switched off (WCAG 2.1.4) and never act while somebody types. */

export type Command =
  | 'microphone'
  | 'camera'
  | 'share'
  | 'hand'
  | 'captions'
  | 'chat'
  | 'people'
  | 'layout'
  | 'fullscreen'
  | 'reactions'
  | 'help'

export const SHORTCUTS: readonly { key: string; command: Command }[] = [
  { key: 'm', command: 'microphone' },
  { key: 'v', command: 'camera' },
  { key: 's', command: 'share' },
  { key: 'h', command: 'hand' },
  { key: 'r', command: 'reactions' },
  { key: 'c', command: 'captions' },
  { key: 't', command: 'chat' },
  { key: 'p', command: 'people' },
  { key: 'l', command: 'layout' },
  { key: 'f', command: 'fullscreen' },
  { key: '?', command: 'help' },
]

export function commandFor(event: KeyboardEvent): Command | null {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return null
  if (typesText(event.target)) return null
  const key = event.key.toLowerCase()
  return SHORTCUTS.find((shortcut) => shortcut.key === key)?.command ?? null
}

function typesText(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false
  return target.isContentEditable || target.closest('input, textarea, select, [role="menu"], dialog') !== null
}
