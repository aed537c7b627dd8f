import type { Mutant } from "./Mutant.ts"

export const slotsMutants: ReadonlyArray<Mutant> = [
  {
    name: "a reservation never expires",
    file: "src/layers/peers/Slots.ts",
    text: "if (expires <= now) reservations.delete(peer)",
    replacement: "if (expires < 0) reservations.delete(peer)",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a reservation is not given back when its connection closes",
    file: "src/layers/peers/Slots.ts",
    text: "--reservation.count === 0",
    replacement: "--reservation.count < 0",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "two connections of one reservation count once",
    file: "src/layers/peers/Slots.ts",
    text: "count: (reservations.get(peer)?.count ?? 0) + 1",
    replacement: "count: 1",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a reservation of lower interest blocks a wanted peer",
    file: "src/layers/peers/Slots.ts",
    text: "!(isWanted && interestRank(interests.of(other)) < rank)",
    replacement: "true",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts", "test/sim/limit.test.ts"]
  },
  {
    name: "a held peer is evicted",
    file: "src/layers/peers/Slots.ts",
    text: "if (entry.holds > 0 || interest === \"kept\" || entry.id === peer) continue",
    replacement: "if (interest === \"kept\" || entry.id === peer) continue",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts", "test/sim/limit.test.ts"]
  },
  {
    name: "a kept peer is evicted",
    file: "src/layers/peers/Slots.ts",
    text: "if (entry.holds > 0 || interest === \"kept\" || entry.id === peer) continue",
    replacement: "if (entry.holds > 0 || entry.id === peer) continue",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts", "test/sim/limit.test.ts"]
  },
  {
    name: "a peer that is held meanwhile is evicted",
    file: "src/layers/peers/Slots.ts",
    text: "entries.get(candidate.id) === candidate && candidate.holds === 0 &&",
    replacement: "entries.get(candidate.id) === candidate &&",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a peer that is kept meanwhile is evicted",
    file: "src/layers/peers/Slots.ts",
    text: " && interests.of(candidate.id) !== \"kept\" &&\n",
    replacement: " &&\n",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a candidate that has gone meanwhile is evicted",
    file: "src/layers/peers/Slots.ts",
    text: "entries.get(candidate.id) === candidate && ",
    replacement: "",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a full subnet is open to everybody",
    file: "src/layers/peers/Slots.ts",
    text: "if (missing(limit, entries.values(), reservedForOthers()) <= 0) return true",
    replacement: "return true",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts", "test/layers/peers/InboundLimits.test.ts"]
  },
  {
    name: "a full subnet is closed while a wanted peer is away",
    file: "src/layers/peers/Slots.ts",
    text: "for (const peer of interests.wanted()) if (!entries.has(peer)) return true",
    replacement: "",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts", "test/sim/limit.test.ts"]
  },
  {
    name: "the gate ignores every other limit than subnet",
    file: "src/layers/peers/Slots.ts",
    text: "if (limit?.name !== \"subnet\") return true",
    replacement: "if (limit?.name === \"subnet\") return true",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts", "test/layers/peers/InboundLimits.test.ts"]
  },
  {
    name: "a dial is not refused by a full table",
    file: "src/layers/peers/Slots.ts",
    text: "const refusal = refusalBy(limit, need - (yield* victims({ peer, direction: \"outbound\" })).length, peer)",
    replacement: "const refusal = undefined",
    specs: [
      "test/layers/peers/ScopedPeerTable.test.ts",
      "test/sim/limit.test.ts",
      "test/layers/peers/SupervisedConnectionManager.test.ts"
    ]
  },
  {
    name: "a connected peer's dial is refused by a full table",
    file: "src/layers/peers/Slots.ts",
    text: "      if (entries.has(peer)) return undefined\n      forgetExpired(yield*",
    replacement: "      forgetExpired(yield*",
    specs: ["test/layers/peers/Slots.test.ts"]
  },
  {
    name: "inbound slots are counted as all slots",
    file: "src/layers/peers/Slots.ts",
    text: "if (entry.isInbound) slots.inbound++",
    replacement: "slots.inbound++",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a limit as wide as the table is checked before it",
    file: "src/layers/peers/Limits.ts",
    text: "connection.isInbound && config.maxInboundPeers < config.maxPeers",
    replacement: "config.maxInboundPeers < config.maxPeers",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts", "test/sim/limit.test.ts"]
  },
  {
    name: "the peer's second connection counts its network twice",
    file: "src/layers/peers/Limits.ts",
    text: " && present?.networks.has(network) !== true",
    replacement: "",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "the networks of a peer are those of its first connection",
    file: "src/layers/peers/ScopedPeerTable.ts",
    text: "      entry.networks = entry.connections.networks()\n      yield* entry.connections.tell",
    replacement: "      yield* entry.connections.tell",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a second connection's network is not counted",
    file: "src/layers/peers/ScopedPeerTable.ts",
    text:
      "    entry.connections.add(connection, path._tag === \"Direct\")\n    entry.networks = entry.connections.networks()",
    replacement: "    entry.connections.add(connection, path._tag === \"Direct\")",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "the gauge does not fall",
    file: "src/layers/peers/Departure.ts",
    text: "yield* Metric.modify(NetworkMetrics.peers, -1)",
    replacement: "yield* Metric.modify(NetworkMetrics.peers, 0)",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "the gauge does not rise",
    file: "src/layers/peers/ScopedPeerTable.ts",
    text: "yield* Metric.modify(NetworkMetrics.peers, 1)",
    replacement: "yield* Metric.modify(NetworkMetrics.peers, 0)",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a stop does not wait for connections that are closing",
    file: "src/layers/peers/ScopedPeerTable.ts",
    text: ".pipe(Effect.andThen(departures.settled))",
    replacement: "",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a stopping table admits",
    file: "src/layers/peers/ScopedPeerTable.ts",
    text: "if (closed || interests.isBlocked(peer) || departures.isGone(connection) || !isOpen) {",
    replacement: "if (interests.isBlocked(peer) || departures.isGone(connection) || !isOpen) {",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a blocked peer is admitted",
    file: "src/layers/peers/ScopedPeerTable.ts",
    text: "if (closed || interests.isBlocked(peer) || departures.isGone(connection) || !isOpen) {",
    replacement: "if (closed || departures.isGone(connection) || !isOpen) {",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a connection that has gone is admitted again",
    file: "src/layers/peers/ScopedPeerTable.ts",
    text: "interests.isBlocked(peer) || departures.isGone(connection) || !isOpen) {",
    replacement: "interests.isBlocked(peer) || !isOpen) {",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a closed connection is admitted",
    file: "src/layers/peers/ScopedPeerTable.ts",
    text: " || departures.isGone(connection) || !isOpen) {",
    replacement: " || departures.isGone(connection)) {",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "identify is published for each connection",
    file: "src/layers/peers/ScopedPeerTable.ts",
    text: "entry === undefined || entry.remote !== undefined",
    replacement: "entry === undefined",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "pings that fail outrank a goodbye",
    file: "src/layers/peers/ScopedPeerTable.ts",
    text: "if (remoteReason === undefined && entry.expected?.remoteReason !== undefined) return",
    replacement: "",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "the reserved slot is not settled by the admission",
    file: "src/layers/peers/ScopedPeerTable.ts",
    text: "    slots.settle(peer)\n",
    replacement: "",
    specs: ["test/layers/peers/Slots.test.ts", "test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a foreign stream does not count past the idle time",
    file: "src/layers/peers/Idleness.ts",
    text: "if (active === 0) {",
    replacement: "if (active >= 0) {",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a foreign stream does not begin the idle time anew",
    file: "src/layers/peers/Idleness.ts",
    text: "        entry.idleSince = now\n      }\n",
    replacement: "      }\n",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a kept peer becomes idle",
    file: "src/layers/peers/Idleness.ts",
    text: " || interestOf(entry.id) === \"kept\"",
    replacement: "",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a peer with streams becomes idle",
    file: "src/layers/peers/Idleness.ts",
    text: "entry.holds + entry.attends > 0 || ",
    replacement: "",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a direct connection is replaced by a relayed one",
    file: "src/layers/peers/Connections.ts",
    text: "state?.isDirect === true && !other.isDirect",
    replacement: "state === undefined && !other.isDirect",
    specs: ["test/layers/peers/Connections.test.ts"]
  },
  {
    name: "a connection is retired though a stream is open on it",
    file: "src/layers/peers/Connections.ts",
    text: "if (state === undefined || state.holds > 0) return false",
    replacement: "if (state === undefined) return false",
    specs: ["test/layers/peers/Connections.test.ts"]
  },
  {
    name: "both connections are retired, each for the other's sake",
    file: "src/layers/peers/Connections.ts",
    text: "other !== state && !other.isRetired && !isWorse(other)",
    replacement: "other !== state && !isWorse(other)",
    specs: ["test/layers/peers/Connections.test.ts"]
  },
  {
    name: "an unanswered retirement closes nothing",
    file: "src/layers/peers/Connections.ts",
    text: "if (answer === \"unanswered\") return yield* state.connection.close",
    replacement: "if (answer === \"unanswered\") return",
    specs: ["test/layers/peers/Connections.test.ts"]
  },
  {
    name: "a refused retirement counts as agreed",
    file: "src/layers/peers/Connections.ts",
    text: "state.isAgreed = answer === \"agreed\"",
    replacement: "state.isAgreed = true",
    specs: ["test/layers/peers/Connections.test.ts"]
  },
  {
    name: "a connection closes under its streams",
    file: "src/layers/peers/Connections.ts",
    text: "if (best === state || isUsed(state) || (yield* state.connection.streams) > 0) return",
    replacement: "if (best === state) return",
    specs: ["test/layers/peers/Connections.test.ts"]
  },
  {
    name: "former agreements outlive their cause",
    file: "src/layers/peers/Connections.ts",
    text: "      state.isAgreed = false\n      state.isRetired = false\n",
    replacement: "",
    specs: ["test/layers/peers/Connections.test.ts"]
  },
  {
    name: "a peer of other software is asked to retire",
    file: "src/layers/peers/Connections.ts",
    text: "if (isKnown === false) return",
    replacement: "",
    specs: ["test/layers/peers/Connections.test.ts"]
  },
  {
    name: "the end of the last stream wakes nobody",
    file: "src/layers/peers/Connections.ts",
    text: "return state.isAwaited && !isUsed(state) ? freed.beat : Effect.void",
    replacement: "return Effect.void",
    specs: ["test/layers/peers/Connections.test.ts"]
  },
  {
    name: "a host has as many tokens as it likes",
    file: "src/layers/peers/InboundLimits.ts",
    text: "if (bucket.tokens < 1 - 1e-6) return false",
    replacement: "",
    specs: ["test/layers/peers/InboundLimits.test.ts"]
  },
  {
    name: "a bucket holds more than a burst",
    file: "src/layers/peers/InboundLimits.ts",
    text: "Math.min(inboundBurst, bucket.tokens +",
    replacement: "Math.max(0, bucket.tokens +",
    specs: ["test/layers/peers/InboundLimits.test.ts"]
  },
  {
    name: "one host has all the handshakes",
    file: "src/layers/peers/InboundLimits.ts",
    text: "Math.ceil(maxPendingInbound / 2)",
    replacement: "maxPendingInbound",
    specs: ["test/layers/peers/InboundLimits.test.ts"]
  },
  {
    name: "the handshakes in flight have no limit",
    file: "src/layers/peers/InboundLimits.ts",
    text: "if (pending.length >= maxPendingInbound) return \"pending\"",
    replacement: "",
    specs: ["test/layers/peers/InboundLimits.test.ts"]
  },
  {
    name: "a refusal by address is not counted",
    file: "src/layers/peers/InboundLimits.ts",
    text: "      yield* count(reason)\n      return reason",
    replacement: "      return reason",
    specs: ["test/layers/peers/InboundLimits.test.ts"]
  }
]
