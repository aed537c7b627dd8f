/**
 * The machine on which a simulated node runs: its clock, whether it runs at all, and the addresses of its interfaces.
 *
 * It outlives the node: a node that is killed and started anew finds the machine as it was.
 */
import { type Clock, Duration, Effect, Latch } from "effect"
import type { TestClock } from "effect/testing"
import type { NetworkChange, NetworkInterface } from "../../services/NetworkMonitor.ts"
import * as Elapsed from "../../layers/Elapsed.ts"

/** The simulated machine that a node runs on. */
export interface SimMachine {
  /**
   * The machine's time. A sleep whose time is over while the machine does not run ends when it runs again, in order.
   * Adjusting this clock adjusts the network's clock, for all machines at once, where that is a test clock.
   */
  readonly clock: Clock.Clock
  /** False while the machine stalls or sleeps. */
  readonly isRunning: boolean
  /** The name of the node, or its peer id until the name is known. */
  name: string
  /** The node listens at `/memory/<address>`. */
  readonly address: string
  readonly interfaces: ReadonlyArray<NetworkInterface>
  /** Runs the task now, or when the machine runs again: timers first, then what was received meanwhile. */
  readonly receive: (task: () => void) => void
  /**
   * Called for each change that a look at the machine would show. `isDue` says that a look was missed and is made up
   * for now.
   */
  readonly onChange: Set<(change: NetworkChange, isDue: boolean) => void>
  /** Called when the node is killed. */
  readonly onKill: Set<() => void>
  /** Runs nothing for that long. While the machine is `asleep` its timers stand still, too; its wall clock goes on. */
  readonly freeze: (millis: number, asleep: boolean) => void
  /** Sets the wall clock ahead, or back by a negative time, and nothing else. */
  readonly jump: (millis: number) => void
  /** Gives the interfaces other addresses, and the node another one if it moves. */
  readonly readdress: (moves: boolean) => void
}

/** Calls a task after some time; the result cancels it. */
export type After = (millis: number, task: () => void) => () => void

export const make = (options: {
  readonly name: string
  /** The number of the machine in its network, which makes its addresses unique. */
  readonly index: number
  readonly base: Clock.Clock
  readonly after: After
}): SimMachine => {
  const { after, base, index } = options
  const running = Latch.makeUnsafe(true)
  const held: Array<() => void> = []
  const onChange = new Set<(change: NetworkChange, isDue: boolean) => void>()
  let frozenUntil: number | undefined
  let frozenAt = 0
  let isAsleep = false
  let isReceiving = false
  let sleptMillis = 0
  let aheadMillis = 0
  let moves = 0
  let subnet = 0

  /** The time that the timers go by. It stands still while the machine sleeps. */
  const elapsed = () => (frozenUntil !== undefined && isAsleep ? frozenAt : Elapsed.millisUnsafe(base)) - sleptMillis
  const currentTimeMillisUnsafe = () => base.currentTimeMillisUnsafe() + aheadMillis
  const currentTimeNanosUnsafe = () => base.currentTimeNanosUnsafe() + nanos(aheadMillis)
  const monotonicTimeNanosUnsafe = () => nanos(elapsed())

  const sleepUntil = (end: number): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (frozenUntil !== undefined) return Effect.andThen(running.await, sleepUntil(end))
      const left = end - elapsed()
      return left <= roundingMillis ? Effect.void : Effect.andThen(base.sleep(Duration.millis(left)), sleepUntil(end))
    })
  const sleep = (duration: Duration.Duration): Effect.Effect<void> => {
    const millis = Duration.toMillis(duration)
    if (millis <= 0) return Effect.void
    if (!Number.isFinite(millis)) return Effect.never
    return Effect.suspend(() => sleepUntil(elapsed() + millis))
  }

  // Asked anew each time, since a received message may freeze the machine.
  const isRunning = () => frozenUntil === undefined

  const tell = (change: NetworkChange, isDue = false) => onChange.forEach((listener) => listener(change, isDue))

  const thaw = () => {
    if (frozenUntil === undefined) return
    const left = frozenUntil - Elapsed.millisUnsafe(base)
    if (left > roundingMillis) return void after(left, thaw)
    const away = Elapsed.millisUnsafe(base) - frozenAt
    frozenUntil = undefined
    if (isAsleep) sleptMillis += away
    tell({ _tag: "Awoke", after: Duration.millis(away) }, !isAsleep)
    running.openUnsafe()
    // An event loop runs its timers before it reads its sockets.
    after(1, receiveAll)
  }
  const receiveAll = () => {
    if (isReceiving) return
    isReceiving = true
    while (isRunning() && held.length > 0) held.shift()!()
    isReceiving = false
  }

  const testClock = "adjust" in base ? base as TestClock.TestClock : undefined
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe,
    currentTimeNanosUnsafe,
    monotonicTimeNanosUnsafe,
    currentTimeMillis: Effect.sync(currentTimeMillisUnsafe),
    currentTimeNanos: Effect.sync(currentTimeNanosUnsafe),
    monotonicTimeNanos: Effect.sync(monotonicTimeNanosUnsafe),
    sleep,
    ...(testClock === undefined
      ? {}
      : { adjust: testClock.adjust, setTime: testClock.setTime, withLive: testClock.withLive })
  }

  return {
    clock,
    name: options.name,
    get isRunning() {
      return isRunning()
    },
    get address() {
      return moves === 0 ? this.name : `${this.name}~${moves}`
    },
    get interfaces(): ReadonlyArray<NetworkInterface> {
      return [
        { address: "127.0.0.1", prefixLength: 8, family: 4, internal: true },
        {
          address: `10.${subnet}.${(index >> 8) & 255}.${index & 255}`,
          prefixLength: 16,
          family: 4,
          internal: false
        }
      ]
    },
    receive(task) {
      if (frozenUntil === undefined && held.length === 0) task()
      else held.push(task)
    },
    onChange,
    onKill: new Set(),
    freeze(millis, asleep) {
      const now = Elapsed.millisUnsafe(base)
      if (frozenUntil !== undefined) {
        frozenUntil = Math.max(frozenUntil, now + millis)
        return
      }
      frozenAt = now
      frozenUntil = now + millis
      isAsleep = asleep
      running.closeUnsafe()
      after(millis, thaw)
    },
    jump(millis) {
      aheadMillis += millis
      tell({ _tag: "Awoke", after: Duration.millis(millis) })
    },
    readdress(isMoving) {
      if (isMoving) moves++
      subnet = (subnet + 1) % 256
      tell({ _tag: "AddressesChanged" })
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// Allows for the rounding errors of sums of fractions of a millisecond.
const roundingMillis = 0.001

const nanos = (millis: number): bigint => BigInt(Math.round(millis * 1e6))
