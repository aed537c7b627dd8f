/**
 * The `Dht` of a simulated node: nodes keep records for each other, and ask each other along their connections.
 *
 * A record goes to every node that can be reached over connections between nodes with this layer, again when more
 * nodes can be reached, and every 11 hours; it expires after 24 hours. With a `ttl` it expires after that, and is
 * renewed when half of it is over. A lookup asks the neighbours, then their neighbours, and so on; each step takes
 * two messages, and sees only the nodes reachable at that time. Unlike Kademlia it opens no connections and reports
 * no sightings to `Discovery`. A value goes to the nodes reachable when it is put; each node keeps the winning value
 * for 48 hours.
 */
import { Clock, DateTime, Duration, Effect, Latch, Layer, Stream } from "effect"
import * as Wishes from "../../layers/dht/provide/Wishes.ts"
import * as Progress from "../../layers/dht/provide/Progress.ts"
import { KadDhtPolicy, type KadDhtPolicyOptions } from "../../services/KadDhtPolicy.ts"
import * as PublishedValue from "../../layers/dht/libp2p/PublishedValue.ts"
import { compareDistance, positionOf } from "../../layers/dht/wire/Position.ts"
import * as Values from "../../layers/dht/values/Values.ts"
import { type ContentKey, toBytes } from "../../schema/Content.ts"
import { base58btc } from "multiformats/bases/base58"
import { DhtError, NoPeers, NotFound, QueryTimeout } from "../../schema/NetworkError.ts"
import type { PeerId, ToldAddresses } from "../../schema/Peer.ts"
import { type ProvideCycle, ProvideStatus } from "../../schema/ProvideStatus.ts"
import type { ValueRules } from "../../schema/ValueNamespace.ts"
import { Dht, type FindOptions, type ProvideOptions } from "../../services/Dht.ts"
import { Transport } from "../../services/Transport.ts"
import { signerOf } from "../network/SimIdentity.ts"
import { SimNetwork } from "../network/SimNetwork.ts"

/** The `Dht` whose nodes keep records for each other, and ask each other along their connections. */
export const make = Effect.gen(function*() {
  const network = yield* SimNetwork
  const { addresses, localPeer } = yield* Transport
  const nodes = nodesOf(network)
  const namespaces = yield* PublishedValue.namespaces
  const policy = yield* KadDhtPolicy
  const self: Node = {
    peer: localPeer,
    records: new Map(),
    values: new Map(),
    namespaces,
    says: Effect.map(addresses, (all) => ({
      id: localPeer,
      addresses: all.map((address) => ({ address, tellers: [] }))
    }))
  }
  const intents = new Map<ContentKey, Intent>()
  /** The nodes that have this node's records. */
  let holders = new Set<Node>()
  let hasNewcomers = false
  /** A key is due, and no node can take it. */
  let isPaused = false
  let lastCycle: ProvideCycle | undefined
  const changed = yield* Latch.make()

  yield* Effect.acquireRelease(
    Effect.sync(() => nodes.set(localPeer, self)),
    // A killed node's successor may have taken the name.
    () => Effect.sync(() => nodes.get(localPeer) === self && nodes.delete(localPeer))
  )

  const neighbours = (peer: PeerId): ReadonlyArray<Node> =>
    network.neighbours(peer).flatMap((neighbour) => {
      const node = nodes.get(neighbour)
      return node === undefined ? [] : [node]
    })

  /** The nodes that can be asked, by their number of steps from this node. */
  const waves = (): ReadonlyArray<ReadonlyArray<Node>> => {
    const found: Array<ReadonlyArray<Node>> = []
    const seen = new Set([self])
    for (let wave: ReadonlyArray<Node> = [self]; wave.length > 0;) {
      const next = new Set(wave.flatMap((node) => neighbours(node.peer)).filter((node) => !seen.has(node)))
      next.forEach((node) => seen.add(node))
      wave = [...next]
      if (wave.length > 0) found.push(wave)
    }
    return found
  }

  const progress = Progress.make(Effect.map(Clock.currentTimeMillis, (now) => {
    const queued = [...intents.values()].filter(({ dueAt }) => dueAt <= now)
    const alive = [...intents.values()].filter(({ until }) => now < until).map(({ copies }) => copies)
    return new ProvideStatus({
      keys: intents.size,
      queued: queued.length,
      announced: alive.length,
      crowded: 0,
      copies: {
        least: alive.length === 0 ? 0 : Math.min(...alive),
        mean: alive.length === 0 ? 0 : alive.reduce((sum, copies) => sum + copies, 0) / alive.length
      },
      ...lastCycle === undefined ? {} : { lastCycle },
      lag: Duration.millis(queued.reduce((lag, { dueAt }) => Math.max(lag, now - dueAt), 0)),
      ...waves().length === 0 ? { paused: "NoPeers" as const } : {}
    })
  }))

  const put = Effect.fnUntraced(function*(node: Node, keys: ReadonlyArray<ContentKey>) {
    const provider = yield* self.says
    const now = yield* Clock.currentTimeMillis
    for (const key of keys) {
      const intent = intents.get(key)
      if (intent === undefined) continue
      const records = node.records.get(key) ?? new Map<PeerId, Record>()
      node.records.set(key, records.set(localPeer, { provider, until: now + intent.validMillis }))
    }
  })

  /** Announces the keys that are due to all reachable nodes, and gives the time at which the next key is due. */
  const announce = Effect.gen(function*() {
    const from = yield* Clock.currentTimeMillis
    for (const intent of hasNewcomers ? intents.values() : []) intent.dueAt = Math.min(intent.dueAt, from)
    hasNewcomers = false
    const due = [...intents].flatMap(([key, { dueAt }]) => dueAt <= from ? [key] : [])
    const reachable = waves().flat()
    isPaused = due.length > 0 && reachable.length === 0
    if (isPaused) return Infinity
    if (due.length > 0) {
      yield* network.delay
      yield* Effect.forEach(reachable, (node) => put(node, due), { discard: true })
      holders = new Set(reachable)
      const now = yield* Clock.currentTimeMillis
      for (const key of due) {
        const intent = intents.get(key)
        if (intent === undefined) continue
        const renewal = Math.min(republishMillis, intent.validMillis / 2)
        Object.assign(intent, { dueAt: now + renewal, until: now + intent.validMillis, copies: reachable.length })
      }
      lastCycle = {
        at: DateTime.toUtc(DateTime.makeUnsafe(now)),
        duration: Duration.millis(now - from),
        keys: due.length,
        lookups: 1,
        messages: reachable.length
      }
      progress.changed()
    }
    return Math.min(...Array.from(intents.values(), ({ dueAt }) => dueAt))
  })

  yield* network.watch(() => {
    progress.changed()
    if (intents.size === 0) return
    const reachable = waves().flat()
    if (reachable.some((node) => !holders.has(node))) hasNewcomers = true
    if (hasNewcomers || (isPaused && reachable.length > 0)) changed.openUnsafe()
  })
  yield* Effect.gen(function*() {
    yield* changed.close
    const next = yield* announce
    const now = yield* Clock.currentTimeMillis
    yield* next === Infinity ? changed.await : Effect.timeoutOption(changed.await, Math.max(0, next - now))
  }).pipe(
    Effect.forever,
    Effect.forkScoped({ startImmediately: true })
  )

  /** This node, then the nodes one step away, and so on. Fails with `NoPeers` when there is no node to ask. */
  const lookup = (operation: DhtError["operation"], subject: string): Stream.Stream<Node, DhtError> =>
    Stream.suspend(() => {
      const asked = waves()
      if (asked.length === 0) return Stream.fail(nobody(operation, subject))
      const answers = Stream.fromIterable(asked).pipe(
        Stream.rechunk(1),
        Stream.tap(() => Effect.andThen(network.delay, network.delay)),
        Stream.flatMap((wave) => Stream.fromIterable(wave.filter((node) => network.reaches(localPeer, node.peer))))
      )
      return Stream.concat(Stream.succeed(self), answers)
    })

  const recordsOf = (node: Node, key: ContentKey): Effect.Effect<ReadonlyArray<ToldAddresses>> =>
    Effect.map(
      Clock.currentTimeMillis,
      (now) =>
        [...node.records.get(key)?.values() ?? []].filter(({ until }) => now < until).map(({ provider }) => provider)
    )

  const values = Values.make({
    namespaces,
    signer: signerOf(localPeer),
    local: (key) => valueOf(self, key),
    put: (key, bytes, count) =>
      Effect.gen(function*() {
        const reachable = waves().flat()
        if (reachable.length === 0) return yield* Effect.fail(nobody("putValue", keyText(key)))
        yield* network.delay
        yield* store(self, key, bytes)
        for (const node of reachable) {
          count.asked.add(node.peer)
          if (yield* store(node, key, bytes)) count.acknowledged.add(node.peer)
        }
        yield* network.delay
      }),
    get: (key) => {
      const asked: Array<Node> = []
      return lookup("getValue", keyText(key)).pipe(
        Stream.filter((node) => node !== self),
        Stream.mapEffect((node) => {
          asked.push(node)
          return Effect.map(valueOf(node, key), (bytes): Values.ValueAnswer<Node> => ({ from: node, bytes }))
        }),
        Stream.concat(Stream.sync((): Values.ValueAnswer<Node> => ({ closest: asked })))
      )
    },
    repair: (key, bytes, nodes) => Effect.forEach(nodes, (node) => store(node, key, bytes), { discard: true })
  })

  const want = Effect.fnUntraced(
    function*(key: ContentKey, options: ProvideOptions | undefined, wish: Partial<Wishes>) {
      const ttl = yield* Wishes.ttlOf(wish.isLasting === true ? "startProviding" : "provide", key, options)
      const validMillis = ttl === undefined ? validityMillis : Duration.toMillis(ttl)
      const dueAt = yield* Clock.currentTimeMillis
      const before = intents.get(key)
      const wishes = {
        isLasting: wish.isLasting ?? before?.isLasting ?? false,
        scopes: (before?.scopes ?? 0) + (wish.scopes ?? 0)
      }
      if (before?.validMillis === validMillis) return void Object.assign(before, wishes)
      intents.set(key, { until: 0, copies: 0, ...before, ...wishes, validMillis, dueAt })
      progress.changed()
      yield* changed.open
    }
  )

  const unwant = (key: ContentKey, wish: Partial<Wishes>) => {
    const intent = intents.get(key)
    if (intent === undefined) return
    intent.isLasting = wish.isLasting ?? intent.isLasting
    intent.scopes += wish.scopes ?? 0
    if (intent.isLasting || intent.scopes > 0) return
    intents.delete(key)
    progress.changed()
  }

  return Dht.of({
    ...values,
    startProviding: (key, options) => want(key, options, { isLasting: true }),
    stopProviding: (key) => Effect.sync(() => unwant(key, { isLasting: false })),
    provide: (key, options) =>
      Effect.acquireRelease(
        want(key, options, { scopes: 1 }),
        () => Effect.sync(() => unwant(key, { scopes: -1 }))
      ),
    provideStatus: progress.status,
    findProviders: (key, options) =>
      Stream.suspend(() => {
        const found = new Set<PeerId>([localPeer])
        return lookup("findProviders", key).pipe(
          Stream.mapEffect((node) => recordsOf(node, key)),
          Stream.flatMap(Stream.fromIterable),
          Stream.filter((provider) => !found.has(provider.id) && Boolean(found.add(provider.id))),
          within(key, policy, options)
        )
      }),
    closestPeers: (key) =>
      lookup("closestPeers", key).pipe(
        Stream.mapEffect((node) => node.says),
        Stream.runCollect,
        Effect.map((all) => {
          const target = positionOf(toBytes(key))
          return all.map((peer) => ({ peer, position: positionOf(idBytes(peer.id)) }))
            .sort((a, b) => compareDistance(a.position, b.position, target))
            .slice(0, closestMax).map(({ peer }) => peer)
        })
      ),
    tableSize: Effect.sync(() => waves().flat().length),
    refresh: Stream.runDrain(lookup("refresh", "")),
    findPeer: (peer) =>
      lookup("findPeer", peer).pipe(
        Stream.filter((node) => node.peer === peer),
        Stream.runHead,
        Effect.flatMap((found) =>
          found._tag === "Some"
            ? found.value.says
            : Effect.fail(new DhtError({ operation: "findPeer", subject: peer, reason: new NotFound({}) }))
        )
      )
  })
})

/** {@link make} as a Layer. */
export const layer: Layer.Layer<Dht, never, SimNetwork | Transport> = Layer.effect(Dht, make)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** How many nodes `closestPeers` gives: Kademlia's k. */
const closestMax = 20

const idBytes = (peer: PeerId): Uint8Array => base58btc.baseDecode(peer)

const republishMillis = Duration.toMillis("11 hours")
const validityMillis = Duration.toMillis("24 hours")

interface Wishes {
  /** Wished for by `startProviding`. */
  isLasting: boolean
  /** How many scopes of `provide` are open. */
  scopes: number
}

/** A key that this node provides. Times are milliseconds since the epoch. */
interface Intent extends Wishes {
  /** How long a record of the key lives. */
  readonly validMillis: number
  /** When the key is announced next. */
  dueAt: number
  /** When the records that were announced last expire. */
  until: number
  /** How many nodes have a record. */
  copies: number
}

interface Record {
  readonly provider: ToldAddresses
  readonly until: number
}

interface Node {
  readonly peer: PeerId
  readonly says: Effect.Effect<ToldAddresses>
  readonly records: Map<ContentKey, Map<PeerId, Record>>
  /** By the text of the key. */
  readonly values: Map<string, { readonly bytes: Uint8Array; readonly until: number }>
  readonly namespaces: ReadonlyArray<ValueRules>
}

const valueValidityMillis = Duration.toMillis("48 hours")

const keyText = (key: Uint8Array) => new TextDecoder().decode(key)

const nobody = (operation: DhtError["operation"], subject: string) =>
  new DhtError({ operation, subject, reason: new NoPeers({}) })

const valueOf = (node: Node, key: Uint8Array): Effect.Effect<Uint8Array | undefined> =>
  Effect.map(Clock.currentTimeMillis, (now) => {
    const stored = node.values.get(keyText(key))
    return stored !== undefined && now < stored.until ? stored.bytes : undefined
  })

/** Whether the node takes the value: it knows the namespace, and its stored value does not win. */
const store = (node: Node, key: Uint8Array, bytes: Uint8Array): Effect.Effect<boolean> =>
  Effect.gen(function*() {
    const found = Values.rulesOf(node.namespaces, key)
    if (found === undefined) return false
    yield* found.rules.check(found.path, bytes)
    const stored = yield* valueOf(node, key)
    if (stored !== undefined && (yield* found.rules.replaces(found.path, stored, bytes))) return false
    node.values.set(keyText(key), { bytes, until: (yield* Clock.currentTimeMillis) + valueValidityMillis })
    return true
  }).pipe(Effect.catch(() => Effect.succeed(false)))

/**
 * Ends the lookup of a key after `maxProviders`, and after `findTimeout`: with `QueryTimeout` when no provider has
 * been found by then. The policy says what the caller leaves out.
 */
const within =
  (key: ContentKey, policy: Pick<KadDhtPolicyOptions, "maxProviders" | "findTimeout">, options: FindOptions = {}) =>
  (providers: Stream.Stream<ToldAddresses, DhtError>): Stream.Stream<ToldAddresses, DhtError> =>
    Stream.suspend(() => {
      const after = Duration.fromInputUnsafe(options.findTimeout ?? policy.findTimeout)
      let isFound = false
      let isLate = false
      return providers.pipe(
        Stream.interruptWhen(Effect.andThen(Effect.sleep(after), Effect.sync(() => isLate = true))),
        Stream.mapArray((some) => {
          isFound = true
          return some
        }),
        Stream.concat(Stream.suspend(() =>
          isLate && !isFound
            ? Stream.fail(
              new DhtError({ operation: "findProviders", subject: key, reason: new QueryTimeout({ after }) })
            )
            : Stream.empty
        )),
        Stream.take(options.maxProviders ?? policy.maxProviders)
      )
    })

const networks = new WeakMap<SimNetwork["Service"], Map<PeerId, Node>>()

function nodesOf(network: SimNetwork["Service"]): Map<PeerId, Node> {
  const found = networks.get(network) ?? new Map<PeerId, Node>()
  networks.set(network, found)
  return found
}
