import type { Mutant } from "./Mutant.ts"

export const peersMutants: ReadonlyArray<Mutant> = [
  {
    name: "an old handshake shows that its peer is back",
    file: "src/layers/peers/PingHealth.ts",
    text: "(connection.direction === \"inbound\" || (yield* connection.remote)._tag === \"Some\")",
    replacement: "true",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "a peer that came back for a moment has all misses again",
    file: "src/layers/peers/PingHealth.ts",
    text: "misses--\n",
    replacement: "misses = 0\n",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "the connection with which a peer came back is given up with the silent ones",
    file: "src/layers/peers/PingHealth.ts",
    text: "if (isBack) isGone = false",
    replacement: "if (isBack && isGone === undefined) isGone = false",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "a connection made after the first miss began counts as silent",
    file: "src/layers/peers/PingHealth.ts",
    text: "silent ??= wait.connections",
    replacement: "silent = wait.connections",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "nobody pings a peer that came back meanwhile",
    file: "src/layers/peers/PingHealth.ts",
    text: "if (yield* giveUp(peer, silent)) return",
    replacement: "yield* giveUp(peer, silent)\n      return",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "a kept peer follows the schedule of the time in which it was only found",
    file: "src/layers/peers/Supervisor.ts",
    text: "former?.interest === interest",
    replacement: "former !== undefined",
    specs: ["test/layers/peers/Supervisor.test.ts"]
  },
  {
    name: "the attempts of a former interest count on",
    file: "src/layers/peers/PeerRecord.ts",
    text: "record.backoff !== undefined && record.backoff !== backoff",
    replacement: "false",
    specs: ["test/layers/peers/Supervisor.test.ts"]
  },
  {
    name: "each failed dial keeps a text of its own",
    file: "src/layers/peers/PeerRecord.ts",
    text: "record.dials.find((dial) => dial.message === text)?.message ?? text",
    replacement: "text",
    specs: ["test/live/memory.live.test.ts"]
  },
  {
    name: "others may tell addresses of any length",
    file: "src/layers/peers/Addresses.ts",
    text: "address.length > addressLengthMax",
    replacement: "false",
    specs: ["test/layers/peers/Addresses.test.ts"]
  },
  {
    name: "the remote's keep is not counted",
    file: "src/layers/peers/Users.ts",
    text: "entry.remoteKeeps++",
    replacement: "",
    specs: ["test/sim/guests.test.ts"]
  },
  {
    name: "the end of the remote's keep is not counted",
    file: "src/layers/peers/Users.ts",
    text: "entry.remoteKeeps--",
    replacement: "",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a guest with other streams makes room",
    file: "src/layers/peers/Entry.ts",
    text: "attends > remoteKeeps || (yield* activeStreams(entry)) > remoteKeeps",
    replacement: "false",
    specs: ["test/sim/guests.test.ts"]
  },
  {
    name: "a full subnet is closed to strangers although a guest's stay is over",
    file: "src/layers/peers/Slots.ts",
    text: "now - entry.connectedAt >= stayMillis",
    replacement: "false",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a path is told again when nothing has changed",
    file: "src/layers/peers/ScopedPeerTable.ts",
    text: "if (isSamePath(from, to) || entries.get(entry.id) !== entry) return",
    replacement: "",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a peer that falls back to its relay is not told of",
    file: "src/layers/peers/ScopedPeerTable.ts",
    text: "      yield* tellPath(entry)\n",
    replacement: "",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a connection that the table does not admit is closed uncounted",
    file: "src/layers/peers/Admission.ts",
    text: "error._tag === \"PeerLimitExceeded\" ? refuse(connection, error.rule ?? \"full\") : Effect.void",
    replacement: "Effect.void",
    specs: ["test/layers/peers/Admission.test.ts"]
  },
  {
    name: "a peer has one connection more than three",
    file: "src/layers/peers/Arrivals.ts",
    text: "return isBecomingOne && standing + arriving < connectionsMax",
    replacement: "return isBecomingOne && standing + arriving <= connectionsMax",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "two connections that have stood for a while become three",
    file: "src/layers/peers/Arrivals.ts",
    text: "const isBecomingOne = standing < standingMax || connections?.isSettling() === true",
    replacement: "const isBecomingOne = true",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "connections that are not admitted yet do not count",
    file: "src/layers/peers/Arrivals.ts",
    text: "expected.set(peer, [...expected.get(peer) ?? [], expires])",
    replacement: "expected.set(peer, [expires])",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a connection that closes before its admission is expected on",
    file: "src/layers/peers/ScopedPeerTable.ts",
    text: "if (former === undefined) arrivals.end(connection.peer)",
    replacement: "",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "an admitted connection is expected on",
    file: "src/layers/peers/ScopedPeerTable.ts",
    text: "    arrivals.end(peer)\n",
    replacement: "",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "the table admits a fourth connection",
    file: "src/layers/peers/ScopedPeerTable.ts",
    text: "(present?.connections.size() ?? 0) >= Arrivals.connectionsMax",
    replacement: "false",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  },
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
  },
  {
    name: "the transport is not told of peers of interest",
    file: "src/layers/peers/Admission.ts",
    text: "return peer !== undefined && PeerRecord.isOfInterest(peer)",
    replacement: "return false",
    specs: ["test/layers/libp2p/BoundedPeerStore.live.test.ts"]
  },
  {
    name: "a dial that its caller gives up is aborted although the remote has answered",
    file: "src/layers/peers/Dialer.ts",
    text: "--dial.waiters > 0 || dial.hasAnswered",
    replacement: "--dial.waiters > 0",
    specs: ["test/sim/isolation.test.ts"]
  },
  {
    name: "a dial of an address that its caller gives up is aborted although the remote has answered",
    file: "src/layers/peers/Dialer.ts",
    text: "dials.answered.size > 0 ? Effect.void",
    replacement: "false ? Effect.void",
    specs: ["test/sim/isolation.test.ts"]
  },
  {
    name: "a dial of an address that its caller gives up is never aborted",
    file: "src/layers/peers/Dialer.ts",
    text: "dials.answered.size > 0 ? Effect.void",
    replacement: "true ? Effect.void",
    specs: ["test/sim/isolation.test.ts"]
  },
  {
    name: "a table whose slots are promised calls itself full",
    file: "src/layers/peers/Slots.ts",
    text: "lacking <= promised ? \"promised\"",
    replacement: "lacking < 0 ? \"promised\"",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a full table with a promised slot calls itself promised",
    file: "src/layers/peers/Slots.ts",
    text: "lacking <= promised ? \"promised\"",
    replacement: "promised > 0 ? \"promised\"",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a handler goes on when its stream is reset",
    file: "src/layers/peers/TransportProtocols.ts",
    text: "          fiber.interruptUnsafe()\n",
    replacement: "",
    specs: ["test/layers/peers/TransportProtocols.test.ts"]
  },
  {
    name: "a handler that is interrupted in vain keeps its peer busy",
    file: "src/layers/peers/TransportProtocols.ts",
    text: "return lost\n",
    replacement: "return Effect.void\n",
    specs: ["test/layers/peers/TransportProtocols.test.ts"]
  },
  {
    name: "what watches a stream goes on when its handler has ended",
    file: "src/layers/peers/TransportProtocols.ts",
    text: "fiber.addObserver(() => watch.interruptUnsafe())",
    replacement: "",
    specs: ["test/layers/peers/TransportProtocols.test.ts"],
    only: "that has ended leaves nothing"
  },
  {
    name: "a handler has no time after a clean end and the connection",
    file: "src/layers/peers/TransportProtocols.ts",
    text: "loss === \"cut\" || remaining",
    replacement: "loss !== \"cut\" || remaining",
    specs: ["test/layers/peers/TransportProtocols.test.ts"]
  },
  {
    name: "all handlers have time after a clean end",
    file: "src/layers/peers/TransportProtocols.ts",
    text: "remaining >= remainingMax",
    replacement: "remaining < 0",
    specs: ["test/layers/peers/TransportProtocols.test.ts"]
  },
  {
    name: "a handler has eleven seconds after its connection",
    file: "src/layers/peers/TransportProtocols.ts",
    text: "Duration.seconds(10)",
    replacement: "Duration.seconds(11)",
    specs: ["test/layers/peers/TransportProtocols.test.ts"]
  },
  {
    name: "a peer has one handler more",
    file: "src/layers/peers/TransportProtocols.ts",
    text: "before >= maxStreamsPerPeer",
    replacement: "before > maxStreamsPerPeer",
    specs: ["test/layers/peers/TransportProtocols.test.ts"]
  },
  {
    name: "a handler that has ended counts on",
    file: "src/layers/peers/TransportProtocols.ts",
    text: "fiber.addObserver(ended)",
    replacement: "",
    specs: ["test/layers/peers/TransportProtocols.test.ts"]
  },
  {
    name: "authorize is asked and not heeded",
    file: "src/layers/peers/TransportProtocols.ts",
    text: "isAllowed ? Effect.void",
    replacement: "isAllowed !== undefined ? Effect.void",
    specs: ["test/layers/peers/TransportProtocols.test.ts"]
  },
  {
    name: "a stream that waits for authorize keeps its peer busy",
    file: "src/layers/peers/TransportProtocols.ts",
    text: "const work = allowed.pipe(",
    replacement:
      "const work = Effect.ignore(Scope.provide(table.attend(connection), busy)).pipe(Effect.andThen(allowed),",
    specs: ["test/layers/peers/TransportProtocols.test.ts"]
  },
  {
    name: "an authorize that throws takes its stream out of the count for ever",
    file: "src/layers/peers/TransportProtocols.ts",
    text: "Effect.suspend(() => authorize(peer))",
    replacement: "authorize(peer)",
    specs: ["test/layers/peers/TransportProtocols.test.ts"]
  },
  {
    name: "the handler is called before authorize has answered",
    file: "src/layers/peers/TransportProtocols.ts",
    text: "Effect.suspend(() => handler(stream))",
    replacement: "handler(stream)",
    specs: ["test/layers/peers/TransportProtocols.test.ts"]
  },
  {
    name: "a failing authorize is not counted",
    file: "src/layers/peers/TransportProtocols.ts",
    text: "() => transport.streams.refuse(\"unauthorized\")",
    replacement: "() => Effect.void",
    specs: ["test/layers/peers/TransportProtocols.test.ts"]
  },
  {
    name: "a failed handler is not logged",
    file: "src/layers/peers/TransportProtocols.ts",
    text: ": Effect.logError(",
    replacement: ": Effect.logDebug(",
    specs: ["test/layers/peers/TransportProtocols.test.ts"]
  },
  {
    name: "status forgets the refused streams",
    file: "src/layers/peers/SupervisedConnectionManager.ts",
    text: "refused: yield* refusals }",
    replacement: "refused: {} }",
    specs: ["test/layers/peers/TransportProtocols.test.ts"]
  },
  {
    name: "any number of tellers is remembered",
    file: "src/layers/peers/Addresses.ts",
    text: ".slice(-tellersMax)",
    replacement: "",
    specs: ["test/layers/peers/Addresses.test.ts"]
  },
  {
    name: "an address that worked is the program's own",
    file: "src/layers/peers/Addresses.ts",
    text: "entry.isOwn ||= sourceTraits(source).isOwn",
    replacement: "entry.isOwn ||= sourceTraits(source).isOwn || source === \"worked\"",
    specs: ["test/layers/peers/Addresses.test.ts"]
  },
  {
    name: "a peer is no teller of where it was reached",
    file: "src/layers/peers/Addresses.ts",
    text: "this.learn(address, \"worked\", [withoutPeer(address)])",
    replacement: "this.learn(address, \"worked\")",
    specs: ["test/layers/peers/Addresses.test.ts"]
  },
  {
    name: "what the DHT found is not judged",
    file: "src/layers/peers/Found.ts",
    text: "foundAddress(told, !isGuarded)",
    replacement: "foundAddress(told, isGuarded !== undefined)",
    specs: ["test/live/told.live.test.ts"]
  },
  {
    name: "what the program hands back becomes its own",
    file: "src/layers/peers/PeerRecord.ts",
    text: "if (typeof address === \"string\") peer.addresses.learn(address, \"given\")",
    replacement:
      "if (typeof address !== \"string\") peer.addresses.learn(address.address, \"given\")\n    else if (typeof address === \"string\") peer.addresses.learn(address, \"given\")",
    specs: ["test/live/told.live.test.ts"]
  },
  {
    name: "another peer at a known address is not asked for",
    file: "src/layers/peers/Answering.ts",
    text: "!peer.addresses.isOfAnotherNow(wish.address)",
    replacement: "peer.addresses.isOfAnotherNow(wish.address)",
    specs: ["test/layers/peers/AddressWishes.test.ts"]
  },
  {
    name: "a name is dialled by the id of the peer alone",
    file: "src/layers/peers/Answering.ts",
    text: "const isName = wish.address.startsWith(\"/dns\")",
    replacement: "const isName = false",
    specs: ["test/layers/peers/AddressWishes.test.ts"]
  },
  {
    name: "the former peer stays kept when the wish moves",
    file: "src/layers/peers/AddressWishes.ts",
    text: "if (former !== undefined) yield* Scope.close(former, Exit.void)",
    replacement: "",
    specs: ["test/layers/peers/AddressWishes.test.ts"]
  },
  {
    name: "the former peer stays wanted when the wish moves",
    file: "src/layers/peers/AddressWishes.ts",
    text: "PeerRecord.leftAddress(peer)",
    replacement: "",
    specs: ["test/layers/peers/AddressWishes.test.ts"]
  },
  {
    name: "a wish for the peer itself moves with the address",
    file: "src/layers/peers/SupervisedConnectionManager.ts",
    text: "answering.ownWish(peer)",
    replacement: "",
    specs: ["test/layers/peers/AddressWishes.test.ts"]
  },
  {
    name: "a goodbye that throws leaves the connections open",
    file: "src/layers/peers/Departure.ts",
    text: "told(Supervised.once(\"a departure\", takeLeave(entry, departure)))",
    replacement: "takeLeave(entry, departure)",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  },
  {
    name: "a close that throws leaves the other connections open",
    file: "src/layers/peers/Entry.ts",
    text: "Supervised.once(\"the close of a connection\", connection.close)",
    replacement: "connection.close",
    specs: ["test/layers/peers/ScopedPeerTable.test.ts"]
  }
]
