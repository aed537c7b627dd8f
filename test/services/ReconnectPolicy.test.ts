import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import * as Backoff from "../../src/layers/Backoff.ts"
import { type ConnectError, DialError, PeerLimitExceeded, Refused } from "../../src/schema/NetworkError.ts"
import type { Interest } from "../../src/schema/Peer.ts"
import { ReconnectPolicy } from "../../src/services/ReconnectPolicy.ts"
import { SimNetwork } from "../../src/testing/index.ts"

const peer = SimNetwork.peerId("bob")
const refused = (why: "full" | "promised") => new DialError({ target: peer, reason: new Refused({ why }) })
const ownPromise = new PeerLimitExceeded({ peer, limit: 1, rule: "promised" })
const ownLimit = new PeerLimitExceeded({ peer, limit: 1 })

/** The waits after these failures, in seconds without their jitter; undefined where the policy has ended. */
const waits = Effect.fnUntraced(function*(interest: Interest, errors: ReadonlyArray<ConnectError>) {
  const policy = yield* ReconnectPolicy
  const backoff = yield* Backoff.make(policy({ interest }))
  return yield* Effect.forEach(errors, (error) => Effect.map(backoff.next(error), nominal))
})

const nominal = (delay: Duration.Duration | undefined) => {
  const seconds = delay === undefined ? undefined : Duration.toSeconds(delay)
  return [1, 2, 3, 4, 8, 16, 32, 60].find((wait) =>
    seconds !== undefined && seconds >= wait * 0.8 && seconds <= wait * 1.2
  )
}

/** As many times. */
const times = <A>(count: number, value: A): ReadonlyArray<A> => Array.from({ length: count }, () => value)

describe("ReconnectPolicy", () => {
  it.effect("comes back in three seconds where the last slot is only promised, and loses no step", () =>
    Effect.gen(function*() {
      const errors = [...times(4, refused("full")), refused("promised"), ownPromise, refused("full"), ownLimit]
      // Three seconds may be taken for two or four.
      const seconds = yield* waits("kept", errors)
      assert.deepStrictEqual(seconds.slice(0, 4), [1, 2, seconds[2], 8])
      for (const wait of seconds.slice(4, 6)) assert.include([2, 3, 4], wait)
      assert.deepStrictEqual(seconds.slice(6), [16, 32])
    }))

  it.effect("comes back soon eight times in a row, and begins to count anew after another failure", () =>
    Effect.gen(function*() {
      const seconds = yield* waits("kept", [
        ...times(6, refused("full")),
        ...times(10, refused("promised")),
        refused("full"),
        refused("promised")
      ])
      for (const wait of [...seconds.slice(6, 14), seconds[17]]) assert.include([2, 3, 4], wait)
      assert.deepStrictEqual(seconds.slice(14, 17), [60, 60, 60])
    }))

  it.effect("counts a promise of a wanted peer as none of its eight dials", () =>
    Effect.gen(function*() {
      const seconds = yield* waits("wanted", [
        ...times(8, refused("full")),
        refused("promised"),
        refused("full")
      ])
      assert.isDefined(seconds[8])
      assert.isUndefined(seconds[9])
    }))
})
