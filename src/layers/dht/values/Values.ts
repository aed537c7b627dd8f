/**
 * `putValue` and `getValue` over any DHT: which namespace a value belongs to, which of several values wins, and whether
 * enough nodes have answered.
 */
import { Bytes, Effect, Stream } from "effect"
import { DhtError, NoPeers, NotFound, QuorumFailed, RecordInvalid } from "../../../schema/NetworkError.ts"
import { keyBytes, pathOf, type Signer, type ValueNamespace, type ValueRules } from "../../../schema/ValueNamespace.ts"
import type { Dht } from "../../../services/Dht.ts"

/**
 * What a lookup for a value brings: the copy of each node that answered, if it has one. At the end, unless the lookup
 * was cut off, the nodes closest to the key among those that answered.
 */
export type ValueAnswer<N> =
  | { readonly from: N; readonly bytes: Uint8Array | undefined }
  | { readonly closest: ReadonlyArray<N> }

export interface ValuesOptions<N> {
  readonly namespaces: ReadonlyArray<ValueRules>
  readonly signer: Signer
  /** This node's own copy, as it is stored. */
  readonly local: (key: Uint8Array) => Effect.Effect<Uint8Array | undefined>
  /**
   * Stores the value here and asks other nodes to store it. Counts each that was asked, and each that has stored it.
   */
  readonly put: (key: Uint8Array, bytes: Uint8Array, count: ValueCount) => Effect.Effect<void, DhtError>
  readonly get: (key: Uint8Array) => Stream.Stream<ValueAnswer<N>, DhtError>
  /**
   * Gives the value that won to those of the closest nodes that have another one or none, in the background. Absent
   * where the DHT does so by itself.
   */
  readonly repair?: (key: Uint8Array, bytes: Uint8Array, nodes: ReadonlyArray<N>) => Effect.Effect<void>
}

/** How far a put has come. The names are of nodes. */
export interface ValueCount {
  readonly asked: Set<string>
  readonly acknowledged: Set<string>
}

/** The rules for a key, and its path; undefined when no namespace has it. */
export const rulesOf = (namespaces: ReadonlyArray<ValueRules>, key: Uint8Array) => {
  for (const rules of namespaces) {
    const path = pathOf(rules.name, key)
    if (path !== undefined) return { rules, path }
  }
  return undefined
}

export const make = <N>(options: ValuesOptions<N>): Pick<Dht["Service"], "putValue" | "getValue"> => {
  const failing = (operation: "putValue" | "getValue", namespace: ValueRules, path: string) => {
    const subject = `/${namespace.name}/${path}`
    const fail = (reason: DhtError["reason"]) => new DhtError({ operation, subject, reason })
    const known = options.namespaces.includes(namespace)
      ? keyBytes(namespace.name, path)
      : Effect.fail(
        new RecordInvalid({ detail: `the namespace ${namespace.name} is not among the ValueNamespaces of this node` })
      )
    return { fail, key: Effect.mapError(known, fail) }
  }

  return {
    putValue: Effect.fn("Dht.putValue")(
      function*<A, Input>(
        namespace: ValueNamespace<A, Input>,
        path: string,
        value: Input,
        { quorum = 1 }: { readonly quorum?: number | undefined } = {}
      ) {
        const { fail, key: checked } = failing("putValue", namespace, path)
        const key = yield* checked
        const bytes = yield* Effect.gen(function*() {
          const stored = yield* options.local(key)
          const previous = stored === undefined ? undefined : yield* namespace.decode(path, stored)
          const bytes = yield* namespace.seal(path, value, { signer: options.signer, previous })
          yield* namespace.check(path, bytes)
          if (stored !== undefined && (yield* namespace.replaces(path, stored, bytes))) {
            return yield* new RecordInvalid({ detail: "this node has stored one that wins over it" })
          }
          return bytes
        }).pipe(Effect.mapError(fail))
        const count: ValueCount = { asked: new Set(), acknowledged: new Set() }
        yield* options.put(key, bytes, count)
        if (count.asked.size === 0) return yield* fail(new NoPeers({}))
        const result = { asked: count.asked.size, acknowledged: count.acknowledged.size }
        if (result.acknowledged < quorum) return yield* fail(new QuorumFailed({ quorum, ...result }))
        return result
      }
    ),
    getValue: Effect.fn("Dht.getValue")(
      function*<A, Input>(
        namespace: ValueNamespace<A, Input>,
        path: string,
        { quorum }: { readonly quorum?: number | undefined } = {}
      ) {
        const { fail, key: checked } = failing("getValue", namespace, path)
        const key = yield* checked
        let best = yield* options.local(key)
        let asked = 0
        let acknowledged = 0
        const copies = new Map<N, Uint8Array>()
        let closest: ReadonlyArray<N> = []
        // A copy that does not pass the check counts as an answer without a value.
        const take = Effect.fnUntraced(function*(answer: ValueAnswer<N>) {
          if ("closest" in answer) {
            closest = answer.closest
            return
          }
          asked++
          const { bytes, from } = answer
          if (bytes === undefined) return
          yield* namespace.check(path, bytes)
          acknowledged++
          copies.set(from, bytes)
          if (best === undefined || (yield* namespace.replaces(path, bytes, best))) best = bytes
        })
        yield* options.get(key).pipe(
          Stream.mapEffect((answer) => Effect.ignore(take(answer)), { concurrency: 1 }),
          Stream.takeUntil(() => quorum !== undefined && acknowledged >= quorum),
          Stream.runDrain
        )
        if (best === undefined) return yield* fail(new NotFound({}))
        if (quorum !== undefined && acknowledged < quorum) {
          return yield* fail(new QuorumFailed({ quorum, asked, acknowledged }))
        }
        const winner = best
        const value = yield* Effect.mapError(namespace.decode(path, winner), fail)
        const lacking = closest.filter((node) => {
          const copy = copies.get(node)
          return copy === undefined || !Bytes.Equivalence(copy, winner)
        })
        if (options.repair !== undefined && lacking.length > 0) yield* options.repair(key, winner, lacking)
        return value
      }
    )
  }
}
