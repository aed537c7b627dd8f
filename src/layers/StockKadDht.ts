/**
 * The DHT on kad-dht's own queries and server: who provides a key, and where a peer is. [libp2p]
 *
 * What `KadDht` falls back to, and what `kadEngine: "stock"` asks for.
 *
 * What kad-dht leaves to its user is done here: a node that starts alone does not hang but answers `NoPeers`; the intent to provide a key
 * lives in the `KeyValueStore` rather than in libp2p's datastore, is announced as soon as somebody can take it, and again when the network
 * grows, when this node's addresses change, and before the copies expire; queries end with their readers.
 *
 * Gotchas
 * - Kademlia opens connections on its own: to the peers that a query passes, and to verify those it hears of.
 * - A copy is a message that was sent. Kademlia has no answer to it, so a server that drops the record (an address list that is empty, for
 *   plain js-libp2p a key that is no CID) goes unnoticed.
 * - The routing table of kad-dht keeps peers that went away. They are taken out when a query fails to reach them.
 */
import type { PeerId as Libp2pPeerId, PeerInfo } from "@libp2p/interface"
import { type KadDHT, kadDHT, type KadDHTComponents, passthroughMapper, type QueryEvent } from "@libp2p/kad-dht"
import { peerIdFromString } from "@libp2p/peer-id"
import { CODE_P2P } from "@multiformats/multiaddr"
import { Clock, Duration, Effect, FiberSet, Latch, Layer, Queue, Schedule, type Scope, Stream } from "effect"
import type { KeyValueStore } from "effect/persistence"
import { type ContentKey, type Provider, toBytes } from "../schema/Content.ts"
import { DhtError, type HostError, NoPeers, NotFound, QueryTimeout } from "../schema/NetworkError.ts"
import { type Multiaddr, type PeerAddresses, type PeerId, withoutPeer } from "../schema/Peer.ts"
import { Dht, type FindOptions } from "../services/Dht.ts"
import { Discovery } from "../services/Discovery.ts"
import { Identity } from "../services/Identity.ts"
import { NetworkConfig } from "../services/NetworkConfig.ts"
import { KadDhtPolicy } from "./KadDhtPolicy.ts"
import { type KadInternals, takeAnyKey, toKadKey } from "./KadKeys.ts"
import { type KadValueInternals, keepWinners, localValue, valueRules } from "./KadValues.ts"
import { type Components, Libp2pHost } from "./Libp2pHost.ts"
import * as LookupBudget from "./LookupBudget.ts"
import * as ProvidedKeys from "./ProvidedKeys.ts"
import { failed } from "./ProvidedKeys.ts"
import * as Values from "./Values.ts"

export const make: Effect.Effect<
  Dht["Service"],
  HostError,
  Libp2pHost | Identity | NetworkConfig | Discovery | KeyValueStore.KeyValueStore | Scope.Scope
> = Effect.gen(function*() {
  const host = yield* Libp2pHost
  const { kadProtocol, kadReplicationFactor } = yield* NetworkConfig
  const { announce: tell } = yield* Discovery
  const policy = yield* KadDhtPolicy
  const run = yield* FiberSet.makeRuntime()
  const namespaces = yield* Values.namespaces
  const signer = yield* Identity

  const dht = yield* host.attach("kad-dht", (components) => {
    const kad = kadDHT({
      protocol: kadProtocol,
      // Unset, it stays a client on private networks, and the default mapper leaves every routing table there empty.
      clientMode: false,
      peerInfoMapper: passthroughMapper,
      kBucketSize: kadReplicationFactor,
      initialQuerySelfInterval: 100,
      // Without it every query waits for a peer that may never come, and for a first query of libp2p's own. `ready` waits instead.
      allowQueryWithZeroPeers: true,
      ...valueRules(namespaces),
      // Only what cleans up after others: own records are announced by ProvidedKeys.
      reprovide: { interval: Duration.toMillis("1 hour"), threshold: 0, validity: Duration.toMillis("24 hours") }
      // libp2p keeps its services among the components, which their type does not say; the class that is returned is not exported.
    })(components as Components & KadDHTComponents) as AttachedKad
    takeAnyKey(kad, components)
    keepWinners(kad, namespaces)
    const sightings = recent(1024, Duration.toMillis("1 minute"))
    kad.addEventListener("peer", ({ detail }) => {
      const found = toAddresses(detail)
      if (found.addresses.length === 0 || detail.id.equals(components.peerId)) return
      if (sightings(found.id, found.addresses.join())) run(tell(found, "dht"))
    })
    return kad
  })
  // kad-dht leaves its handler registered when it stops, and would go on answering from an empty table.
  yield* Effect.addFinalizer(() => Effect.promise(async () => host.components.registrar.unhandle(kadProtocol)))

  const { addressManager, connectionManager, events, peerId, peerStore } = host.components
  const table = dht.routingTable
  const known = () => Array.from(table.kb.toIterable(), (peer) => peer.peerId.toString() as PeerId)

  // ----- asking

  const settled = yield* Latch.make()
  const changed = yield* Latch.make()

  /** The first peer introduces this node to those around it, so that a young node asks more than one. */
  const introduce = Effect.tryPromise(async (signal) => {
    for await (
      const _ of dht.getClosestPeers(peerId.toMultihash().bytes, { signal })
    ) { /* the peers met enter the table */ }
  }).pipe(
    Effect.timeoutOption("5 seconds"),
    Effect.catch((error) => Effect.logDebug("the lookup of this node's own neighbours failed", error)),
    Effect.andThen(settled.open),
    Effect.andThen(changed.open)
  )

  /**
   * Waits until there is somebody to ask: at once with a routing table, at most 2 s while a connected peer is still on its way into it.
   * A connection enters the table after identify and a ping.
   */
  const ready = Effect.fnUntraced(function*(operation: DhtError["operation"], subject: string) {
    const deadline = (yield* Clock.currentTimeMillis) + 2000
    while (table.size === 0) {
      if (!(yield* someoneSpeaks(host.components, kadProtocol)) || (yield* Clock.currentTimeMillis) >= deadline) {
        return yield* new DhtError({ operation, subject, reason: new NoPeers({}) })
      }
      yield* Effect.raceFirst(settled.await, Effect.sleep("50 millis"))
    }
    yield* Effect.timeoutOption(settled.await, "1 second")
  })

  /** One lookup, with what the next needs to know of it. `take` returns true when it has seen enough. */
  const ask = async (
    progress: Progress,
    events: AsyncIterable<QueryEvent>,
    take: (event: QueryEvent) => boolean,
    signal: AbortSignal
  ) => {
    for await (const event of events) {
      if (event.name === "DIAL_PEER") {
        progress.pending.add(event.peer.toString())
        progress.asked.add(event.peer.toString())
      }
      if (event.name === "PEER_RESPONSE") {
        progress.pending.delete(event.from.toString())
        if (!event.from.equals(peerId)) progress.answers++
        for (const { id } of event.closer) progress.heard.add(id.toString())
      }
      if (event.name === "QUERY_ERROR") {
        progress.pending.delete(event.from.toString())
        if (!signal.aborted) await forget(event.from, event.error)
      }
      if (take(event)) return
      progress.onEvent?.()
    }
  }

  /** Takes a peer that a query did not reach out of the routing table, which would keep it for ever. */
  const forget = async (peer: Libp2pPeerId, error: Error) => {
    // A dial that this node's own gate refused says nothing of the peer.
    if (isOwnRefusal(error) || connectionManager.getConnections(peer).length > 0) return
    await table.remove(peer)
  }

  /**
   * Whether another round would ask somebody new. In a young network the peers that the first round heard of are dialled and pinged
   * before they enter the table, so it waits for one of them.
   */
  const more = Effect.fnUntraced(function*(progress: Progress) {
    const self = peerId.toString()
    const isNew = () => known().some((id) => !progress.asked.has(id))
    const isHeard = [...progress.heard].some((id) => id !== self && !progress.asked.has(id))
    if (progress.asked.size >= kadReplicationFactor) return false
    if (isHeard) {
      const polls = Schedule.spaced("20 millis").pipe(Schedule.upTo({ duration: "300 millis" }))
      yield* Effect.repeat(Effect.sync(isNew), { schedule: polls, until: (found) => found })
    }
    return isNew()
  })

  const addressesOf = (id: Libp2pPeerId) =>
    Effect.promise(async () => {
      const peer = await peerStore.get(id).catch(() => undefined)
      const dialled = connectionManager.getConnections(id).filter((connection) => connection.direction === "outbound")
      const all = [
        ...dialled.map((connection) => connection.remoteAddr),
        ...(peer?.addresses ?? []).map((address) => address.multiaddr)
      ]
      return toAddresses({ id, multiaddrs: all })
    })

  const findProviders = (key: ContentKey, options?: FindOptions): Stream.Stream<Provider, DhtError> =>
    Stream.callback<Provider, DhtError>(Effect.fnUntraced(function*(queue) {
      const cid = toKadKey(key)
      yield* ready("findProviders", key)
      const seen = new Set([peerId.toString()])
      const progress = makeProgress()
      const round = Effect.tryPromise({
        try: (signal) =>
          ask(progress, dht.findProviders(cid, { signal }), (event) => {
            for (const provider of event.name === "PROVIDER" ? event.providers : []) {
              if (seen.has(provider.id.toString())) continue
              seen.add(provider.id.toString())
              Queue.offerUnsafe(queue, toAddresses(provider))
            }
            return false
          }, signal),
        catch: failed("findProviders", key)
      })
      const rounds = Effect.gen(function*() {
        yield* round
        for (let i = 0; i < 2 && (yield* more(progress)); i++) yield* round
        if (progress.answers === 0 && seen.size === 1) {
          return yield* new DhtError({ operation: "findProviders", subject: key, reason: new NoPeers({}) })
        }
      })
      yield* rounds
      yield* Queue.end(queue)
    })).pipe(LookupBudget.within(key, policy, options))

  const closestPeers = Effect.fn("Dht.closestPeers")(function*(key: ContentKey) {
    yield* ready("closestPeers", key)
    return yield* Effect.tryPromise({
      try: async (signal) => {
        const closest: Array<PeerAddresses> = []
        for await (const event of dht.getClosestPeers(toBytes(key), { signal })) {
          if (event.name === "FINAL_PEER" && !event.peer.id.equals(peerId)) closest.push(toAddresses(event.peer))
        }
        return closest
      },
      catch: failed("closestPeers", key)
    })
  })

  const findPeer = Effect.fn("Dht.findPeer")(function*(peer: PeerId) {
    const id = peerIdFromString(peer)
    if (id.equals(peerId)) return toAddresses({ id, multiaddrs: addressManager.getAddresses() })
    const local = yield* addressesOf(id)
    if (local.addresses.length === 0) return yield* askForPeer(peer)
    if (connectionManager.getConnections(id).length > 0) return local
    // It may have moved since it was connected, so what is known of it comes second.
    return yield* Effect.catch(askForPeer(peer), () => Effect.succeed(local))
  })

  const askForPeer = Effect.fnUntraced(function*(peer: PeerId) {
    const id = peerIdFromString(peer)
    yield* ready("findPeer", peer)
    const progress = makeProgress()
    const round = Effect.tryPromise({
      try: async (signal) => {
        let found: PeerAddresses | undefined
        const done = new AbortController()
        let timer: ReturnType<typeof setTimeout> | undefined
        // The query asks the peer itself when somebody names it without an address, and that dial looks the peer up again: each then waits
        // for the other until a timeout. Nobody else is left to answer.
        progress.onEvent = () => {
          clearTimeout(timer)
          if (progress.pending.size === 1 && progress.pending.has(peer)) timer = setTimeout(() => done.abort(), 500)
        }
        try {
          const either = AbortSignal.any([signal, done.signal])
          await ask(progress, dht.findPeer(id, { signal: either, useCache: false }), (event) => {
            if (event.name === "FINAL_PEER" && event.peer.multiaddrs.length > 0) found = toAddresses(event.peer)
            return found !== undefined
          }, either)
        } catch (cause) {
          if (!done.signal.aborted && nameOf(cause) !== "NotFoundError") throw cause
        } finally {
          clearTimeout(timer)
        }
        return found
      },
      catch: failed("findPeer", peer)
    })
    const after = Duration.fromInputUnsafe(policy.findTimeout)
    return yield* Effect.gen(function*() {
      let found = yield* round
      for (let i = 0; i < 2 && found === undefined && (yield* more(progress)); i++) found = yield* round
      if (found !== undefined) return found
      const reason = progress.answers === 0 ? new NoPeers({}) : new NotFound({})
      return yield* new DhtError({ operation: "findPeer", subject: peer, reason })
    }).pipe(Effect.timeoutOrElse({
      duration: after,
      orElse: () =>
        Effect.fail(new DhtError({ operation: "findPeer", subject: peer, reason: new QueryTimeout({ after }) }))
    }))
  })

  const values = Values.make({
    namespaces,
    signer,
    local: (key) => Effect.promise(() => localValue(dht, key)),
    put: (key, bytes, count) => {
      const subject = new TextDecoder().decode(key)
      return Effect.andThen(
        ready("putValue", subject),
        Effect.tryPromise({
          try: async (signal) => {
            for await (const event of dht.put(key, bytes, { signal }) as AsyncIterable<QueryEvent>) {
              if (event.name === "SEND_QUERY" && event.messageName === "PUT_VALUE") count.asked.add(event.to.toString())
              if (event.name === "QUERY_ERROR" && !signal.aborted) await forget(event.from, event.error)
              // Who has stored a value sends it back.
              if (
                event.name === "PEER_RESPONSE" && event.messageName === "PUT_VALUE" &&
                event.record !== undefined && Values.sameBytes(event.record.value, bytes)
              ) count.acknowledged.add(event.from.toString())
            }
          },
          catch: failed("putValue", subject)
          // What has been counted by then is what there is.
        }).pipe(Effect.timeoutOption(policy.findTimeout))
      )
    },
    get: (key) =>
      Stream.callback<Values.ValueAnswer<string>, DhtError>(Effect.fnUntraced(function*(queue) {
        const subject = new TextDecoder().decode(key)
        yield* ready("getValue", subject)
        const progress = makeProgress()
        const answered = new Set<string>()
        const round = Effect.tryPromise({
          try: (signal) =>
            ask(progress, dht.get(key, { signal }), (event) => {
              if (event.name !== "PEER_RESPONSE" || event.messageName !== "GET_VALUE") return false
              const from = event.from.toString()
              if (answered.has(from)) return false
              answered.add(from)
              Queue.offerUnsafe(queue, { from, bytes: event.record?.value })
              return false
            }, signal),
          catch: failed("getValue", subject)
        }).pipe(
          // kad-dht ends by sending the winner to those that had another, and fails when one of them does not take it.
          Effect.catch((error) => answered.size > 0 ? Effect.void : Effect.fail(error))
        )
        const rounds = Effect.gen(function*() {
          yield* round
          for (let i = 0; i < 2 && (yield* more(progress)); i++) yield* round
          if (answered.size === 0) {
            return yield* new DhtError({ operation: "getValue", subject, reason: new NoPeers({}) })
          }
        })
        const after = Duration.fromInputUnsafe(policy.findTimeout)
        yield* Effect.timeoutOrElse(rounds, {
          duration: after,
          orElse: () =>
            answered.size > 0
              ? Effect.void
              : Effect.fail(new DhtError({ operation: "getValue", subject, reason: new QueryTimeout({ after }) }))
        })
        yield* Queue.end(queue)
      }))
  })

  // New peers come in groups; only the first is not made to wait.
  const growth = yield* Queue.sliding<void>(1)
  yield* Effect.forkScoped(Effect.forever(
    Queue.take(growth).pipe(Effect.andThen(Effect.sleep("250 millis")), Effect.andThen(changed.open))
  ))
  const onPeerAdd = () => {
    if (table.size === 1) {
      settled.closeUnsafe()
      run(introduce)
      changed.openUnsafe()
    } else {
      Queue.offerUnsafe(growth, void 0)
    }
  }
  const onSelfUpdate = () => {
    changed.openUnsafe()
  }
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      table.addEventListener("peer:add", onPeerAdd)
      events.addEventListener("self:peer:update", onSelfUpdate)
      events.addEventListener("transport:listening", onSelfUpdate)
      events.addEventListener("peer:identify", onSelfUpdate)
      events.addEventListener("peer:disconnect", onSelfUpdate)
      // Peers may have come between the attachment and this line.
      if (table.size > 0) run(introduce)
    }),
    () =>
      Effect.sync(() => {
        table.removeEventListener("peer:add", onPeerAdd)
        events.removeEventListener("self:peer:update", onSelfUpdate)
        events.removeEventListener("transport:listening", onSelfUpdate)
        events.removeEventListener("peer:identify", onSelfUpdate)
        events.removeEventListener("peer:disconnect", onSelfUpdate)
      })
  )

  const { isProvided: _, ...providing } = yield* ProvidedKeys.make({
    announce: ProvidedKeys.oneByOne((key, sent) =>
      Effect.tryPromise(async (signal) => {
        // Asked for the key, this node answers with itself, and leaves itself out while the peer store lacks its addresses: libp2p enters
        // them a second after it has begun to listen.
        const multiaddrs = addressManager.getAddresses().map((address) => address.decapsulateCode(CODE_P2P))
        await peerStore.patch(peerId, { multiaddrs }, { signal })
        for await (const event of dht.provide(toKadKey(key), { signal })) {
          if (event.name === "PEER_RESPONSE" && event.messageName === "ADD_PROVIDER") {
            sent(event.from.toString() as PeerId)
          }
          if (event.name === "QUERY_ERROR" && !signal.aborted) await forget(event.from, event.error)
        }
      })
    ),
    withdraw: (key) => Effect.tryPromise(() => dht.cancelReprovide(toKadKey(key))),
    takers: known,
    hasTakers: Effect.suspend(() =>
      table.size > 0 ? Effect.succeed(true) : someoneSpeaks(host.components, kadProtocol)
    ),
    isConnected: () => connectionManager.getConnections().length > 0,
    addresses: () => addressManager.getAddresses().map(String),
    changed,
    copies: kadReplicationFactor,
    retry: policy.retry,
    republish: policy.republish
  })
  return Dht.of({ ...providing, ...values, findProviders, findPeer, closestPeers })
}).pipe(Effect.annotateLogs({ component: "dht" }))

/**
 * The DHT on the host's node. Provided keys outlive the process when the `KeyValueStore` does.
 */
export const layer: Layer.Layer<
  Dht,
  HostError,
  Libp2pHost | Identity | NetworkConfig | Discovery | KeyValueStore.KeyValueStore
> = Layer.effect(Dht, make)

/** Whether a connected peer speaks the protocol, or has not yet said what it speaks. */
export const someoneSpeaks = (
  { connectionManager, peerStore }: Pick<Components, "connectionManager" | "peerStore">,
  protocol: string
): Effect.Effect<boolean> =>
  Effect.promise(async () => {
    for (const connection of connectionManager.getConnections()) {
      const peer = await peerStore.get(connection.remotePeer).catch(() => undefined)
      if (peer === undefined || !peer.metadata.has("AgentVersion") || peer.protocols.includes(protocol)) return true
    }
    return false
  })

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// The gate says no before a dial or in the last step of one; a dial to several addresses gathers what each came to.
function isOwnRefusal(error: Error | undefined): boolean {
  if (error instanceof AggregateError) return error.errors.some(isOwnRefusal)
  return error?.name === "DialDeniedError" || error?.name === "ConnectionInterceptedError"
}

/** The parts of kad-dht's class that its interface leaves out. */
interface AttachedKad extends KadDHT, KadInternals, KadValueInternals {
  readonly addEventListener: (type: "peer", listener: (event: CustomEvent<PeerInfo>) => void) => void
  readonly routingTable: {
    readonly size: number
    readonly kb: { readonly toIterable: () => Iterable<{ readonly peerId: Libp2pPeerId }> }
    readonly remove: (peer: Libp2pPeerId) => Promise<void>
    readonly addEventListener: (type: "peer:add", listener: () => void) => void
    readonly removeEventListener: (type: "peer:add", listener: () => void) => void
  }
}

interface Progress {
  readonly asked: Set<string>
  readonly heard: Set<string>
  readonly pending: Set<string>
  answers: number
  onEvent?: () => void
}

const makeProgress = (): Progress => ({ asked: new Set(), heard: new Set(), pending: new Set(), answers: 0 })

const toAddresses = (peer: PeerInfo): PeerAddresses => ({
  id: peer.id.toString() as PeerId,
  addresses: [...new Set(peer.multiaddrs.map((address) => withoutPeer(String(address) as Multiaddr)))]
})

const nameOf = (cause: unknown) => cause instanceof Error ? cause.name : undefined

/** Tells whether a value is new for its key, or was last new longer ago than `ageMillis`. Remembers `limit` keys. */
function recent(limit: number, ageMillis: number) {
  const seen = new Map<string, { readonly value: string; readonly at: number }>()
  return (key: string, value: string): boolean => {
    const last = seen.get(key)
    if (last !== undefined && last.value === value && Date.now() - last.at < ageMillis) return false
    seen.delete(key)
    seen.set(key, { value, at: Date.now() })
    for (const oldest of seen.size > limit ? seen.keys() : []) {
      seen.delete(oldest)
      break
    }
    return true
  }
}
