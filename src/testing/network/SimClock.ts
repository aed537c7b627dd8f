/**
 * A virtual clock for long simulations: a `TestClock` whose wake costs a few microseconds instead of some thirty.
 *
 * `TestClock.adjust`, `TestClock.setTime` and everything else that moves a `TestClock` moves this one too. It is fast
 * because it brings its own scheduler: `adjust` itself runs each fiber that it wakes until the fiber waits again, while
 * a `TestClock` waits for the event loop. Sleeps that end at the same time end in the order in which they began, and
 * all consequences of one wake happen before the next wake, also across promises that are already resolved.
 *
 * ```ts
 * it.effect("stays connected for a day", () => Effect.provide(scenario, SimNetwork.layerWithClock()))
 * ```
 */
import { Clock, Context, Duration, Effect, Layer, Scheduler } from "effect"
import type { TestClock } from "effect/testing"

/** A test clock that also runs timers. */
export interface SimClock extends TestClock.TestClock {
  /** How many sleeps and timers have ended so far. */
  readonly wakes: number
  /** How many sleeps and timers are pending. */
  readonly waiting: number
  /** Calls the task when that much time has passed; the result cancels it. Much cheaper than a fiber that sleeps. */
  readonly afterUnsafe: (millis: number, task: () => void) => () => void
}

const isTestClock = (clock: Clock.Clock): clock is TestClock.TestClock => "withLive" in clock

/** Whether the clock is a {@link SimClock}. */
export const isSimClock = (clock: Clock.Clock): clock is SimClock => "afterUnsafe" in clock

/**
 * A clock that stands at zero, and the scheduler it needs. Both have to be provided: see {@link layer}.
 */
export const make: Effect.Effect<{ readonly clock: SimClock; readonly scheduler: Scheduler.Scheduler }> = Effect.map(
  Clock.clockWith((outer) => isTestClock(outer) ? outer.withLive(Clock.Clock) : Effect.succeed(outer)),
  (live) => {
    const realMillis = () => live.currentTimeMillisUnsafe()
    const timers = new Timers()
    const tasks = new Tasks(realMillis)
    const requests: Array<Request> = []
    let now = 0
    let wakes = 0
    // While it is set `turn` runs the scheduled tasks; otherwise the event loop does.
    let isTurning = false
    let sliceEnd = 0

    // Node runs all microtasks before a tick, so promises that are already resolved are handled first. Now and then the
    // event loop has its turn too, for everything else in the process.
    const hop = () => {
      if (realMillis() < sliceEnd) queueMicrotask(tick)
      else setImmediate(slice)
    }
    const tick = () => process.nextTick(turn)
    const slice = () => {
      sliceEnd = realMillis() + sliceMillis
      turn()
    }
    const turn = () => {
      if (tasks.run()) return hop()
      const request = requests[0]
      if (request === undefined) {
        isTurning = false
        return
      }
      const end = request.end ?? (request.end = request.until(now))
      const next = timers.first()
      if (next !== undefined && next.at <= end) {
        now = next.at
        timers.remove(next)
        wakes++
        next.task()
        tasks.run()
      } else {
        if (Number.isFinite(end)) now = end
        requests.shift()
        request.done()
      }
      hop()
    }

    const move = (until: (now: number) => number) =>
      Effect.callback<void>((resume) => {
        const request: Request = { until, end: undefined, done: () => resume(Effect.void) }
        requests.push(request)
        if (!isTurning) {
          isTurning = true
          queueMicrotask(tick)
        }
        return Effect.sync(() => {
          const index = requests.indexOf(request)
          if (index >= 0) requests.splice(index, 1)
        })
      })

    const afterUnsafe = (millis: number, task: () => void) => {
      const timer = timers.add(now + millis, task)
      return () => timers.remove(timer)
    }
    const dispatcher: Scheduler.SchedulerDispatcher = {
      scheduleTask(task, priority) {
        tasks.add(task, priority)
        if (isTurning || tasks.isScheduled) return
        tasks.isScheduled = true
        setImmediate(() => {
          tasks.isScheduled = false
          // A clock that is being adjusted runs the tasks itself, in their turn.
          if (!isTurning) tasks.runOnce()
          if (!isTurning && tasks.size > 0 && !tasks.isScheduled) dispatcher.scheduleTask(() => {}, 0)
        })
      },
      flush: () => void tasks.run()
    }

    const currentTimeMillisUnsafe = () => now
    const nanosUnsafe = () => BigInt(Math.round(now * 1e6))
    const clock: SimClock = {
      get wakes() {
        return wakes
      },
      get waiting() {
        return timers.size
      },
      afterUnsafe,
      currentTimeMillisUnsafe,
      currentTimeNanosUnsafe: nanosUnsafe,
      monotonicTimeNanosUnsafe: nanosUnsafe,
      currentTimeMillis: Effect.sync(currentTimeMillisUnsafe),
      currentTimeNanos: Effect.sync(nanosUnsafe),
      monotonicTimeNanos: Effect.sync(nanosUnsafe),
      sleep: (duration) => sleepWith(afterUnsafe, Duration.toMillis(duration)),
      adjust: (duration) => {
        const millis = Duration.toMillis(Duration.fromInputUnsafe(duration))
        return move((now) => now + millis)
      },
      setTime: (timestamp) => move(() => timestamp),
      withLive: (effect) => Effect.provideService(effect, Clock.Clock, live)
    }
    const scheduler: Scheduler.Scheduler = {
      executionMode: "async",
      shouldYield: (fiber) => fiber.currentOpCount >= opsMax,
      makeDispatcher: () => dispatcher
    }
    return { clock, scheduler }
  }
)

/**
 * Replaces the clock of the program by one that stands at zero, and its scheduler by the one that goes with it.
 */
export const layer: Layer.Layer<never> = Layer.effectContext(
  Effect.map(
    make,
    ({ clock, scheduler }) => Context.make(Clock.Clock, clock).pipe(Context.add(Scheduler.Scheduler, scheduler))
  )
)

/** A sleep, made of a timer. */
export const sleepWith = (after: SimClock["afterUnsafe"], millis: number): Effect.Effect<void> =>
  millis <= 0 ? Effect.void : Effect.callback<void>((resume) => {
    if (!Number.isFinite(millis)) return
    const cancel = after(millis, () => resume(Effect.void))
    return Effect.sync(cancel)
  })

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const sliceMillis = 20
// The default of effect's own scheduler.
const opsMax = 2_048

interface Request {
  readonly until: (now: number) => number
  end: number | undefined
  readonly done: () => void
}

interface Timer {
  readonly at: number
  /** Timers of the same time run in the order in which they were made. */
  readonly order: number
  readonly task: () => void
  /** The index in the heap; -1 outside of it. */
  index: number
}

/** A binary heap, whose elements know their index so that they can be removed. */
class Timers {
  private readonly heap: Array<Timer> = []
  private made = 0

  get size(): number {
    return this.heap.length
  }

  first(): Timer | undefined {
    return this.heap[0]
  }

  add(at: number, task: () => void): Timer {
    const timer: Timer = { at, order: this.made++, task, index: this.heap.length }
    this.heap.push(timer)
    this.up(timer)
    return timer
  }

  remove(timer: Timer): void {
    const { index } = timer
    if (index < 0) return
    timer.index = -1
    const last = this.heap.pop()!
    if (last === timer) return
    this.put(last, index)
    this.up(last)
    this.down(last)
  }

  private put(timer: Timer, index: number): void {
    this.heap[index] = timer
    timer.index = index
  }

  private up(timer: Timer): void {
    while (timer.index > 0) {
      const parent = this.heap[(timer.index - 1) >> 1]!
      if (isBefore(parent, timer)) return
      const { index } = parent
      this.put(parent, timer.index)
      this.put(timer, index)
    }
  }

  private down(timer: Timer): void {
    while (true) {
      const left = this.heap[2 * timer.index + 1]
      if (left === undefined) return
      const right = this.heap[2 * timer.index + 2]
      const child = right !== undefined && isBefore(right, left) ? right : left
      if (isBefore(timer, child)) return
      const { index } = child
      this.put(child, timer.index)
      this.put(timer, index)
    }
  }
}

const isBefore = (one: Timer, other: Timer): boolean =>
  one.at < other.at || (one.at === other.at && one.order < other.order)

/** The scheduled tasks by priority, then by age, as in effect's own scheduler. */
class Tasks {
  isScheduled = false
  private readonly now: () => number
  private tasks: Array<() => void> = []
  private lesser: Array<{ readonly priority: number; readonly task: () => void }> = []

  constructor(now: () => number) {
    this.now = now
  }

  get size(): number {
    return this.tasks.length + this.lesser.length
  }

  add(task: () => void, priority: number): void {
    if (priority === 0) this.tasks.push(task)
    else this.lesser.push({ priority, task })
  }

  /** Runs the tasks that are there, and not those that they schedule. */
  runOnce(): void {
    const { lesser, tasks } = this
    this.tasks = []
    if (lesser.length === 0) {
      for (let i = 0; i < tasks.length; i++) tasks[i]!()
      return
    }
    this.lesser = []
    const all = [...tasks.map((task) => ({ priority: 0, task })), ...lesser]
    for (const { task } of all.sort((a, b) => a.priority - b.priority)) task()
  }

  /** Runs all tasks, for one time slice at most. False when there was none. */
  run(): boolean {
    if (this.size === 0) return false
    const end = this.now() + sliceMillis
    do this.runOnce()
    while (this.size > 0 && this.now() < end)
    return true
  }
}
