/**
 * When keys are announced again.
 *
 * Keys are renewed by region of the keyspace. With many keys each region has its own time within the period, so that
 * 10,000 keys are not one burst; and all keys of a region share its peers, so those are looked up once. Keys that a
 * restarted node takes up are spread in the same order: keys announced lately are announced once more within half an
 * hour, since the peers that keep the copies may have restarted as well.
 *
 * Times are milliseconds since the epoch.
 */
import { Duration } from "effect"

/** A key that is announced again and again. */
export interface Timed {
  /** The first 32 bits of the key's position in the keyspace, as `Position.h0`. */
  readonly h0: number
  /** How long a copy lives. */
  readonly lifeMillis: number
  /** When the key is announced next. */
  dueAt: number
  /** How much sooner it may be announced together with others of its region, at most an eighth of its period. */
  slackMillis: number
}

export interface TimesOptions {
  /** The time between announcements; at most half of the life of a copy. */
  readonly republishMillis: number
  /** How many keys there are. */
  readonly size: () => number
}

export interface Times<Key extends Timed> {
  /** The earliest time at which a key may be due. */
  readonly nextDueAt: () => number
  /** Makes a key due at this time, unless it is due earlier. */
  readonly dueBy: (key: Key, at: number) => void
  /**
   * The key has been announced: it is due again a period from now; with many keys, at its region's time nearest to
   * that.
   */
  readonly renew: (key: Key, now: number) => void
  /**
   * A change that concerns all keys makes this one due. With many keys it waits a while, so that further changes that
   * follow at once cost no second announcement.
   */
  readonly settle: (key: Key, now: number) => void
  /**
   * The key has few copies, and has had few since then: it is due after as long once more, but not within a minute, and
   * not later than in an hour or after a quarter of its period if that is shorter.
   */
  readonly fillUp: (key: Key, now: number, since: number) => void
  /**
   * The node has just started: the key is due at its region's turn, or a period after its last announcement if
   * earlier.
   */
  readonly resume: (key: Key, now: number, announcedAt: number) => void
  /**
   * Takes the keys that are due out of all that wait, together with keys of the same regions that will be due soon. In
   * the order of their positions.
   */
  readonly takeDue: (waiting: ReadonlyArray<Key>, now: number) => Array<Key>
}

export const make = <Key extends Timed>({ republishMillis, size }: TimesOptions): Times<Key> => {
  let nextDueAt = Infinity

  const dueBy = (key: Key, at: number) => {
    key.dueAt = Math.min(key.dueAt, at)
    nextDueAt = Math.min(nextDueAt, key.dueAt)
  }

  const regions = () => 2 ** Math.max(0, Math.floor(Math.log2(size() / regionKeys)))
  const regionOf = ({ h0 }: Key, count: number) => Math.floor(h0 / 2 ** 32 * count)
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
      key.slackMillis = Infinity
      dueBy(key, renewalOf(key, now))
    },
    settle: (key, now) => dueBy(key, now + (size() < 2 * regionKeys ? 0 : Math.min(60_000, 2 * size()))),
    fillUp: (key, now, since) => {
      const wait = Math.min(Math.max(now - since, fewMillis), fewMillisMax, periodOf(key) / 4)
      // Less than a renewal's: a new key would take those with few copies along each time that it is due.
      key.slackMillis = wait / 8
      dueBy(key, now + wait)
    },
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
        const isSoon = key.dueAt <= now ||
          (due.has(regionOf(key, count)) && key.dueAt - now <= Math.min(key.slackMillis, periodOf(key) / 8))
        if (isSoon) taken.push(key)
        else nextDueAt = Math.min(nextDueAt, key.dueAt)
      }
      return taken.sort((a, b) => a.h0 - b.h0)
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** A region has between this many keys and twice as many: enough to share lookups, few enough to be no burst. */
const regionKeys = 256

/** After a restart, keys announced lately are announced again within this time. */
const resumeMillis = Duration.toMillis("30 minutes")

/** A key with less than half of the copies that there could be is announced again after this time, then ever later. */
const fewMillis = Duration.toMillis("1 minute")
const fewMillisMax = Duration.toMillis("1 hour")
