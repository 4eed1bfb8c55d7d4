/** Light, dark, or as the system says. `public/theme.js` applies the same choice before the first paint. */
import { load, save } from './storage'

export type Theme = 'system' | 'light' | 'dark'

class ThemeChoice {
  chosen: Theme = $state(read())

  choose(theme: Theme): void {
    this.chosen = theme
    save('theme', theme === 'system' ? null : theme)
    if (theme === 'system') delete document.documentElement.dataset.theme
    else document.documentElement.dataset.theme = theme
  }
}

function read(): Theme {
  const saved = load('theme')
  return saved === 'light' || saved === 'dark' ? saved : 'system'
}

export const theme = new ThemeChoice()
