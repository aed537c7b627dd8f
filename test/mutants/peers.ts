import type { Mutant } from "./Mutant.ts"

export const peersMutants: ReadonlyArray<Mutant> = [
  {
    name: "a full table admits one more",
    file: "src/layers/peers/Limits.ts",
    text: "return taken + 1 - limit.most",
    replacement: "return taken - limit.most",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a second connection from a new network takes no slot of it",
    file: "src/layers/peers/Limits.ts",
    text: "if (present !== undefined) return limits",
    replacement: "if (present !== undefined) return []",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  }
]
