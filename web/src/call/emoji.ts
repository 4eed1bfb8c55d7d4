/** Reactions that the server accepts. */
export const EMOJI = ['👍', '👏', '❤️', '😂', '😮', '🎉'] as const
