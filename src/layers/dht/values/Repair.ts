/**
 * Gives the value that has won a lookup to the nodes close to its key that have an older one or none, as Go's Kademlia
 * does.
 *
 * A put reaches the nodes that are closest at that time, and nodes come and go. So each reader puts the value back
 * where the next reader looks. That goes on in the background, one value at a time. A value for which the queue has no
 * room is left to the next reader. The same value is given at most once a minute, since a node without rules for it
 * refuses it each time.
 */
import { Bytes, Effect, Queue, type Scope } from "effect"
import { BoundedMap } from "../../BoundedMap.ts"
import { keyOf } from "../wire/Nodes.ts"
import * as Elapsed from "../../Elapsed.ts"
import * as Supervised from "../../Supervised.ts"

export interface ValueRepairOptions<N> {
  /** Asks a node to store the value. Needs a time limit of its own. */
  readonly put: (node: N, key: Uint8Array, bytes: Uint8Array) => Effect.Effect<unknown, unknown>
  /** How many values may wait. Defaults to 32, at most 256 KiB. */
  readonly waitingMax?: number | undefined
}

export interface ValueRepair<N> {
  /** Gives the nodes the value in the background. */
  readonly repair: (key: Uint8Array, bytes: Uint8Array, nodes: ReadonlyArray<N>) => Effect.Effect<void>
}

/** Repairs for as long as the scope lives. */
export const make = Effect.fnUntraced(function*<N>(
  { put, waitingMax = 32 }: ValueRepairOptions<N>
): Effect.fn.Return<ValueRepair<N>, never, Scope.Scope> {
  const waiting = yield* Queue.dropping<Repair<N>>(waitingMax)
  const given = new BoundedMap<string, Given>(givenMax)

  yield* Supervised.forever(
    "the repair of values",
    Effect.flatMap(Queue.take(waiting), ({ bytes, key, nodes }) =>
      // A node that does not take it is one copy less.
      Effect.forEach(nodes, (node) => Effect.ignore(put(node, key, bytes)), { concurrency: parallel, discard: true }))
  )

  return {
    repair: Effect.fnUntraced(function*(key, bytes, nodes) {
      const now = yield* Elapsed.millis
      const name = keyOf(key)
      const last = given.get(name)
      if (last !== undefined && now < last.until && Bytes.Equivalence(last.bytes, bytes)) return
      if (!Queue.offerUnsafe(waiting, { key, bytes, nodes })) return
      given.set(name, { bytes, until: now + againMillis })
      // A value that may be given again need not be kept.
      for (const [name, { until }] of given) {
        if (now < until) break
        given.delete(name)
      }
    })
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** How many nodes are given a value at once. Few, since lookups share the streams. */
const parallel = 5

const againMillis = 60_000

/** How many given values are remembered, at most 8 MiB. */
const givenMax = 1024

interface Repair<N> {
  readonly key: Uint8Array
  readonly bytes: Uint8Array
  readonly nodes: ReadonlyArray<N>
}

interface Given {
  readonly bytes: Uint8Array
  readonly until: number
}
