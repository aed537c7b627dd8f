/**
 * The machine on which a simulated node runs: its clock, whether it runs at all, and the addresses of its interfaces.
 *
 * It outlives the node: who is killed and started anew finds the machine as it was.
 */
import { type Clock, Duration, Effect, Latch } from "effect"
import type { TestClock } from "effect/testing"
import type { NetworkChange, NetworkInterface } from "../../services/NetworkMonitor.ts"

/** The simulated machine that a node runs on. */
export interface SimMachine {
  /**
   * The time as the machine has it. Sleeps that end while it does not run end when it runs again, in their order. It
   * can be adjusted where the network's clock can, for all machines at once.
   */
  readonly clock: Clock.Clock
  /** False while it stalls or sleeps. */
  readonly isRunning: boolean
  /** The name of the node on it, or its peer id as long as nobody has told the name. */
  name: string
  /** Where the node on it listens now: `/memory/<address>`. */
  readonly address: string
  readonly interfaces: ReadonlyArray<NetworkInterface>
  /** Does the task now, or when the machine runs again: timers first, then what came in meanwhile. */
  readonly receive: (task: () => void) => void
  /**
   * Called for each change that a look at the machine would show. `isDue` when a look that should have been is made up
   * for now.
   */
  readonly onChange: Set<(change: NetworkChange, isDue: boolean) => void>
  /** Called when the node is killed. */
  readonly onKill: Set<() => void>
  /** It runs nothing for that long. While it is `asleep` its timers do not go on either; its wall clock does. */
  readonly freeze: (millis: number, asleep: boolean) => void
  /** Its wall clock leaps ahead, and nothing else happens. */
  readonly jump: (millis: number) => void
  /** Its interfaces have other addresses, and the node another one, if it moves. */
  readonly readdress: (moves: boolean) => void
}

/** Calls a task after some time, and returns what takes it back. */
export type After = (millis: number, task: () => void) => () => void

export const make = (options: {
  readonly name: string
  /** Counts the machines of a network; makes their addresses differ. */
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
  const elapsed = () =>
    (frozenUntil !== undefined && isAsleep ? frozenAt : base.currentTimeMillisUnsafe()) - sleptMillis
  const currentTimeMillisUnsafe = () => base.currentTimeMillisUnsafe() + aheadMillis
  const currentTimeNanosUnsafe = () => base.currentTimeNanosUnsafe() + nanos(aheadMillis)
  const monotonicTimeNanosUnsafe = () => base.monotonicTimeNanosUnsafe() - nanos(sleptMillis)

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

  // Asked anew each time: what is received may freeze the machine.
  const isRunning = () => frozenUntil === undefined

  const tell = (change: NetworkChange, isDue = false) => onChange.forEach((listener) => listener(change, isDue))

  const thaw = () => {
    if (frozenUntil === undefined) return
    const left = frozenUntil - base.currentTimeMillisUnsafe()
    if (left > roundingMillis) return void after(left, thaw)
    const away = base.currentTimeMillisUnsafe() - frozenAt
    frozenUntil = undefined
    if (isAsleep) sleptMillis += away
    tell({ _tag: "Awoke", after: Duration.millis(away) }, !isAsleep)
    running.openUnsafe()
    // The event loop sees to its timers before it looks at its sockets.
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
      const now = base.currentTimeMillisUnsafe()
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

// Sums of fractions of a millisecond miss their mark by a rounding error.
const roundingMillis = 0.001

const nanos = (millis: number): bigint => BigInt(Math.round(millis * 1e6))
