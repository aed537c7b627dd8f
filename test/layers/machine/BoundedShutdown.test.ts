import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Deferred, type Duration, Effect, Exit, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as BoundedShutdown from "../../../src/layers/machine/BoundedShutdown.ts"
import { NetworkConfig } from "../../../src/services/NetworkConfig.ts"
import { Shutdown } from "../../../src/services/Shutdown.ts"
import * as TestNetwork from "../../../src/testing/TestNetwork.ts"
import * as LogLines from "../../support/LogLines.ts"

/** A scope that holds the parts of a node, and releases them in the order given. */
const stopping = Effect.fnUntraced(function*(
  parts: ReadonlyArray<readonly [name: string, release: Effect.Effect<void>]>,
  stopTimeout: Duration.Input = "5 seconds"
) {
  const scope = yield* Scope.make()
  const layer = parts.map(([name, release]) =>
    BoundedShutdown.part(name)(Layer.effectDiscard(Effect.addFinalizer(() => release)))
  ).reduce((above, below) => Layer.provideMerge(above, below)).pipe(
    Layer.provideMerge(BoundedShutdown.layer),
    Layer.provide(NetworkConfig.layer({ stopTimeout }))
  )
  const context = yield* Scope.provide(Layer.build(Layer.fresh(layer)), scope)
  const shutdown = Context.get(context, Shutdown)
  /** Closes the scope, and gives the milliseconds that it took. */
  const stop = Effect.gen(function*() {
    const start = yield* Clock.currentTimeMillis
    const exit = yield* TestNetwork.run(Effect.exit(Scope.close(scope, Exit.void)))
    return { exit, millis: (yield* Clock.currentTimeMillis) - start }
  })
  return { shutdown, stop, scope }
})

const takes = (duration: Duration.Input, done = () => {}) =>
  Effect.andThen(Effect.uninterruptible(Effect.sleep(duration)), Effect.sync(done))

/** `TestNetwork.run` moves the clock in steps of up to a second. */
const about = (millis: number, expected: number) => assert.approximately(millis, expected, 1000)

describe("BoundedShutdown", () => {
  it.effect("releases all parts in turn, and says nothing of a stop that is quick", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const order: Array<string> = []
      const { stop } = yield* stopping([
        ["first", takes("300 millis", () => order.push("first"))],
        ["second", takes("900 millis", () => order.push("second"))],
        ["third", Effect.sync(() => order.push("third"))]
      ])
      yield* stop
      assert.deepStrictEqual(order, ["first", "second", "third"])
      assert.deepStrictEqual(lines, [])
    }).pipe(LogLines.capture))

  it.effect("tells what held it when one part took more than a second", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const { stop } = yield* stopping([
        ["a quick part", takes("60 millis")],
        ["a part", takes("300 millis")],
        ["a slow part", takes("1100 millis")]
      ])
      yield* stop
      assert.deepStrictEqual(lines, ["Warn: stopping took 1.5 s, of which a slow part 1.1 s, a part 0.3 s"])
    }).pipe(LogLines.capture))

  it.effect("leaves what does not end in time to itself, and releases what follows all the same", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const released = yield* Deferred.make<void>()
      const { stop } = yield* stopping([
        ["a stubborn part", Effect.uninterruptible(Effect.never)],
        ["another one", takes("1 hour")],
        ["the last part", Effect.asVoid(Deferred.succeed(released, undefined))]
      ], "3 seconds")
      const { exit, millis } = yield* stop
      assert.isTrue(Exit.isSuccess(exit))
      about(millis, 3000)
      assert.isTrue(yield* Deferred.isDone(released))
      assert.deepStrictEqual(lines, [
        "Warn: stopping took 3.0 s, of which a stubborn part 3.0 s (left to itself), another one 0.0 s (left to itself)"
      ])
    }).pipe(LogLines.capture))

  it.effect("interrupts a part when its time is over, and not before", () =>
    Effect.gen(function*() {
      let interrupted = 0
      const overdue = Effect.interruptible(
        Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted++))
      )
      const { scope } = yield* stopping([["an overdue part", overdue]], "3 seconds")
      yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* TestClock.adjust("2999 millis")
      assert.strictEqual(interrupted, 0)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(interrupted, 1)
    }).pipe(LogLines.capture))

  it.effect("counts a handler that a program ends just before as part of the stop, which leaves time for the rest", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const { scope, shutdown } = yield* stopping([["the node", takes("700 millis")]])
      yield* Scope.addFinalizer(
        scope,
        Effect.asVoid(shutdown.part("the handler", Effect.uninterruptible(Effect.never), "most"))
      )
      const start = yield* Clock.currentTimeMillis
      yield* TestNetwork.run(Scope.close(scope, Exit.void))
      about((yield* Clock.currentTimeMillis) - start, 4700)
      assert.deepStrictEqual(lines, [
        "Warn: stopping took 4.7 s, of which the handler 4.0 s (left to itself), the node 0.7 s"
      ])
    }).pipe(LogLines.capture))

  it.effect("counts it also when the process is held up between the two", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const { scope, shutdown } = yield* stopping([["the node", takes("500 millis")]])
      yield* Scope.addFinalizer(scope, Effect.sleep("300 millis"))
      yield* Scope.addFinalizer(
        scope,
        Effect.asVoid(shutdown.part("the handler", Effect.uninterruptible(Effect.never), "most"))
      )
      yield* TestNetwork.run(Scope.close(scope, Exit.void))
      assert.deepStrictEqual(lines, [
        "Warn: stopping took 4.8 s, of which the handler 4.0 s (left to itself), the node 0.5 s"
      ])
    }).pipe(LogLines.capture))

  it.effect("does not count what ended long before", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const { shutdown, stop } = yield* stopping([["the node", takes("2 seconds")]])
      yield* TestNetwork.run(shutdown.part("a handler", takes("3 seconds")))
      yield* TestClock.adjust("1 second")
      yield* stop
      assert.deepStrictEqual(lines, ["Warn: stopping took 2.0 s, of which the node 2.0 s"])
    }).pipe(LogLines.capture))

  it.effect("does not hide that a release died", () =>
    Effect.gen(function*() {
      const { stop } = yield* stopping([["a part", Effect.die("broken")], ["another", Effect.void]])
      const { exit } = yield* stop
      assert.isTrue(Exit.hasDies(exit))
    }))
})
