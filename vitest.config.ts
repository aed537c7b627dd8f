import { configDefaults, defineConfig } from "vitest/config"

/** Without sockets, files and processes of their own. */
const units = ["layers", "schema", "services", "sim"].map((folder) => `test/${folder}/**/*.test.ts`)

// Minutes of processor time: `npm run test:dht`.
const exclude = [...configDefaults.exclude, "test/dht/**"]

export default defineConfig({
  test: {
    // Real sockets: as many processes as a small machine has cores.
    maxWorkers: 2,
    // Patience and no promise: what hangs is told by the spec that waits for it, after a minute.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    projects: [
      // Loading the library anew for each file would take half of their time.
      { extends: true, test: { name: "units", include: units, exclude, isolate: false } },
      { extends: true, test: { name: "machine", include: ["test/**/*.test.ts"], exclude: [...exclude, ...units] } }
    ]
  }
})
