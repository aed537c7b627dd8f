import { configDefaults, defineConfig } from "vitest/config"

/** Without sockets, files and processes of their own. */
const units = ["layers", "schema", "services", "sim"].map((folder) => `test/${folder}/**/*.test.ts`)

// Minutes of processor time: `npm run test:dht`.
const exclude = [...configDefaults.exclude, "test/dht/**"]

export default defineConfig({
  test: {
    // Real sockets: as many processes as a small machine has cores.
    maxWorkers: 2,
    testTimeout: 15_000,
    projects: [
      // Loading the library anew for each file would take half of their time.
      { extends: true, test: { name: "units", include: units, exclude, isolate: false } },
      { extends: true, test: { name: "machine", include: ["test/**/*.test.ts"], exclude: [...exclude, ...units] } }
    ]
  }
})
