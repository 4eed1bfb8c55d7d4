/** Ties a media track to an element for as long as both exist. */
import type { MediaTrack } from '../state/call/media'

export function attach(track: MediaTrack | undefined) {
  return (element: HTMLMediaElement) => track?.attach(element)
}
