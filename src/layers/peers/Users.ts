/**
 * What others do with a connected peer: they hold it by a stream, attend one of its streams, follow its best
 * connection, or run a task in its scope.
 */
import { Effect, FiberSet } from "effect"
import { PeerNotConnected } from "../../schema/NetworkError.ts"
import type { PeerId } from "../../schema/Peer.ts"
import type { PeerTable } from "../../services/PeerTable.ts"
import type { Connection } from "../../services/Transport.ts"
import * as Pulse from "../Pulse.ts"
import * as Supervised from "../Supervised.ts"
import type { Use } from "./Connections.ts"
import { type Entry, unchecked } from "./Entry.ts"

type Task = (entry: Entry) => Effect.Effect<void>

/** The users of the table's peers. `idles` is run when a peer has lost its last one. */
export const make = (entries: ReadonlyMap<PeerId, Entry>, idles: (entry: Entry) => Effect.Effect<void>) => {
  const tasks = new Set<Task>()

  /** Counts a user of the peer for as long as the scope lives, on the connection that is given or the best one. */
  const use = (peer: PeerId, count: Use, given?: Connection) =>
    Effect.acquireRelease(
      Effect.gen(function*() {
        const entry = entries.get(peer)
        if (entry === undefined) return yield* new PeerNotConnected({ peer }, unchecked)
        const connection = given ?? (yield* entry.connections.best)[0]
        if (entries.get(peer) !== entry || connection === undefined || !entry.connections.has(connection)) {
          return yield* new PeerNotConnected({ peer }, unchecked)
        }
        entry[count]++
        entry.connections.begin(connection, count)
        return { entry, connection }
      }),
      Effect.fnUntraced(function*({ connection, entry }) {
        entry[count]--
        yield* entry.connections.end(connection, count)
        if (entry.holds + entry.attends === 0) yield* idles(entry)
      })
    )

  const hold: PeerTable["Service"]["hold"] = (peer) => Effect.map(use(peer, "holds"), ({ connection }) => connection)

  const attend: PeerTable["Service"]["attend"] = (connection) =>
    Effect.asVoid(use(connection.peer, "attends", connection))

  const keptByRemote = (peer: PeerId) =>
    Effect.asVoid(Effect.acquireRelease(
      Effect.suspend(() => {
        const entry = entries.get(peer)
        if (entry === undefined) return Effect.fail(new PeerNotConnected({ peer }, unchecked))
        entry.remoteKeeps++
        return Effect.succeed(entry)
      }),
      (entry) =>
        Effect.sync(() => {
          entry.remoteKeeps--
        })
    ))

  const follow = Effect.fnUntraced(function*(peer: PeerId, body: (connection: Connection) => Effect.Effect<void>) {
    while (true) {
      const entry = entries.get(peer)
      const [connection] = entry === undefined ? [] : yield* entry.connections.best
      if (entry === undefined || connection === undefined) return
      const isAnother = Effect.map(entry.connections.best, ([best]) => best !== connection)
      const isMoved = yield* Effect.raceFirst(
        Effect.as(body(connection), false),
        Effect.as(Pulse.until(entry.connections.changed, isAnother), true)
      )
      if (!isMoved) return
    }
  })

  const eachPeer = Effect.fnUntraced(function*(body: (peer: PeerId) => Effect.Effect<void>) {
    const fibers = yield* FiberSet.make<void>()
    const told = yield* Supervised.told
    // A peer that comes meanwhile is given the task twice, below and by `beginTasks`.
    const begun = new WeakSet<Entry>()
    const task: Task = Effect.fnUntraced(function*(entry) {
      if (begun.has(entry)) return
      begun.add(entry)
      const fiber = yield* Effect.forkIn(told(Supervised.lasting("a task of each peer", body(entry.id))), entry.scope)
      yield* FiberSet.add(fibers, fiber)
    })
    yield* Effect.acquireRelease(Effect.sync(() => tasks.add(task)), () => Effect.sync(() => tasks.delete(task)))
    yield* Effect.forEach([...entries.values()], task, { discard: true })
  })

  /** Begins the tasks of a peer that has been admitted. */
  const beginTasks = Effect.fnUntraced(function*(entry: Entry) {
    for (const task of tasks) yield* task(entry)
  })

  return { hold, attend, keptByRemote, follow, eachPeer, beginTasks }
}
