import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Effect, Stream } from "effect"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"
import * as TestNetwork from "../../src/testing/TestNetwork.ts"

describe("TestNetwork", () => {
  it.effect("runs every operation of every service in the time of the node's machine", () =>
    Effect.gen(function*() {
      const { services, untimed } = yield* TestNetwork.start("alice")
      const operations = [...untimed.mapUnsafe].flatMap(([key, service]) =>
        Object.entries(service as object).flatMap(([name, value]) =>
          Effect.isEffect(value) || Stream.isStream(value) || typeof value === "function" ? [{ key, name, value }] : []
        )
      )
      const kept = operations.filter(({ key, name, value }) => services.mapUnsafe.get(key)[name] === value)
      assert.deepStrictEqual(kept.map(({ key, name }) => `${key}.${name}`), [])
      for (const service of ["Network", "services/NetworkEvents", "services/NetworkMonitor", "services/Transport"]) {
        assert.isTrue(operations.some(({ key }) => key === `codio-network/${service}`), service)
      }
      const { clock } = (yield* SimNetwork).machine("alice")
      assert.strictEqual(Context.get(services, Clock.Clock), clock)
    }).pipe(Effect.provide(SimNetwork.layer())))
})
