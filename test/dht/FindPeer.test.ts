/**
 * `findPeer` in private networks of every size, over sockets.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { makeNode, until } from "../support/live.ts"

/** Nodes of which each is connected to the first, and nobody else by hand. */
const star = Effect.fnUntraced(function*(size: number) {
  const hub = yield* makeNode()
  const [address] = yield* hub.addresses
  const others = []
  for (let i = 1; i < size; i++) {
    const node = yield* makeNode()
    yield* node.connect(address!)
    others.push(node)
  }
  return [hub, ...others]
})

/** A peer that existed once, and is known to nobody. */
const stranger = Effect.scoped(Effect.map(makeNode(), ({ localPeer }) => localPeer))

describe("findPeer", () => {
  for (const size of [2, 3]) {
    it.live(`answers within a second in a network of ${size}: with an address, or with NotFound`, () =>
      Effect.gen(function*() {
        const nodes = yield* star(size)
        const asking = nodes.at(-1)!
        for (const other of nodes.slice(0, -1)) {
          // Everybody is on the way into the table right after the connection.
          yield* until(Effect.map(Effect.option(asking.findPeer(other.localPeer)), ({ _tag }) => _tag === "Some"))
          const [took, found] = yield* Effect.timed(asking.findPeer(other.localPeer))
          assert.strictEqual(found.id, other.localPeer)
          assert.isAbove(found.addresses.length, 0)
          assert.isBelow(Duration.toMillis(took), 1_000)
        }
        const nobody = yield* stranger
        const [took, error] = yield* Effect.timed(Effect.flip(asking.findPeer(nobody)))
        assert.strictEqual(error._tag === "DhtError" ? error.reason._tag : error._tag, "NotFound")
        assert.isBelow(Duration.toMillis(took), 1_000)
      }))
  }
})
