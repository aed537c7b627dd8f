import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Real sockets: as many processes as a small machine has cores.
    maxWorkers: 2,
    testTimeout: 15_000
  }
})
