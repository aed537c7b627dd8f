/**
 * When keys are announced again.
 *
 * Announcements are renewed by region of the keyspace: with many keys each region has its own time within the period, so that 10,000 keys are
 * not one burst, while the neighbours of a region, which are the same for all of its keys, are looked up once. The same order spreads the
 * keys that a restarted node takes up: what was announced lately is announced once more within half an hour, since others may have restarted
 * as well.
 *
 * Times are milliseconds since the epoch.
 */
import { Duration, Effect, Pull, type Schedule } from "effect"

/** A key that is announced now and then. */
export interface Timed {
  /** The first 32 bits of its place in the keyspace. */
  readonly place: number
  /** How long a copy lives. */
  readonly lifeMillis: number
  /** When it is announced next. */
  dueAt: number
}

export interface ProvideTimesOptions {
  /** The time between announcements; at most half of the life of a copy. */
  readonly republishMillis: number
  /** How many keys there are. */
  readonly size: () => number
}

export interface ProvideTimes<Key extends Timed> {
  /** No key that was made due here is due before. */
  readonly nextDueAt: () => number
  /** Makes a key due at this time, unless it is so before. */
  readonly dueBy: (key: Key, at: number) => void
  /** The key has been announced: it is due again a period from now; with many keys, at the time of its region that is nearest to that. */
  readonly renew: (key: Key, now: number) => void
  /** What concerns all keys makes this one due: after a while when they are many, so that what follows at once is the same work. */
  readonly settle: (key: Key, now: number) => void
  /** The key has few copies: it is due in an hour, or after a quarter of its period. */
  readonly fillUp: (key: Key, now: number) => void
  /** The node has just started: the key is due when its region's turn is, or its period is over since it was announced last. */
  readonly resume: (key: Key, now: number, announcedAt: number) => void
  /** Of all keys that are not being announced those that are due, with those of their regions that will be soon; in order of their places. */
  readonly takeDue: (waiting: ReadonlyArray<Key>, now: number) => Array<Key>
}

export const make = <Key extends Timed>({ republishMillis, size }: ProvideTimesOptions): ProvideTimes<Key> => {
  let nextDueAt = Infinity

  const dueBy = (key: Key, at: number) => {
    key.dueAt = Math.min(key.dueAt, at)
    nextDueAt = Math.min(nextDueAt, key.dueAt)
  }

  const regions = () => 2 ** Math.max(0, Math.floor(Math.log2(size() / regionKeys)))
  const regionOf = ({ place }: Key, count: number) => Math.floor(place / 2 ** 32 * count)
  const periodOf = ({ lifeMillis }: Key) => Math.min(republishMillis, lifeMillis / 2)

  const renewalOf = (key: Key, now: number): number => {
    const count = regions()
    const period = periodOf(key)
    if (count === 1) return now + period
    const phase = regionOf(key, count) / count * period
    const next = now + period - (now - phase) % period
    return next - now < period / 4 ? next + period : next
  }

  return {
    nextDueAt: () => nextDueAt,
    dueBy,
    renew: (key, now) => {
      key.dueAt = Infinity
      dueBy(key, renewalOf(key, now))
    },
    settle: (key, now) => dueBy(key, now + (size() < 2 * regionKeys ? 0 : Math.min(60_000, 2 * size()))),
    fillUp: (key, now) => dueBy(key, now + Math.min(shortMillis, periodOf(key) / 4)),
    resume: (key, now, announcedAt) => {
      const count = regions()
      const period = periodOf(key)
      const resumedAt = now + regionOf(key, count) / count * Math.min(resumeMillis, period / 2)
      dueBy(key, Math.max(now, Math.min(resumedAt, announcedAt + period)))
    },
    takeDue: (waiting, now) => {
      const count = regions()
      const due = new Set<number>()
      for (const key of waiting) if (key.dueAt <= now) due.add(regionOf(key, count))
      const taken: Array<Key> = []
      nextDueAt = Infinity
      for (const key of waiting) {
        const isSoon = key.dueAt <= now || (due.has(regionOf(key, count)) && key.dueAt - now <= periodOf(key) / 8)
        if (isSoon) taken.push(key)
        else nextDueAt = Math.min(nextDueAt, key.dueAt)
      }
      return taken.sort((a, b) => a.place - b.place)
    }
  }
}

/** A schedule on its way, as `Schedule.toStep` gives it. */
export type Step = Effect.Success<ReturnType<typeof Schedule.toStep<unknown, unknown, never, never>>>

/** The next wait of a schedule in milliseconds; infinite when it has ended. */
export const nextWait = (step: Step, now: number): Effect.Effect<number> =>
  step(now, undefined).pipe(
    Effect.map(([, delay]) => Duration.toMillis(delay)),
    Pull.catchDone(() => Effect.succeed(Infinity))
  )

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** A region has between this many keys and twice as many: enough to share its lookups, few enough to be no burst. */
const regionKeys = 256

/** What was announced lately is announced again within this time after a restart. */
const resumeMillis = Duration.toMillis("30 minutes")

/** A key with less than half of the copies that there could be is announced again after this time. */
const shortMillis = Duration.toMillis("1 hour")
