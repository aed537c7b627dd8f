/**
 * What the transport tells of its connections, and what that means to the peer table and the book: a connection is
 * admitted, or lost.
 */
import { Duration, Effect, Stream } from "effect"
import type { PeerId } from "../../schema/Peer.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { PeerStore } from "../../services/PeerStore.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import { type Connection, type ConnectionEvent, identifyTime, Transport } from "../../services/Transport.ts"
import type * as Pulse from "../Pulse.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Supervised from "../Supervised.ts"
import { PeerBook } from "./PeerBook.ts"
import * as PeerRecord from "./PeerRecord.ts"
import type { Refuse } from "./Refusals.ts"

/**
 * Makes the function that remembers what an admitted connection tells of its peer. The event pump calls it, and a dial
 * calls it before it ends, so that `connect` returns a complete `PeerInfo`; called twice it changes nothing.
 */
export const makeRememberRemote = Effect.gen(function*() {
  const table = yield* PeerTable
  const store = yield* PeerStore
  const book = yield* PeerBook

  return Effect.fnUntraced(function*(connection: Connection) {
    const { direction, peer: id, remoteAddress } = connection
    if (direction === "outbound") yield* store.remember(id, remoteAddress)
    const remote = yield* connection.remote
    if (remote._tag === "None") return
    const peer = book.get(id)
    for (const address of remote.value.listenAddresses) {
      if (peer?.addresses.isOfAnother(address) === false) peer.addresses.learn(address, "identify", [remoteAddress])
    }
    yield* table.identified(id, remote.value)
  })
})

/**
 * Pumps the transport's events while the scope lives. Beats `peersChanged` when a connection has gone.
 */
export const make = Effect.fnUntraced(function*(options: {
  /** The supervisor is told of a record that has changed, or woken for connections that have. */
  readonly changed: (peer: PeerRecord.PeerRecord) => Effect.Effect<void>
  readonly wake: (peer: PeerRecord.PeerRecord) => Effect.Effect<void>
  readonly peersChanged: Pulse.Pulse
  readonly isDialing: (peer: PeerId) => boolean
  /** Told of a connection that the gate had let in, and the table does not admit. */
  readonly refuse: Refuse
}) {
  const { changed, isDialing, peersChanged, refuse, wake } = options
  const config = yield* NetworkConfig
  const transport = yield* Transport
  const table = yield* PeerTable
  const book = yield* PeerBook
  const rememberRemote = yield* makeRememberRemote
  const inBackground = yield* Supervised.makeSet("the admission of a connection")
  const cooldownMillis = Duration.toMillis(config.rediscoveryCooldown)

  const connected = Effect.fnUntraced(function*(connection: Connection) {
    const now = yield* Elapsed.millis
    const peer = book.record(connection.peer)
    if (connection.direction === "outbound") peer.addresses.worked(connection.remoteAddress, now)
    PeerRecord.connected(peer, now)
    yield* rememberRemote(connection)
    yield* changed(peer)
  })

  const admit = (connection: Connection) =>
    table.admit(connection).pipe(
      Effect.andThen(connected(connection)),
      // The table had no slot after all, or the connection is gone. Closing takes time, which the pump does not have.
      Effect.catch((error) =>
        Effect.andThen(
          error._tag === "PeerLimitExceeded" ? refuse(connection, error.rule ?? "full") : Effect.void,
          inBackground(connection.close)
        )
      )
    )

  /**
   * An inbound connection is admitted at once. The remote of an outbound one may still refuse after the handshake, so
   * that one is admitted when identify has answered. A remote without identify is admitted after the time that a dial
   * waits for identify.
   */
  const opened = (connection: Connection) =>
    connection.direction === "inbound"
      ? admit(connection)
      : inBackground(
        Effect.sleep(identifyTime).pipe(
          Effect.andThen(connection.remote),
          Effect.flatMap((remote) => remote._tag === "Some" ? Effect.void : admit(connection))
        )
      )

  const closed = Effect.fnUntraced(function*(connection: Connection) {
    const released = yield* table.release(connection)
    yield* peersChanged.beat
    const peer = book.get(connection.peer)
    // A connection that was never admitted: the dial tells, if there was one.
    if (peer === undefined || released.kind === "unknown") return
    // The supervisor's keep request may have gone with the connection.
    if (released.kind === "other") return yield* wake(peer)
    const at = yield* Elapsed.millis
    const isOurs = released.kind === "removed"
    const isReplaced = isOurs && (isDialing(peer.id) || (yield* table.has(peer.id)))
    PeerRecord.lost(peer, { ...released.departure, at, isOurs, isReplaced }, at + cooldownMillis)
    if (!isReplaced) yield* changed(peer)
  })

  // What libp2p itself remembers of a peer lasts as long as the peer's record must.
  yield* transport.retain((id) => {
    const peer = book.get(id)
    return peer !== undefined && PeerRecord.isOfInterest(peer)
  })

  const taken = (event: ConnectionEvent): Effect.Effect<unknown> => {
    switch (event._tag) {
      case "Opened":
        return opened(event.connection)
      case "Identified":
        return admit(event.connection)
      case "Closed":
        return closed(event.connection)
    }
  }
  yield* Supervised.fork(
    "events of connections",
    Stream.runForEach(
      Stream.fromQueue(transport.events),
      (event) => Supervised.once("an event of a connection", taken(event))
    )
  )
})
