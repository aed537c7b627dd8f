import { configDefaults, defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Minutes of processor time: `npm run test:dht`.
    exclude: [...configDefaults.exclude, "test/dht/**"],
    // Real sockets: as many processes as a small machine has cores.
    maxWorkers: 2,
    testTimeout: 15_000
  }
})
