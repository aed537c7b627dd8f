import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as AddressRace from "../../../src/layers/peers/AddressRace.ts"
import { DialError, Refused, UnexpectedPeer, Unreachable } from "../../../src/schema/NetworkError.ts"
import type { Multiaddr } from "../../../src/schema/Peer.ts"
import type { DialPolicyOptions } from "../../../src/services/DialPolicy.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"

const policy: DialPolicyOptions = {
  order: (candidates) => candidates,
  stagger: "250 millis",
  timeout: "5 seconds",
  parallelDials: 8
}
const [one, two, three] = [1, 2, 3].map((n) => `/ip4/192.0.2.${n}/tcp/4001` as Multiaddr) as [
  Multiaddr,
  Multiaddr,
  Multiaddr
]
const unreachable = new DialError({ target: "x", reason: new Unreachable({ detail: "connection refused" }) })

/** Dials that end when the spec says so; it notes when each began and which were aborted. */
const bench = Effect.gen(function*() {
  const begun: Array<readonly [Multiaddr, number]> = []
  const aborted: Array<Multiaddr> = []
  const answers = new Map<Multiaddr, Deferred.Deferred<string, DialError>>()
  const attempt = (address: Multiaddr) =>
    Effect.gen(function*() {
      begun.push([address, yield* Clock.currentTimeMillis])
      const answer = answers.get(address) ?? Deferred.makeUnsafe<string, DialError>()
      answers.set(address, answer)
      return yield* Deferred.await(answer).pipe(Effect.onInterrupt(() => Effect.sync(() => aborted.push(address))))
    })
  const answer = (address: Multiaddr) => answers.get(address)!
  return {
    begun,
    aborted,
    race: (addresses: ReadonlyArray<Multiaddr>, changes: Partial<DialPolicyOptions> = {}) =>
      Effect.forkChild(
        AddressRace.race("bob", addresses, { ...policy, ...changes }, attempt),
        { startImmediately: true }
      ),
    succeed: (address: Multiaddr) => Deferred.succeed(answer(address), `connection to ${address}`),
    fail: (address: Multiaddr, error = unreachable) => Deferred.fail(answer(address), error)
  }
})

describe("AddressRace", () => {
  it.effect("dials the next address 250 ms after the last, and aborts the others when one answers", () =>
    Effect.gen(function*() {
      const { aborted, begun, race, succeed } = yield* bench
      const racing = yield* race([one, two, three])
      yield* TestClock.adjust("249 millis")
      assert.deepStrictEqual(begun, [[one, 0]])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(begun, [[one, 0], [two, 250]])
      yield* succeed(two)
      assert.strictEqual(yield* Fiber.join(racing), `connection to ${two}`)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(begun, [[one, 0], [two, 250]])
      assert.deepStrictEqual(aborted, [one])
    }))

  it.effect("dials the next at once when one fails, and waits for those under way when none is left", () =>
    Effect.gen(function*() {
      const { begun, fail, race, succeed } = yield* bench
      const racing = yield* race([one, two, three])
      yield* fail(one)
      yield* TestClock.adjust(0)
      yield* fail(two)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(begun, [[one, 0], [two, 0], [three, 0]])
      yield* TestClock.adjust("2 seconds")
      yield* succeed(three)
      assert.strictEqual(yield* Fiber.join(racing), `connection to ${three}`)
    }))

  it.effect("has no more dials under way than the policy allows", () =>
    Effect.gen(function*() {
      const { begun, fail, race } = yield* bench
      yield* race([one, two, three], { parallelDials: 2 })
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(begun.map(([address]) => address), [one, two])
      yield* fail(one)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(begun.map(([address]) => address), [one, two, three])
    }))

  it.effect("gives each address its time", () =>
    Effect.gen(function*() {
      const { aborted, race } = yield* bench
      const racing = yield* race([one, two], { stagger: "1 seconds" })
      yield* TestClock.adjust("4999 millis")
      assert.deepStrictEqual(aborted, [])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(aborted, [one])
      yield* TestClock.adjust("1 seconds")
      const error = yield* Effect.flip(Fiber.join(racing))
      assert.strictEqual(error.reason._tag, "DialTimeout")
      assert.deepStrictEqual(aborted, [one, two])
    }))

  it.effect("fails with every reason, and with a refusal before all others", () =>
    Effect.gen(function*() {
      const expected = SimNetwork.peerId("bob")
      const first = yield* bench
      const mixed = yield* first.race([one, two])
      yield* first.fail(one)
      yield* TestClock.adjust(0)
      yield* first.fail(two, new DialError({ target: "x", reason: new UnexpectedPeer({ expected }) }))
      const error = yield* Effect.flip(Fiber.join(mixed))
      assert.strictEqual(error.reason._tag, "Unreachable")
      assert.match(error.message, /^dial bob: connection refused; another peer than .+ answers there/)
      const second = yield* bench
      const refused = yield* second.race([one, two])
      yield* second.fail(one, new DialError({ target: "x", reason: new Refused({}) }))
      yield* TestClock.adjust(0)
      yield* second.fail(two)
      assert.strictEqual((yield* Effect.flip(Fiber.join(refused))).reason._tag, "Refused")
    }))

  it.effect("aborts every dial when it is interrupted, and fails at once without an address", () =>
    Effect.gen(function*() {
      const { aborted, race } = yield* bench
      const racing = yield* race([one, two])
      yield* TestClock.adjust("250 millis")
      yield* Fiber.interrupt(racing)
      assert.deepStrictEqual(aborted, [one, two])
      const error = yield* Effect.flip(Effect.flatMap(race([]), Fiber.join))
      assert.strictEqual(error.message, "dial bob: no address is known")
    }))
})
