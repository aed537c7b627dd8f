import { configDefaults, defineConfig } from "vitest/config"

// The folder of a spec says what it is about, its suffix what it costs: X.test.ts runs in virtual time, X.live.test.ts uses sockets, files or
// processes, X.heavy.test.ts takes minutes (`npm run test:heavy`).
const live = ["test/**/*.live.test.ts"]
const exclude = [...configDefaults.exclude, "test/**/*.heavy.test.ts"]

export default defineConfig({
  test: {
    // Real sockets: as many processes as a small machine has cores.
    maxWorkers: 2,
    // Patience and no promise: what hangs is told by the spec that waits for it, after a minute.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    projects: [
      // Loading the library anew for each file would take half of their time.
      {
        extends: true,
        test: { name: "units", include: ["test/**/*.test.ts"], exclude: [...exclude, ...live], isolate: false }
      },
      { extends: true, test: { name: "machine", include: live, exclude } }
    ]
  }
})
