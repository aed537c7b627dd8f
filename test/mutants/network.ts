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
    replacement: "Effect.all([Effect.succeed(key as never), findOptionsOf",
    specs: ["test/sim/names.test.ts"]
  },
  {
    name: "a quorum of no sense passes",
    file: "src/Arguments.ts",
    text: "Number.isInteger(quorum) && quorum >= 0",
    replacement: "quorum !== -1",
    specs: ["test/sim/names.test.ts"]
  },
  {
    name: "nobody to ask for providers is a failure",
    file: "src/Network.ts",
    text: "reason._tag === \"NoPeers\" && options?.requirePeers !== true",
    replacement: "reason._tag === \"NoPeers\" && options?.requirePeers === true",
    specs: ["test/live/parts.live.test.ts"]
  },
  {
    name: "a client serves the DHT",
    file: "src/layers/dht/libp2p/Attachment.ts",
    text: "clientMode: isClient",
    replacement: "clientMode: false",
    specs: ["test/live/parts.live.test.ts"]
  },
  {
    name: "a node without a DHT has one",
    file: "src/Node.ts",
    text: "dht === \"off\" ? NoDht.layer : KadDht.layer",
    replacement: "dht === \"off\" ? KadDht.layer : KadDht.layer",
    specs: ["test/live/parts.live.test.ts"]
  },
  {
    name: "an identity of the program's own is ignored",
    file: "src/Node.ts",
    text: "Layer.mergeAll(identity, ",
    replacement: "Layer.mergeAll(FileIdentity.layer, ",
    specs: ["test/live/parts.live.test.ts"]
  },
  {
    name: "a refresh looks up nothing random",
    file: "src/layers/dht/lookup/Queries.ts",
    text: "Effect.ignore(random), randomLookups",
    replacement: "Effect.ignore(random), 0",
    specs: ["test/live/parts.live.test.ts"],
    equivalent: "in a small network the lookup of the own position meets every peer"
  },
  {
    name: "a duration prints as an object",
    file: "src/schema/Json.ts",
    text: "Duration.isDuration(value)",
    replacement: "Duration.isDuration(name)",
    specs: ["test/schema/NetworkEvent.test.ts"]
  },
  {
    name: "an address that two scopes announce goes with the first",
    file: "src/layers/libp2p/Announced.ts",
    text: "if (left > 0) return Effect.sync(() => counts.set(address, left))",
    replacement: "",
    specs: ["test/live/parts.live.test.ts"]
  },
  {
    name: "peers do not hear of an announced address",
    file: "src/layers/libp2p/Announced.ts",
    text: "await peerStore.patch(peerId, { multiaddrs })",
    replacement: "",
    specs: ["test/live/parts.live.test.ts"],
    only: "are announced while the scope lives"
  },
  {
    name: "a port stays open after its scope",
    file: "src/layers/libp2p/Listening.ts",
    text: "await Promise.allSettled(listeners.map((listener) => listener.close()))",
    replacement: "await Promise.allSettled(listeners)",
    specs: ["test/live/parts.live.test.ts"]
  },
  {
    name: "a relay stays reserved after its scope",
    file: "src/layers/reach/RelayReservations.ts",
    text: "isConfigured(peer, at) ? Effect.void : loops.remove(peer)",
    replacement: "isConfigured(peer, at) ? Effect.void : Effect.void",
    specs: ["test/live/relay.live.test.ts"]
  },
  {
    name: "a misspelled option passes in silence",
    file: "src/Arguments.ts",
    text: "const unknown = Object.keys(options).find((name) => !names.includes(name))",
    replacement: "const unknown = undefined as string | undefined",
    specs: ["test/sim/arguments.test.ts"]
  },
  {
    name: "options that are no object are taken for none",
    file: "src/Arguments.ts",
    text: "  if (options === undefined) return undefined\n  if (!Pred",
    replacement: "  if (!Predicate.isReadonlyObject(options)) return undefined\n  if (!Pred",
    specs: ["test/sim/arguments.test.ts"]
  },
  {
    name: "a handler that is no function stands",
    file: "src/Arguments.ts",
    text: "typeof handler === \"function\"",
    replacement: "handler !== \"function\"",
    specs: ["test/sim/arguments.test.ts"]
  },
  {
    name: "a namespace that is none kills the call",
    file: "src/Arguments.ts",
    text: "!isNamespace(namespace)",
    replacement: "false",
    specs: ["test/sim/arguments.test.ts"]
  },
  {
    name: "a path that is no text is joined to one",
    file: "src/Arguments.ts",
    text: "typeof path !== \"string\"",
    replacement: "path === \"string\"",
    specs: ["test/sim/arguments.test.ts"]
  },
  {
    name: "a part that is no Layer kills the start",
    file: "src/Arguments.ts",
    text: "part === undefined || Layer.isLayer(part)",
    replacement: "part !== \"\"",
    specs: ["test/sim/arguments.test.ts"]
  },
  {
    name: "a switch that is neither on nor off is off",
    file: "src/Arguments.ts",
    text: "typeof value === \"boolean\"",
    replacement: "value !== \"boolean\"",
    specs: ["test/sim/arguments.test.ts"]
  }
]
