import type { Mutant } from "./Mutant.ts"

export const networkMutants: ReadonlyArray<Mutant> = [
  {
    name: "disconnect takes nonsense in silence",
    file: "src/Network.ts",
    text: "disconnect: ofPeer(connections.disconnect)",
    replacement: "disconnect: connections.disconnect as never",
    specs: ["test/sim/names.test.ts"]
  },
  {
    name: "findProviders passes text on unread",
    file: "src/Network.ts",
    text: "Effect.all([keyOf(\"findProviders\", key), findOptionsOf",
    replacement: "Effect.all([Effect.succeed(key as ContentKey.ContentKey), findOptionsOf",
    specs: ["test/sim/names.test.ts"]
  },
  {
    name: "a quorum of no sense passes",
    file: "src/Network.ts",
    text: "Number.isInteger(quorum) && quorum >= 0",
    replacement: "quorum !== -1",
    specs: ["test/sim/names.test.ts"]
  }
]
