import type { Mutant } from "./Mutant.ts"

export const libp2pMutants: ReadonlyArray<Mutant> = [
  {
    name: "the newest muxer is held",
    file: "src/layers/libp2p/wire/GoAway.ts",
    text: "newest = new WeakRef(muxer)",
    replacement: "newest = { deref: () => muxer } as WeakRef<YamuxMuxer>",
    specs: ["test/live/lifetimes.live.test.ts"]
  },
  {
    name: "libp2p has a ceiling below that of the peer table",
    file: "src/layers/libp2p/Host.ts",
    text: "maxConnections: Number.POSITIVE_INFINITY",
    replacement: "maxConnections: config.maxPeers",
    specs: ["test/live/limits.live.test.ts"]
  }
]
