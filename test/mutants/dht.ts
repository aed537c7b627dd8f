import type { Mutant } from "./Mutant.ts"

const crowding = "src/layers/dht/lookup/Crowding.ts"
const crowdingSpecs = ["test/layers/dht/lookup/Crowding.test.ts"] as const
const doubts = "src/layers/dht/lookup/Doubts.ts"
const doubtsSpecs = ["test/layers/dht/lookup/Doubts.test.ts"] as const
const lookup = "src/layers/dht/lookup/Lookup.ts"
const lookupSpecs = ["test/layers/dht/lookup/Lookup.test.ts"] as const
const valueRecords = "src/layers/dht/serve/ValueRecords.ts"
const valueRecordsSpecs = ["test/layers/dht/serve/ValueRecords.test.ts"] as const
const naming = "src/layers/dht/serve/Naming.ts"
const namingSpecs = ["test/layers/dht/serve/Naming.test.ts"] as const
const serverFile = "src/layers/dht/serve/Server.ts"
const serverSpecs = ["test/layers/dht/serve/Server.test.ts"] as const
const nodesFile = "src/layers/dht/wire/Nodes.ts"
const nodesSpecs = ["test/layers/dht/wire/Nodes.test.ts"] as const
const wishes = "src/layers/dht/provide/Wishes.ts"
const provided = "src/layers/dht/provide/ProvidedKeys.ts"
const batches = "src/layers/dht/provide/Batches.ts"
const storeFile = "src/layers/dht/provide/Store.ts"
const valuesFile = "src/layers/dht/values/Values.ts"
const shared = "src/layers/dht/lookup/SharedLookups.ts"
const providedSpecs = ["test/layers/dht/provide/ProvidedKeys.test.ts"] as const
const storeSpecs = ["test/layers/dht/provide/Store.test.ts"] as const
const valuesSpecs = ["test/layers/dht/values/Values.test.ts"] as const
const sharedSpecs = ["test/layers/dht/lookup/SharedLookups.test.ts"] as const

export const dhtMutants: ReadonlyArray<Mutant> = [
  {
    name: "an announcement that gave few copies is repeated in an hour",
    file: "src/layers/dht/provide/Times.ts",
    text: "Math.max(now - since, fewMillis)",
    replacement: "fewMillisMax",
    specs: ["test/layers/dht/provide/ProvidedKeys.test.ts"]
  },
  {
    name: "an announcement that gave few copies is repeated each minute",
    file: "src/layers/dht/provide/Batches.ts",
    text: "const since = intent.few?.since ?? now",
    replacement: "const since = now",
    specs: ["test/layers/dht/provide/ProvidedKeys.test.ts"]
  },
  {
    name: "a new key takes those with few copies along",
    file: "src/layers/dht/provide/Times.ts",
    text: "key.slackMillis = wait / 8",
    replacement: "",
    specs: ["test/layers/dht/provide/Times.test.ts"]
  },
  {
    name: "peers that are forgotten in a cut take no copies after it",
    file: "src/layers/dht/provide/Batches.ts",
    text: "Math.max(takers.count(), remembered)",
    replacement: "takers.count()",
    specs: ["test/layers/dht/provide/ProvidedKeys.test.ts"]
  },
  {
    name: "peers that are gone are missed for ever",
    file: "src/layers/dht/provide/Batches.ts",
    text: "now - since > believedMillis",
    replacement: "false",
    specs: ["test/layers/dht/provide/ProvidedKeys.test.ts"]
  },
  {
    name: "an address that cannot be printed ends a lookup",
    file: "src/layers/dht/libp2p/Peers.ts",
    text: "const text = textOf(address)",
    replacement: "const text = address.toString() as Multiaddr",
    specs: ["test/layers/dht/Engine.live.test.ts"]
  },
  {
    name: "a server keeps addresses that cannot be printed",
    file: naming,
    text: "    const address = readable(bytes)\n",
    replacement: "    const address = multiaddr(bytes).toString() as Multiaddr\n",
    specs: [...namingSpecs, ...serverSpecs]
  },
  {
    name: "a server names private addresses of strangers",
    file: naming,
    text: "isDialable(guard, judged, interfaces, tellers)",
    replacement: "isDialable(() => true, judged, interfaces, tellers)",
    specs: [...namingSpecs, ...serverSpecs]
  },
  {
    name: "a server names nobody's private address",
    file: naming,
    text: "isDialable(guard, judged, interfaces, tellers)",
    replacement: "isDialable(guard, judged, interfaces, [])",
    specs: [...namingSpecs, ...serverSpecs]
  },
  {
    name: "a server names no public address of QUIC",
    file: naming,
    text: "(?:tcp|udp)",
    replacement: "(?:tcp)",
    specs: namingSpecs
  },
  {
    name: "a server names private addresses by the networks in which it was before",
    file: naming,
    text: "rule = next",
    replacement: "void next",
    specs: namingSpecs
  },
  {
    name: "a guard that throws ends the stream of who asks",
    file: naming,
    text: "run(Effect.die(error))",
    replacement: "throw error",
    specs: namingSpecs
  },
  {
    name: "a server keeps private addresses that a stranger announces",
    file: serverFile,
    text: "const isNamed = (address: Uint8Array) => options.isNamed(address, from.tellers)",
    replacement: "const isNamed = (address: Uint8Array) => options.isNamed(address, [\"/ip4/10.0.0.9\" as Multiaddr])",
    specs: serverSpecs
  },
  {
    name: "a server keeps private addresses that identify told",
    file: serverFile,
    text: "kept(options.addressesOf(from.bytes), isNamed)",
    replacement: "kept(options.addressesOf(from.bytes), () => true)",
    specs: serverSpecs
  },
  {
    name: "the handler does not tell where a sender is seen",
    file: "src/layers/dht/libp2p/Handler.ts",
    text: "tellers: [withoutPeer(connection.remoteAddr.toString() as Multiaddr)]",
    replacement: "tellers: []",
    specs: ["test/layers/dht/libp2p/Handler.live.test.ts", "test/layers/dht/libp2p/KadDht.live.test.ts"]
  },
  {
    name: "the routing table names all that its peers tell",
    file: "src/layers/dht/libp2p/Peers.ts",
    text: "node.encodedBy(naming())",
    replacement: "node.encodedBy(() => true)",
    specs: ["test/layers/dht/libp2p/KadDht.live.test.ts"]
  },
  {
    name: "what is named of a peer outlives a new teller",
    file: nodesFile,
    text: "this.near.set(text, [...tellers, teller].slice(-tellersMax))\n      this.namedBy = undefined",
    replacement: "this.near.set(text, [...tellers, teller].slice(-tellersMax))",
    specs: nodesSpecs
  },
  {
    name: "a peer is encoded anew for each answer",
    file: nodesFile,
    text: "if (this.namedBy === rule) return this.body",
    replacement: "if (this.namedBy === rule && this.body === undefined) return this.body",
    specs: nodesSpecs
  },
  {
    name: "another rule gets what the last one let be named",
    file: nodesFile,
    text: "if (this.namedBy === rule) return this.body",
    replacement: "if (this.namedBy !== undefined) return this.body",
    specs: nodesSpecs
  },
  {
    name: "an address has as many tellers as there are",
    file: nodesFile,
    text: "[...tellers, teller].slice(-tellersMax)",
    replacement: "[...tellers, teller]",
    specs: nodesSpecs
  },
  {
    name: "the id of a node is kept letter by letter",
    file: "src/layers/dht/wire/Nodes.ts",
    text: "flat(base58btc.baseEncode(this.bytes))",
    replacement: "base58btc.baseEncode(this.bytes)",
    specs: ["test/live/memory.live.test.ts"]
  },
  {
    name: "a sender of values has no share",
    file: valueRecords,
    text: "if (sender !== own && sender.weight + grows > perSenderMax)",
    replacement: "if (sender !== own && sender.weight + grows > Infinity)",
    specs: valueRecordsSpecs
  },
  {
    name: "a subnet has no share of the values",
    file: valueRecords,
    text: "sender.subnet.weight + grows > perSubnetMax",
    replacement: "sender.subnet.weight + grows > Infinity",
    specs: valueRecordsSpecs
  },
  {
    name: "a long value counts as a short one",
    file: valueRecords,
    text: "Math.max(1, Math.ceil(record.length * recordsMax / bytesMax))",
    replacement: "1",
    specs: valueRecordsSpecs
  },
  {
    name: "a value belongs to who has put it last",
    file: valueRecords,
    text: "from === own || before.sender.key === from.key ?",
    replacement: "true ?",
    specs: valueRecordsSpecs
  },
  {
    name: "a value that its sender lets go does not pass to the next",
    file: valueRecords,
    text: "if (other !== name) letGo(other)",
    replacement: "if (other !== name) forget(other)",
    specs: valueRecordsSpecs
  },
  {
    name: "values of a sender stay in the subnet that it had first",
    file: valueRecords,
    text: "if (sender.subnetName === subnet) return sender",
    replacement: "return sender",
    specs: valueRecordsSpecs
  },
  {
    name: "a full store of values lets the oldest of all go",
    file: valueRecords,
    text: "const [oldest] = other?.names ?? []",
    replacement: "const [oldest] = stored.keys()",
    specs: valueRecordsSpecs
  },
  {
    name: "rules of a namespace that throw reset the stream, unseen",
    file: "src/layers/dht/Engine.ts",
    text: "namespaces.map(supervised(yield* Supervised.told))",
    replacement: "namespaces",
    specs: ["test/sim/defects.test.ts"]
  },
  {
    name: "rules of a namespace that throw refuse a value, unseen",
    file: "src/layers/dht/Engine.ts",
    text: "told(Supervised.report(\"the rules of a namespace\", cause))",
    replacement: "Effect.void",
    specs: ["test/sim/defects.test.ts"]
  },
  {
    name: "rules that judge which value wins may throw",
    file: "src/layers/dht/Engine.ts",
    text: "safe(() => replaces(path, bytes, other))",
    replacement: "replaces(path, bytes, other)",
    specs: ["test/sim/defects.test.ts"]
  },
  {
    name: "a key that is stopped ends the announcement of the others with it",
    file: batches,
    text: "[...batch.intents.values()].some(isCurrent)",
    replacement: "false",
    specs: providedSpecs
  },
  {
    name: "a batch of keys that are all stopped goes on",
    file: batches,
    text: "[...batch.intents.values()].some(isCurrent)",
    replacement: "true",
    specs: providedSpecs
  },
  {
    name: "a server tells no store who puts a value",
    file: "src/layers/dht/serve/Server.ts",
    text: "Elapsed.millisUnsafe(clock), from)).pipe(",
    replacement: "Elapsed.millisUnsafe(clock))).pipe(",
    specs: ["test/layers/dht/serve/Server.test.ts"]
  },
  {
    name: "small networks keep records with the closest nodes alone",
    file: crowding,
    text: "if (isSmall && closest.length >= count)",
    replacement: "if (isSmall && closest.length < 0)",
    specs: ["test/sim/crowd.test.ts"]
  },
  {
    name: "newcomers have no more than a spread",
    file: crowding,
    text: "        if (estimate === undefined) {",
    replacement: "        if (estimate !== undefined) {",
    specs: crowdingSpecs
  },
  {
    name: "large networks keep records with a spread, too",
    file: crowding,
    text: "estimate < smallMax",
    replacement: "estimate > 0",
    specs: crowdingSpecs
  },
  {
    name: "small networks are never crowded",
    file: crowding,
    text: "const networkSizeMin = 20",
    replacement: "const networkSizeMin = 100",
    specs: crowdingSpecs
  },
  {
    name: "a spread takes the peers that come first",
    file: crowding,
    text: ".sort((a, b) => a.at - b.at)",
    replacement: "",
    specs: crowdingSpecs
  },
  {
    name: "a spread leaves connected peers out",
    file: crowding,
    text: "else if (connected.length < connectedMax && isAtHand(peer)) connected.push(peer)",
    replacement: "",
    specs: crowdingSpecs
  },
  {
    name: "the status shows no crowded keys",
    file: "src/layers/dht/provide/Batches.ts",
    text: "intent.isCrowded = isCrowded",
    replacement: "intent.isCrowded = false",
    specs: ["test/sim/crowd.test.ts"]
  },
  {
    name: "a lookup waits for doubtful peers as for others",
    file: lookup,
    text: "return isAny && (this.answered === 0 || this.now() < this.doubtfulUntil())",
    replacement: "return isAny",
    specs: lookupSpecs
  },
  {
    name: "a lookup waits for no doubtful peer",
    file: lookup,
    text: "return isAny && (this.answered === 0 || this.now() < this.doubtfulUntil())",
    replacement: "return false",
    specs: lookupSpecs
  },
  {
    name: "doubtful peers take the turns of others",
    file: lookup,
    text: "if (isDoubtful && state !== \"answered\") continue",
    replacement: "",
    specs: lookupSpecs
  },
  {
    name: "a lookup asks every peer that is invented",
    file: lookup,
    text: "this.misledAsked < this.count / misledPart",
    replacement: "true",
    specs: lookupSpecs
  },
  {
    name: "the answer of a doubtful peer prolongs the lookup",
    file: lookup,
    text: "if (!candidate.isDoubtful || this.answered === 0) this.heardAt = this.now()",
    replacement: "this.heardAt = this.now()",
    specs: lookupSpecs
  },
  {
    name: "peers that are known to be silent tell against honest peers",
    file: lookup,
    text: "namedBy === undefined || isSilent) return",
    replacement: "namedBy === undefined) return",
    specs: lookupSpecs
  },
  {
    name: "what a misleading peer names is doubtful also when others name it",
    file: lookup,
    text: "candidate.isDoubtful = candidate.isSilent",
    replacement: "candidate.isDoubtful = true",
    specs: lookupSpecs
  },
  {
    name: "a silent peer is doubted for ever longer",
    file: doubts,
    text: "const millis = Math.min(doubtMillisMax,",
    replacement: "const millis = Math.max(0,",
    specs: doubtsSpecs
  },
  {
    name: "a peer that speaks and never answers is forgiven again and again",
    file: doubts,
    text: "if (before?.times === 1) silent",
    replacement: "if (before !== undefined) silent",
    specs: doubtsSpecs
  },
  {
    name: "an answer is not forgiven",
    file: doubts,
    text: "answered: (key) => void silent.delete(key),",
    replacement: "answered: () => {},",
    specs: doubtsSpecs
  },
  {
    name: "silence that a lookup has interrupted is not remembered",
    file: "src/layers/dht/Engine.ts",
    text: "isSilence(failed.value, isSlow) : isSlow)",
    replacement: "isSilence(failed.value, isSlow) : false)",
    specs: ["test/layers/dht/Engine.live.test.ts"],
    only: "waits for 12 of 17 peers"
  },
  {
    name: "the sender of many provider records does not give way",
    file: "src/layers/dht/serve/Shares.ts",
    text: "weightOf(sender) > weightOf(heaviest)",
    replacement: "weightOf(sender) < weightOf(heaviest)",
    specs: ["test/layers/dht/serve/ProviderRecords.test.ts"]
  },
  {
    name: "provided keys that the disk did not give are written over",
    file: "src/layers/dht/provide/Store.ts",
    text: "return error === undefined ? store.set(name, text) : Effect.fail(error)",
    replacement: "return error === undefined ? store.set(name, text) : store.set(name, text)",
    specs: ["test/layers/dht/provide/Store.test.ts"]
  },
  {
    name: "entries of provided keys that were removed stay away",
    file: "src/layers/dht/provide/Store.ts",
    text: "if (!isThere) dirty.add(part)",
    replacement: "if (isThere) dirty.add(part)",
    specs: ["test/layers/dht/provide/Store.test.ts"]
  },
  {
    name: "a wish of startProviding is not saved",
    file: wishes,
    text: "    if (intent.isLasting) {",
    replacement: "    if (intent.ttlSeconds === -1) {",
    specs: providedSpecs
  },
  {
    name: "a key is announced before it is saved",
    file: provided,
    text: "if (intent.isSaving) continue",
    replacement: "",
    specs: providedSpecs
  },
  {
    name: "a wish does not wait for a save under way",
    file: wishes,
    text: "isSaved ? alone(key, record(wish)) : record(wish)",
    replacement: "record(wish)",
    specs: providedSpecs
  },
  {
    name: "a wish that cannot be saved stands",
    file: wishes,
    text: "if (!isHeld(kept)) return",
    replacement: "if (kept.copies < 0) return",
    specs: providedSpecs
  },
  {
    name: "the first of two scopes ends a wish",
    file: wishes,
    text: "if (left > 0) scopes.set(key, left)",
    replacement: "if (left > 1) scopes.set(key, left)",
    specs: providedSpecs
  },
  {
    name: "a stopped key is provided until its end is saved",
    file: wishes,
    text: "if (!isHeld(intent)) intents.remove(key)",
    replacement: "",
    specs: providedSpecs
  },
  {
    name: "a node goes on to say that it provides a stopped key",
    file: provided,
    text: "names.delete(nameOf(key))",
    replacement: "",
    specs: providedSpecs
  },
  {
    name: "startProviding does not wait for copies",
    file: provided,
    text: "Effect.timeoutOption(Deferred.await(waiter), \"1 second\")",
    replacement: "Effect.timeoutOption(Deferred.await(waiter), 0)",
    specs: providedSpecs
  },
  {
    name: "startProviding waits for copies without end",
    file: provided,
    text: "Effect.timeoutOption(Deferred.await(waiter), \"1 second\")",
    replacement: "Deferred.await(waiter)",
    specs: providedSpecs
  },
  {
    name: "a batch goes on to write keys that are not wanted",
    file: batches,
    text: "isWanted: (key) => currentOf(key) !== undefined,",
    replacement: "isWanted: () => true,",
    specs: providedSpecs
  },
  {
    name: "a change that cannot be saved stays in the parts",
    file: storeFile,
    text: "put(key, h0, state.entry)",
    replacement: "",
    specs: storeSpecs
  },
  {
    name: "a change that cannot be saved stays in the journal",
    file: storeFile,
    text: "if (state.text === undefined) changes.delete(key)\n          else changes.set(key, state.text)",
    replacement: "",
    specs: storeSpecs
  },
  {
    name: "answers of getValue are not checked",
    file: valuesFile,
    text: "yield* namespace.check(path, bytes)\n          acknowledged++",
    replacement: "acknowledged++",
    specs: valuesSpecs
  },
  {
    name: "a failure of a lookup that began before forgetEmpty is cached",
    file: shared,
    text: "began === epoch && !Exit.hasInterrupts(exit)",
    replacement: "!Exit.hasInterrupts(exit)",
    specs: sharedSpecs
  },
  {
    name: "a failed lookup is not forgotten as empty",
    file: shared,
    text: "found.length === 0 || Exit.isFailure(exit)",
    replacement: "found.length === 0 && Exit.isSuccess(exit)",
    specs: sharedSpecs
  },
  {
    name: "the DHT forgets who told an address",
    file: "src/layers/dht/libp2p/Peers.ts",
    text: "const teller = peers.length === 0 ? undefined : nearOf(libp2pId(from))",
    replacement: "const teller = from === self ? nearOf(peerId) : undefined",
    specs: ["test/layers/dht/Engine.live.test.ts"],
    only: "tells of each address of a stranger which peers have named it"
  },
  {
    name: "an error of provide names startProviding",
    file: "src/layers/dht/provide/Wishes.ts",
    text: "isLasting ? \"startProviding\" : \"provide\"",
    replacement: "isLasting ? \"startProviding\" : \"startProviding\"",
    specs: ["test/layers/dht/provide/ProvidedKeys.test.ts"]
  },
  {
    name: "a node without a DHT names another function",
    file: "src/layers/dht/NoDht.ts",
    text: "off(\"provide\", key)",
    replacement: "off(\"startProviding\", key)",
    specs: ["test/live/parts.live.test.ts"]
  },
  {
    name: "a value without bytes is signed",
    file: "src/layers/dht/libp2p/PublishedValue.ts",
    text: "!Predicate.isUint8Array(input.value)",
    replacement: "input.value === null",
    specs: ["test/sim/arguments.test.ts"]
  }
]
