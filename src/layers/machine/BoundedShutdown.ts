/**
 * A `Shutdown` that ends within `NetworkConfig.stopTimeout`, whatever the parts do, and reports the parts that held it.
 *
 * A stop begins with the first part to be released, and the parts that follow share its time limit. A part that has not
 * ended in time is interrupted and left to itself, and the next part begins. At the end a warning is logged if one part
 * took longer than a second, or did not end.
 *
 * Gotchas
 * - The scopes in which a program uses a node, with its handlers and streams, close before the node does. A handler's
 *   release counts as part of the same stop when the node's release follows at once.
 */
import { Clock, Duration, Effect, Fiber, Layer, Scope } from "effect"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { Shutdown, type ShutdownParts } from "../../services/Shutdown.ts"
import * as Elapsed from "../Elapsed.ts"

/** A part that takes longer causes a warning. */
const longMillis = 1_000

/** Parts that took less are not reported. */
const shownMillis = 100

/** How many parts are reported. */
const shownMax = 5

/** The share of "most". */
const most = 0.8

/**
 * A part that begins this long after the last part's end begins another stop, with a time limit of its own. Between two
 * parts of one stop a busy process may lose some tenths of a second.
 */
const pauseMillis = 500

/**
 * The parts of one node. `report` is for the node's last finalizer.
 */
export const make = Effect.fnUntraced(function*(timeout: Duration.Duration) {
  const clock = yield* Clock.Clock
  const limitMillis = Duration.toMillis(timeout)
  // Not the time of day, which may be changed meanwhile.
  const now = () => Elapsed.millisUnsafe(clock)
  const held = new Map<string, Held>()
  let running = 0
  let began = 0
  let ended = Number.NEGATIVE_INFINITY

  const part: ShutdownParts["part"] = (name, release, share = "all") =>
    Effect.gen(function*() {
      const start = now()
      if (running === 0 && start - ended > pauseMillis) {
        began = start
        held.clear()
      }
      running++
      // In a fiber of its own, which can be left behind.
      const fiber = yield* Effect.forkDetach(release, { startImmediately: true })
      const left = began + limitMillis * (share === "all" ? 1 : most) - start
      if (fiber.pollUnsafe() === undefined && left > 0) {
        yield* Effect.raceFirst(Fiber.await(fiber), clock.sleep(Duration.millis(left)))
      }
      const exit = fiber.pollUnsafe()
      if (exit === undefined) fiber.interruptUnsafe()
      running--
      ended = now()
      const former = held.get(name)
      held.set(name, {
        millis: Math.max(former?.millis ?? 0, ended - start),
        isLeft: former?.isLeft === true || exit === undefined
      })
      if (exit !== undefined) yield* exit
      return exit !== undefined
    }).pipe(Effect.uninterruptible)

  const report = Effect.suspend(() => {
    const parts = [...held].sort(([, a], [, b]) => b.millis - a.millis)
    if (!parts.some(([, { isLeft, millis }]) => isLeft || millis > longMillis)) return Effect.void
    const shown = parts.slice(0, shownMax).filter(([, { isLeft, millis }]) => isLeft || millis >= shownMillis)
    const texts = shown.map(([name, { isLeft, millis }]) =>
      `${name} ${seconds(millis)}${isLeft ? " (left to itself)" : ""}`
    )
    return Effect.logWarning(`stopping took ${seconds(now() - began)}, of which ${texts.join(", ")}`)
  })

  return { part, report }
})

/**
 * The parts of a node, and the report at its very end, so this layer must stand below every other layer of the node.
 */
export const layer: Layer.Layer<never, never, NetworkConfig> = Layer.effect(
  Shutdown,
  Effect.gen(function*() {
    const { stopTimeout } = yield* NetworkConfig
    const { part, report } = yield* make(stopTimeout)
    yield* Effect.addFinalizer(() => Effect.annotateLogs(report, { component: "network" }))
    return { part }
  })
)

/**
 * A layer whose release is a part of the stop.
 */
export const part = (name: string) => <A, E, R>(self: Layer.Layer<A, E, R>): Layer.Layer<A, E, R> =>
  Layer.effectContext(Effect.gen(function*() {
    const shutdown = yield* Shutdown
    const scope = yield* Effect.acquireRelease(
      Scope.make(),
      (scope, exit) => shutdown.part(name, Scope.close(scope, exit))
    )
    return yield* Layer.buildWithScope(self, scope)
  }))

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface Held {
  readonly millis: number
  readonly isLeft: boolean
}

const seconds = (millis: number): string => `${(millis / 1000).toFixed(1)} s`
