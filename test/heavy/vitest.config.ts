import { join } from "node:path"
import { defineConfig } from "vitest/config"

export default defineConfig({
  root: join(import.meta.dirname, "../.."),
  test: {
    include: ["test/**/*.heavy.test.ts"],
    // A network of 200 nodes keeps the cores busy by itself, and what a spec says of memory holds for a process of its
    // own.
    fileParallelism: false,
    testTimeout: 180_000,
    // Two hundred nodes say goodbye to each other.
    hookTimeout: 120_000
  }
})
