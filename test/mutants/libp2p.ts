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
  },
  {
    name: "the peer store forgets nobody",
    file: "src/layers/libp2p/BoundedPeerStore.ts",
    text: "(key) => void remove(key)",
    replacement: "() => {}",
    specs: ["test/layers/libp2p/BoundedPeerStore.live.test.ts"]
  },
  {
    name: "the peer store forgets connected peers",
    file: "src/layers/libp2p/BoundedPeerStore.ts",
    text: "connectionManager.getConnections(id).length > 0 || ",
    replacement: "",
    specs: ["test/layers/libp2p/BoundedPeerStore.live.test.ts"]
  },
  {
    name: "the rule of the peer store outlives its scope",
    file: "src/layers/libp2p/BoundedPeerStore.ts",
    text: "isOfInterest = undefined",
    replacement: "void isOfInterest",
    specs: ["test/layers/libp2p/BoundedPeerStore.live.test.ts"]
  }
]
