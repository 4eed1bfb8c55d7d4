import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vitest/config'

// In development the API is the fake server (`npm run fake`) or a real message server named by CONCLAVE_API.
const api = process.env.CONCLAVE_API ?? 'http://127.0.0.1:5180'

export default defineConfig({
  plugins: [svelte()],
  build: {
    target: 'es2022',
    // The first ones with light-dark(), all of early 2024: for older ones every colour would be written out twice.
    cssTarget: ['chrome123', 'firefox120', 'safari17.5'],
    // Fonts and images stay files: the page's policy allows no data: fonts.
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 700,
    modulePreload: { polyfill: false },
  },
  server: {
    host: '127.0.0.1',
    proxy: {
      '/api': { target: api, ws: true },
      '/livekit': { target: api, ws: true },
    },
  },
  resolve: process.env.VITEST ? { conditions: ['browser'] } : {},
  test: {
    environment: 'happy-dom',
    include: ['src/**/*.test.ts'],
  },
})
