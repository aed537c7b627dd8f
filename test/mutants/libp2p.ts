import type { Mutant } from "./Mutant.ts"

export const libp2pMutants: ReadonlyArray<Mutant> = [
  {
    name: "a direct connection beside a relayed one never came of a hole",
    file: "src/layers/libp2p/Punches.ts",
    text: "if (all.some((one) => !one.direct && isUpgrading(one))) return true",
    replacement: "if (all.length < 0) return true",
    specs: ["test/live/relay.live.test.ts"]
  },
  {
    name: "a dial of this node counts as a punched hole",
    file: "src/layers/libp2p/Punches.ts",
    text: "if (direct.direction === \"outbound\" && dials.has(direct.remotePeer.toString())) return false",
    replacement: "",
    specs: ["test/live/relay.live.test.ts"]
  },
  {
    name: "a dial whose connection closes takes no other open connection of the peer",
    file: "src/layers/libp2p/Transport.ts",
    text: "const other = best(localPeer, node.getConnections(underlying.remotePeer)) ??",
    replacement: "const other =",
    specs: ["test/live/relay.live.test.ts"]
  },
  {
    name: "a dial whose relayed connection closes does not wait for the direct one",
    file: "src/layers/libp2p/Transport.ts",
    text: "(isCut ? yield* nextConnection(node, underlying.remotePeer) : undefined)",
    replacement: "(isCut ? undefined : undefined)",
    specs: ["test/live/relay.live.test.ts"]
  },
  {
    name: "a connection may be closing for ever",
    file: "src/layers/libp2p/Host.ts",
    text: "closeInTime(detail, closingMillis)",
    replacement: "closeInTime(detail, 100 * closingMillis)",
    specs: ["test/live/relay.live.test.ts"]
  },
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
