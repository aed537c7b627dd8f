/**
 * Peers that did not answer, and peers that named such peers, remembered for a while: the next lookups do not wait for
 * them as the first one did.
 *
 * A *doubtful* peer is asked all the same, so that it is trusted again as soon as it answers, but a lookup waits for it
 * no longer than for a moment after the others have answered (`Lookup`). A *misleading* peer answers, and has named
 * peers of which many did not: those that only it names are doubtful from the start, since it may invent new ones for
 * each question.
 *
 * - A peer is doubtful for a minute, and for twice as long each time that it does not answer again, up to 16 minutes.
 * - A peer that asks this node something or connects is forgiven, once: a peer that speaks and never answers would
 *   otherwise cost each lookup the full wait.
 *
 * Numbers are kept and no errors, of the last 4,096 peers of each kind, in monotonic milliseconds.
 */
import { BoundedMap } from "../../BoundedMap.ts"

export interface Doubts {
  readonly isDoubtful: (key: string) => boolean
  readonly isMisleading: (key: string) => boolean
  /** The peer has answered. */
  readonly answered: (key: string) => void
  /** The peer has not answered a question, or not in the time that a lookup gives it. */
  readonly unanswered: (key: string) => void
  /** The peer has asked something, or has connected. */
  readonly spoke: (key: string) => void
  /**
   * So many more of the peers that this peer was the first to name in a lookup have answered, and so many more have
   * not.
   */
  readonly named: (key: string, answered: number, unanswered: number) => void
}

/** `now` gives monotonic milliseconds. */
export const make = (now: () => number): Doubts => {
  const silent = new BoundedMap<string, Silence>(rememberedMax)
  const namers = new BoundedMap<string, Names>(rememberedMax)

  return {
    isDoubtful: (key) => now() < (silent.get(key)?.until ?? -Infinity),
    isMisleading: (key) => now() < (namers.get(key)?.misleadingUntil ?? -Infinity),
    answered: (key) => void silent.delete(key),
    unanswered: (key) => {
      const before = silent.get(key)
      const at = now()
      // While it is doubted, a lookup hardly waits for its answer.
      if (before !== undefined && at < before.until) return
      const times = before === undefined || at > before.until + silenceForgottenMillis ? 1 : before.times + 1
      const millis = Math.min(doubtMillisMax, doubtMillisMin * 2 ** (times - 1))
      silent.set(key, { until: at + millis, times })
    },
    spoke: (key) => {
      const before = silent.get(key)
      if (before?.times === 1) silent.set(key, { until: Math.min(before.until, now()), times: 1 })
    },
    named: (key, answered, unanswered) => {
      const at = now()
      const before = namers.get(key)
      const isOld = before === undefined || at > before.since + namesMillis
      if (isOld && unanswered <= 0) return
      const names = {
        since: isOld ? at : before.since,
        answered: answered + (isOld ? 0 : before.answered),
        unanswered: unanswered + (isOld ? 0 : before.unanswered),
        misleadingUntil: before?.misleadingUntil ?? -Infinity
      }
      if (names.unanswered >= misleadingMin && names.unanswered * misleadingPart >= names.answered) {
        names.misleadingUntil = at + namesMillis
      }
      namers.set(key, names)
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface Silence {
  readonly until: number
  /** How often in a row it has not answered. */
  readonly times: number
}

/** What came of the peers that a peer named lately. */
interface Names {
  readonly since: number
  readonly answered: number
  readonly unanswered: number
  readonly misleadingUntil: number
}

const rememberedMax = 4096

const doubtMillisMin = 60_000
const doubtMillisMax = 16 * doubtMillisMin

/** After so long without doubt the next silence counts as the first. */
const silenceForgottenMillis = 3_600_000

/** How long names are counted together, and how long a peer is taken for misleading. */
const namesMillis = 600_000

/**
 * A peer misleads when five peers that it named did not answer, and at least a third of all. In a table of a network
 * whose nodes stay for an hour 15 % are dead.
 */
const misleadingMin = 5
const misleadingPart = 2
