/**
 * The iterative lookup of Kademlia: asks the peers nearest to a target for nearer ones, until the nearest that are known have all answered.
 *
 * It knows nothing of the wire. `ask` sends one question to one peer; whatever a lookup is for happens in there. Each asked peer is in one of
 * these states:
 *
 * - *under way*: it takes one of the `parallel` places;
 * - *slow*: under way for longer than `slowAfter`. It gives its place back, and others are asked and suffice as though it had failed; should it
 *   answer before the end, it counts. So a dead peer costs a lookup `slowAfter` and not the timeout of an ask;
 * - *late*: under way for four times as long. It is not waited for either when fewer than `count` others have answered, unless nobody has;
 * - *answered*, or *failed*, which passes it over.
 *
 * **Gotchas**: the lookup has no time limit, an ask needs its own. Asks that are slow when the lookup ends are interrupted, and not waited for.
 */
import { Cause, Clock, Context, Duration, Effect, Exit, Fiber } from "effect"
import { commonPrefixLength, compareDistance, type Position } from "../wire/Position.ts"

/** What a lookup has to know of a peer. */
export interface LookupPeer {
  /** Tells peers apart. */
  readonly key: string
  readonly position: Position
}

/** What a peer says to a question. */
export interface LookupAnswer<P> {
  /** Peers that it thinks near the target. Of more than `count` the nearest are heeded. */
  readonly closer: ReadonlyArray<P>
  /** Ends the lookup: it has found what it is for. */
  readonly enough?: boolean | undefined
}

export interface LookupOptions<P extends LookupPeer, R = never> {
  readonly target: Position
  /** Whom to ask first, in any order. */
  readonly seeds: ReadonlyArray<P>
  /** How many of the nearest must have answered. Defaults to 20, Kademlia's k. */
  readonly count?: number | undefined
  /** How many asks are under way at once, over all paths; slow ones aside, of which there are at most twice as many. Defaults to 10. */
  readonly parallel?: number | undefined
  /**
   * How many asks are begun before what has come meanwhile is read: each costs a write, and on a fast network the answer to the first lies
   * there before ten are written. Unbounded by default.
   */
  readonly together?: number | undefined
  /**
   * How many disjoint paths, each of which follows only what its own peers told: one that meets liars leaves the others alone
   * (S/Kademlia, section 4.4). Seeds are dealt to them, no peer is asked twice. Defaults to 1.
   */
  readonly paths?: number | undefined
  /**
   * Whether a peer can be asked without a dial. Of those that are about as useful such peers go first: of the `count` nearest those that share
   * at most 4 leading bits fewer with the target than the nearest that is to be asked. Nobody by default.
   */
  readonly isAtHand?: ((peer: P) => boolean) | undefined
  /** The key of a peer to leave out: this node's own. */
  readonly self?: string | undefined
  /**
   * When an ask is slow. Twice what the slowest answer of this lookup has taken, if that is longer. Defaults to 500 ms.
   */
  readonly slowAfter?: Duration.Input | undefined
  /** How many peers a lookup asks at most, whatever it is told; each adds `count` candidates at most. Defaults to ten times `count`. */
  readonly asksMax?: number | undefined
  /**
   * Asks a peer. `rank` says how many of the known peers that have not failed are nearer to the target at this moment. A failure passes the
   * peer over; a defect ends the lookup with it.
   */
  readonly ask: (peer: P, rank: number) => Effect.Effect<LookupAnswer<P>, unknown, R>
}

export interface LookupResult<P> {
  /** The nearest that have answered, at most `count` of them, nearest first. Empty when nobody has answered. */
  readonly closest: ReadonlyArray<P>
  /** How many were asked. */
  readonly asked: number
  /** How many of them have answered. */
  readonly answered: number
  /** How many answers in a row led to that of the closest which took most, its own included. 1 when all were seeds, 0 without an answer. */
  readonly hops: number
}

/**
 * Looks up the peers nearest to a target. Never fails: with no seed that answers the result is empty. Interruption interrupts the asks and
 * waits for their ends.
 */
export const lookup = <P extends LookupPeer, R = never>(
  options: LookupOptions<P, R>
): Effect.Effect<LookupResult<P>, never, R> =>
  Effect.contextWith((context: Context.Context<R>) =>
    Effect.callback<LookupResult<P>>((resume) => {
      const { ask, count = 20, isAtHand, parallel = 10, self, target, together = Infinity } = options
      const asksMax = options.asksMax ?? 10 * count
      const slowMillis = Duration.toMillis(options.slowAfter ?? defaultSlowAfter)
      const clock = Context.get(context, Clock.Clock)
      const fork = Effect.runForkWith(context)

      const candidates = new Map<string, Candidate<P>>()
      // In the order of their asking, so that the first that is not slow is the oldest.
      const underWay = new Map<Candidate<P>, Fiber.Fiber<unknown, unknown>>()
      let asked = 0
      let answered = 0
      let slowestMillis = 0
      let timer: Fiber.Fiber<void> | undefined
      let turn: Fiber.Fiber<void> | undefined
      let isFilling = false
      let isDone = false

      const seeds = options.seeds.toSorted((a, b) => compareDistance(a.position, b.position, target))
      const paths: Array<Path<P>> = Array.from(
        { length: Math.max(1, Math.min(options.paths ?? 1, seeds.length)) },
        () => ({ nearest: [], active: 0 })
      )
      const activeMax = Math.max(1, Math.floor(parallel / paths.length))

      const tell = (path: Path<P>, peer: P, hop: number) => {
        if (peer.key === self) return
        let candidate = candidates.get(peer.key)
        if (candidate === undefined) {
          candidate = { peer, state: "told", hop, path, since: 0 }
          candidates.set(peer.key, candidate)
        }
        insert(path.nearest, candidate, target)
      }

      const finish = (exit: Exit.Exit<LookupResult<P>>) => {
        isDone = true
        timer?.interruptUnsafe()
        turn?.interruptUnsafe()
        for (const fiber of underWay.values()) fiber.interruptUnsafe()
        resume(exit)
      }

      const result = (): LookupResult<P> => {
        const closest = [...candidates.values()].filter(({ state }) => state === "answered")
          .sort((a, b) => compareDistance(a.peer.position, b.peer.position, target)).slice(0, count)
        const hops = closest.reduce((most, { hop }) => Math.max(most, hop), 0)
        return { closest: closest.map(({ peer }) => peer), asked, answered, hops }
      }

      const start = (path: Path<P>, candidate: Candidate<P>, rank: number) => {
        asked++
        path.active++
        candidate.state = "asked"
        candidate.path = path
        candidate.since = clock.currentTimeMillisUnsafe()
        const fiber = fork(ask(candidate.peer, rank))
        underWay.set(candidate, fiber)
        fiber.addObserver((exit) => {
          underWay.delete(candidate)
          if (isDone) return
          if (candidate.state === "asked") path.active--
          if (Exit.isSuccess(exit)) {
            answered++
            candidate.state = "answered"
            slowestMillis = Math.max(slowestMillis, clock.currentTimeMillisUnsafe() - candidate.since)
            for (const peer of nearestOf(exit.value.closer, count, target)) tell(path, peer, candidate.hop + 1)
            if (exit.value.enough === true) return finish(Exit.succeed(result()))
          } else {
            candidate.state = "failed"
            if (Cause.hasDies(exit.cause)) return finish(Exit.failCause(exit.cause as Cause.Cause<never>))
          }
          fill()
        })
      }

      // An ask may end in the step that starts it.
      const fill = () => {
        if (isFilling) return
        isFilling = true
        let isMore = true
        const most = asked + together
        while (isMore) {
          isMore = false
          for (const path of paths) {
            if (asked >= most || path.active >= activeMax || underWay.size >= 3 * parallel || asked >= asksMax) continue
            const next = nextOf(path.nearest, count, target, isAtHand)
            if (next === undefined) continue
            start(path, next.candidate, next.rank)
            if (isDone) return
            isMore = true
          }
        }
        isFilling = false
        if (asked >= most) rest()
        if (
          (underWay.size === 0 && turn === undefined) ||
          paths.every(({ nearest }) => suffices(nearest, count, asked < asksMax))
        ) {
          return finish(Exit.succeed(result()))
        }
        watch()
      }

      // Goes on in the next turn of the event loop.
      const rest = () => {
        if (turn !== undefined) return
        turn = fork(Effect.yieldNow)
        turn.addObserver(() => {
          turn = undefined
          if (!isDone) fill()
        })
      }

      // One timer for all asks, for the first that becomes slow or late.
      const watch = () => {
        if (timer !== undefined || !Number.isFinite(slowMillis)) return
        const limit = Math.max(slowMillis, 2 * slowestMillis)
        let at = Infinity
        for (const { since, state } of underWay.keys()) {
          if (state !== "late") at = Math.min(at, since + (state === "slow" ? lateFactor * limit : limit))
        }
        if (at === Infinity) return
        timer = fork(Effect.sleep(Math.max(1, at - clock.currentTimeMillisUnsafe())))
        timer.addObserver(() => {
          timer = undefined
          if (isDone) return
          const limit = Math.max(slowMillis, 2 * slowestMillis)
          const now = clock.currentTimeMillisUnsafe()
          for (const candidate of underWay.keys()) {
            const took = now - candidate.since
            if (candidate.state === "asked" && took >= limit) {
              candidate.state = "slow"
              candidate.path.active--
            }
            if (candidate.state === "slow" && took >= lateFactor * limit) candidate.state = "late"
          }
          fill()
        })
      }

      seeds.forEach((peer, index) => tell(paths[index % paths.length]!, peer, 1))
      fill()

      return Effect.suspend(() => {
        isDone = true
        return Fiber.interruptAll([timer, turn, ...underWay.values()].filter((fiber) => fiber !== undefined))
      })
    })
  )

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// A dial and a question over the widest links take about six round trips of 80 ms.
const defaultSlowAfter = Duration.millis(500)

/**
 * So many leading bits fewer than the nearest make a peer no less useful: the closest 20 of a network spread over about as many. Among 4,000
 * modelled nodes a lookup asks a twentieth more when a third of them is at hand, in as many hops.
 */
const equalBits = 4

/** How many times as long a slow ask takes until it is late. */
const lateFactor = 4

interface Candidate<P> {
  readonly peer: P
  state: "told" | "asked" | "slow" | "late" | "answered" | "failed"
  readonly hop: number
  /** The one that asks it. */
  path: Path<P>
  /** When it was asked, in milliseconds. */
  since: number
}

interface Path<P> {
  /** What this path knows, nearest first. Others may know it too, and have asked it. */
  readonly nearest: Array<Candidate<P>>
  /** Asks under way that are not slow. */
  active: number
}

function insert<P extends LookupPeer>(
  nearest: Array<Candidate<P>>,
  candidate: Candidate<P>,
  target: Position
): void {
  let low = 0
  let high = nearest.length
  while (low < high) {
    const middle = (low + high) >> 1
    const other = nearest[middle]!
    if (other === candidate) return
    if (compareDistance(candidate.peer.position, other.peer.position, target) < 0) high = middle
    else low = middle + 1
  }
  nearest.splice(low, 0, candidate)
}

function nearestOf<P extends LookupPeer>(peers: ReadonlyArray<P>, count: number, target: Position): ReadonlyArray<P> {
  return peers.length <= count
    ? peers
    : peers.toSorted((a, b) => compareDistance(a.position, b.position, target)).slice(0, count)
}

/**
 * The nearest that nobody has asked, or one about as near that is at hand; unless `count` nearer ones have answered or are about to.
 */
function nextOf<P extends LookupPeer>(
  nearest: ReadonlyArray<Candidate<P>>,
  count: number,
  target: Position,
  isAtHand: ((peer: P) => boolean) | undefined
) {
  let first: { readonly candidate: Candidate<P>; readonly rank: number } | undefined
  let bits = 0
  let rank = 0
  for (const candidate of nearest) {
    const { peer, state } = candidate
    if (state === "told") {
      if (isAtHand === undefined) return { candidate, rank }
      const shared = commonPrefixLength(peer.position, target)
      if (first === undefined) {
        first = { candidate, rank }
        bits = shared - equalBits
      } else if (shared < bits) {
        return first
      }
      if (isAtHand(peer)) return { candidate, rank }
    }
    if ((state === "told" || state === "asked" || state === "answered") && ++rank >= count) return first
  }
  return first
}

/** Whether the `count` nearest have answered, or all that will. */
function suffices<P>(nearest: ReadonlyArray<Candidate<P>>, count: number, mayAsk: boolean): boolean {
  let answered = 0
  let isSlow = false
  let isLate = false
  for (const { state } of nearest) {
    if (state === "answered" && ++answered >= count) return true
    if (state === "asked" || (state === "told" && mayAsk)) return false
    if (state === "slow") isSlow = true
    if (state === "late") isLate = true
  }
  return !isSlow && !(isLate && answered === 0)
}
