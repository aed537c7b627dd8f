import type { Mutant } from "./Mutant.ts"

export const wishesMutants: ReadonlyArray<Mutant> = [
  {
    name: "dials have no limit in number",
    file: "src/layers/peers/Dialer.ts",
    text: "(effect) => permits.withPermit(effect)",
    replacement: "(effect) => effect",
    specs: ["test/layers/peers/Dialer.test.ts"]
  },
  {
    name: "a dial that nobody waits for goes on",
    file: "src/layers/peers/Dialer.ts",
    text: "--dial.waiters > 0 || dial.hasAnswered ? Effect.void : Fiber.interrupt(dial.fiber)",
    replacement: "--dial.waiters > -9 || dial.hasAnswered ? Effect.void : Fiber.interrupt(dial.fiber)",
    specs: ["test/layers/peers/Dialer.test.ts"]
  },
  {
    name: "a dial ends when its first caller gives it up",
    file: "src/layers/peers/Dialer.ts",
    text: "--dial.waiters > 0 || dial.hasAnswered ?",
    replacement: "--dial.waiters < 0 || dial.hasAnswered ?",
    specs: ["test/layers/peers/Dialer.test.ts"]
  },
  {
    name: "the peer that answered at an address stays wanted",
    file: "src/layers/peers/Dialer.ts",
    text: "for (const end of dials.answered.values()) end()",
    replacement: "",
    specs: ["test/layers/peers/Dialer.test.ts"]
  },
  {
    name: "a dial takes as long as it likes",
    file: "src/layers/peers/Dialer.ts",
    text: "duration: config.dialTimeout,",
    replacement: "duration: \"10 hours\",",
    specs: ["test/layers/peers/Dialer.test.ts"]
  },
  {
    name: "a connection that is not admitted stays open",
    file: "src/layers/peers/Dialer.ts",
    text: "        yield* connection.close\n        if (cause._tag",
    replacement: "        if (cause._tag",
    specs: ["test/layers/peers/Dialer.test.ts"]
  },
  {
    name: "a connection that the table no longer wants stays open",
    file: "src/layers/peers/Dialer.ts",
    text: "? Effect.andThen(made.connection.close, first)",
    replacement: "? first",
    specs: ["test/layers/peers/Dialer.test.ts"]
  },
  {
    name: "a failed dial is not told",
    file: "src/layers/peers/Dialer.ts",
    text: "    yield* events.publish(new DialFailed({ target: showTarget(target), reason, message: error.message }))\n",
    replacement: "",
    specs: ["test/layers/peers/SupervisedConnectionManager.test.ts"]
  },
  {
    name: "a dial that this node would refuse is begun",
    file: "src/layers/peers/Dialer.ts",
    text: "    if (reason === undefined) return\n    book.noteRefusal",
    replacement: "    if (reason !== undefined) return\n    book.noteRefusal",
    specs: ["test/layers/peers/Dialer.test.ts"]
  },
  {
    name: "an address of a stranger is dialled unguarded",
    file: "src/layers/peers/Dialer.ts",
    text: "if (!(yield* isGuarded(address))) candidates.unshift(address)",
    replacement: "candidates.unshift(address)",
    specs: ["test/layers/peers/Dialer.test.ts"]
  },
  {
    name: "a second caller dials again",
    file: "src/layers/peers/Dialer.ts",
    text: "    if (running !== undefined) {\n      running.waiters++\n",
    replacement: "    if (running !== undefined && running.waiters < 0) {\n      running.waiters++\n",
    specs: ["test/layers/peers/Dialer.test.ts"]
  },
  {
    name: "a refusal does not flap",
    file: "src/layers/peers/PeerRecord.ts",
    text: "export const refused = (peer: PeerRecord): void => {\n  draft(peer).flapping = true\n}",
    replacement: "export const refused = (_: PeerRecord): void => {}",
    specs: ["test/layers/peers/Supervisor.test.ts"]
  },
  {
    name: "the supervisor forgets that a peer refused",
    file: "src/layers/peers/Supervisor.ts",
    text: "if (PeerRecord.isRefusal(error)) PeerRecord.refused(peer)",
    replacement: "",
    specs: ["test/layers/peers/Supervisor.test.ts"]
  },
  {
    name: "a refusal asks the DHT",
    file: "src/layers/peers/Supervisor.ts",
    text: "if (interest === \"kept\" && !PeerRecord.isRefusal(error)) {",
    replacement: "if (interest === \"kept\") {",
    specs: ["test/layers/peers/Supervisor.test.ts"]
  },
  {
    name: "a wanted peer asks the DHT",
    file: "src/layers/peers/Supervisor.ts",
    text: "if (interest === \"kept\" && !PeerRecord.isRefusal(error)) {",
    replacement: "if (!PeerRecord.isRefusal(error)) {",
    specs: ["test/layers/peers/Supervisor.test.ts"]
  },
  {
    name: "a change shortens the delay",
    file: "src/layers/peers/Supervisor.ts",
    text: "while (PeerRecord.isDesired(peer) && !peer.hurried && !(yield* table.has(peer.id))) {",
    replacement: "if (PeerRecord.isDesired(peer) && !peer.hurried && !(yield* table.has(peer.id))) {",
    specs: ["test/layers/peers/Supervisor.test.ts"]
  },
  {
    name: "a policy's end leaves the peer wanted",
    file: "src/layers/peers/Supervisor.ts",
    text: "      PeerRecord.givenUp(peer)\n",
    replacement: "",
    specs: ["test/layers/peers/Supervisor.test.ts"]
  },
  {
    name: "a fresh start keeps the backoff",
    file: "src/layers/peers/PeerRecord.ts",
    text: "  const record = draft(peer)\n  resetBackoff(peer)\n  record.failsNextDial = false\n",
    replacement: "  const record = draft(peer)\n  record.failsNextDial = false\n",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "a fresh start keeps the loss",
    file: "src/layers/peers/PeerRecord.ts",
    text: "  resetBackoff(peer)\n  record.failsNextDial = false\n",
    replacement: "  resetBackoff(peer)\n",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "a fresh start keeps flapping",
    file: "src/layers/peers/PeerRecord.ts",
    text: "  record.flapping = false\n  record.hurried = true",
    replacement: "  record.hurried = true",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "a fresh start waits",
    file: "src/layers/peers/PeerRecord.ts",
    text: "  record.flapping = false\n  record.hurried = true",
    replacement: "  record.flapping = false",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "an early loss is dialled at once",
    file: "src/layers/peers/PeerRecord.ts",
    text: "    record.flapping = true\n    record.failsNextDial = true",
    replacement: "    record.flapping = true",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "a lasting connection earns nothing",
    file: "src/layers/peers/PeerRecord.ts",
    text: "lasted >= stableMillis",
    replacement: "lasted >= 2 * stableMillis",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "our own end leaves the peer wanted",
    file: "src/layers/peers/PeerRecord.ts",
    text: "  if (end.isOurs) {\n    record.wanted = false\n",
    replacement: "  if (end.isOurs) {\n",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "discovery goes on after our own end",
    file: "src/layers/peers/PeerRecord.ts",
    text: "    record.wanted = false\n    rests(peer, restUntil)",
    replacement: "    record.wanted = false",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "a parting goodbye leaves the peer wanted",
    file: "src/layers/peers/PeerRecord.ts",
    text: "if (isParting(reason)) draft(peer).wanted = false",
    replacement: "",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "every goodbye is a parting",
    file: "src/layers/peers/PeerRecord.ts",
    text: "reason === \"idle\" || reason === \"disconnect\" || reason === \"blocked\"",
    replacement: "reason !== undefined",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "a rest can be shortened",
    file: "src/layers/peers/PeerRecord.ts",
    text: "record.restUntil = Math.max(record.restUntil, until)",
    replacement: "record.restUntil = until",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "asking leaves a peer suspended",
    file: "src/layers/peers/PeerRecord.ts",
    text: "  const record = draft(peer)\n  record.suspended = false\n",
    replacement: "  const record = draft(peer)\n",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "a disconnected peer stays wanted",
    file: "src/layers/peers/PeerRecord.ts",
    text: "  record.wanted = false\n  record.discovered = false\n  record.suspended = true",
    replacement: "  record.discovered = false\n  record.suspended = true",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "a blocked peer is desired",
    file: "src/layers/peers/PeerRecord.ts",
    text: "!peer.suspended && !isBlocked(peer) && (peer.keeps > 0 || peer.wanted)",
    replacement: "!peer.suspended && (peer.keeps > 0 || peer.wanted)",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "a peer that only dialled in is a way out of isolation",
    file: "src/layers/peers/PeerRecord.ts",
    text: "if (source !== \"identify\") return true",
    replacement: "return true",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "a peer that parted is a way out of isolation",
    file: "src/layers/peers/PeerRecord.ts",
    text: "if (peer.suspended || peer.parted || isBlocked(peer)) return false",
    replacement: "if (peer.suspended || isBlocked(peer)) return false",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "a second end of a keep counts",
    file: "src/layers/peers/PeerRecord.ts",
    text: "    if (isOver) return\n",
    replacement: "",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "a peer has all its dials in the record",
    file: "src/layers/peers/PeerRecord.ts",
    text: "[one, ...others].slice(0, outcomesMax)",
    replacement: "[one, ...others].slice(0, 1e6)",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "a kept peer's retry is counted in no attempt",
    file: "src/layers/peers/PeerRecord.ts",
    text: "  draft(peer).attempts++\n",
    replacement: "",
    specs: ["test/layers/peers/PeerRecord.test.ts"]
  },
  {
    name: "a sighting hurries every second",
    file: "src/layers/peers/Sightings.ts",
    text: "const sightingMillis = 10_000",
    replacement: "const sightingMillis = 1_000",
    specs: ["test/layers/peers/Sightings.test.ts"]
  },
  {
    name: "a flapping peer is hurried by sightings",
    file: "src/layers/peers/Sightings.ts",
    text: "isSignOfLife && !peer.flapping &&",
    replacement: "isSignOfLife &&",
    specs: ["test/layers/peers/Sightings.test.ts"]
  },
  {
    name: "discovery dials above minPeers",
    file: "src/layers/peers/Sightings.ts",
    text: "(yield* table.size) + dialing >= config.minPeers",
    replacement: "(yield* table.size) + dialing >= 1e6",
    specs: ["test/layers/peers/Sightings.test.ts"]
  },
  {
    name: "dials under way do not count to minPeers",
    file: "src/layers/peers/Sightings.ts",
    text: "(yield* table.size) + dialing >= config.minPeers",
    replacement: "(yield* table.size) >= config.minPeers",
    specs: ["test/layers/peers/Sightings.test.ts"]
  },
  {
    name: "discovery dials a peer that rests",
    file: "src/layers/peers/Sightings.ts",
    text: "if (now < Math.max(peer.restUntil, peer.retryAt ?? 0) && !hasNews) return",
    replacement: "if (now < (peer.retryAt ?? 0) && !hasNews) return",
    specs: ["test/layers/peers/SupervisedConnectionManager.test.ts"]
  },
  {
    name: "discovery dials a peer that waits for its retry",
    file: "src/layers/peers/Sightings.ts",
    text: "if (now < Math.max(peer.restUntil, peer.retryAt ?? 0) && !hasNews) return",
    replacement: "if (now < peer.restUntil && !hasNews) return",
    specs: ["test/layers/peers/Sightings.test.ts"]
  },
  {
    name: "discovery dials a disconnected peer",
    file: "src/layers/peers/Sightings.ts",
    text: "if (peer.suspended) return",
    replacement: "",
    specs: ["test/layers/peers/Sightings.test.ts"]
  },
  {
    name: "a blocked peer is sighted",
    file: "src/layers/peers/Sightings.ts",
    text: "PeerRecord.isBlocked(peer) || (yield* table.has(peer.id))",
    replacement: "yield* table.has(peer.id)",
    specs: ["test/layers/peers/Sightings.test.ts"]
  },
  {
    name: "this node is sighted",
    file: "src/layers/peers/Sightings.ts",
    text: "if (sighting.id === transport.localPeer) return",
    replacement: "",
    specs: ["test/layers/peers/Sightings.test.ts"]
  },
  {
    name: "a change of the network ends no wait",
    file: "src/layers/peers/SupervisedConnectionManager.ts",
    text: "          PeerRecord.startAnew(peer)\n          yield* wake(peer)",
    replacement: "          PeerRecord.startAnew(peer)",
    specs: ["test/layers/peers/SupervisedConnectionManager.test.ts"]
  },
  {
    name: "an address that is kept does not hear of a new network",
    file: "src/layers/peers/SupervisedConnectionManager.ts",
    text: "yield* networkChanged.beat",
    replacement: "yield* Effect.void",
    specs: ["test/layers/peers/SupervisedConnectionManager.test.ts"]
  },
  {
    name: "a connect of this node itself is dialled",
    file: "src/layers/peers/SupervisedConnectionManager.ts",
    text: "if (id === transport.localPeer) return yield* self(target)\n      const peer",
    replacement: "const peer",
    specs: ["test/layers/peers/SupervisedConnectionManager.test.ts"]
  },
  {
    name: "a failed connect leaves the peer wanted",
    file: "src/layers/peers/SupervisedConnectionManager.ts",
    text: "if (Exit.isSuccess(exit)) PeerRecord.wanted(peer)",
    replacement: "PeerRecord.wanted(peer)",
    specs: ["test/layers/peers/SupervisedConnectionManager.test.ts"]
  },
  {
    name: "the caller's addresses are not tried after another's dial",
    file: "src/layers/peers/SupervisedConnectionManager.ts",
    text: "? dialer.dialPeer(peer)\n            : Effect.fail(error))",
    replacement: "? Effect.fail(error)\n            : Effect.fail(error))",
    specs: ["test/layers/peers/SupervisedConnectionManager.test.ts"]
  },
  {
    name: "a disconnect leaves the dial",
    file: "src/layers/peers/SupervisedConnectionManager.ts",
    text: "    yield* changed(peer)\n    yield* dialer.abort(id)\n    yield* table.remove(id, \"disconnect\")",
    replacement: "    yield* changed(peer)\n    yield* table.remove(id, \"disconnect\")",
    specs: ["test/layers/peers/SupervisedConnectionManager.test.ts"]
  },
  {
    name: "a block leaves the connection",
    file: "src/layers/peers/SupervisedConnectionManager.ts",
    text: "yield* table.remove(id, \"blocked\")",
    replacement: "yield* Effect.void",
    specs: ["test/layers/peers/SupervisedConnectionManager.test.ts"]
  },
  {
    name: "the end of a keep begins no idle time",
    file: "src/layers/peers/SupervisedConnectionManager.ts",
    text: "hasFallen ? table.interestFell(id) : Effect.void",
    replacement: "Effect.void",
    specs: ["test/layers/peers/SupervisedConnectionManager.test.ts"]
  },
  {
    name: "a peer that restarts has the backoff of a former outage",
    file: "src/layers/peers/PeerRecord.ts",
    text: "if (end.remoteReason === \"shutdown\" && hasLasted) resetBackoff(peer)",
    replacement: "",
    specs: ["test/sim/stranded.test.ts"]
  }
]
