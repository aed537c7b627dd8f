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
  },
  {
    name: "a record keeps the error of a loss",
    file: "src/layers/peers/PeerRecord.ts",
    text: "record.failsNextDial = true",
    replacement: "Object.assign(record, { failsNextDial: true, loss: new Error() })",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "the dialer's set of fibers keeps the first failure",
    file: "src/layers/peers/Dialer.ts",
    text: "Effect.exit(dialAndAdmit(peer.id, dial))",
    replacement:
      "Effect.tap(Effect.exit(dialAndAdmit(peer.id, dial)), (exit) => Effect.sync(() => Object.assign(fibers, { exit })))",
    specs: ["test/live/lifetimes.live.test.ts"]
  }
]
